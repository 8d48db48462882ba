// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

/// @title IAgentExport
/// @notice Makes nodes known as agents of ERC-8004 and exports their reputation there as feedback.
/// @dev Nothing in plait reads it back: it costs its callers gas and nobody else anything. Feedback is
/// in this contract's name, so a reader who trusts plait's rule for a score filters by this address
/// as the client, and everybody else's feedback does not count.
///
/// A node and an agent are bound to each other once and for ever, so a fee that was burned speaks for
/// one agent. Each export revokes the one before, so an agent has at most one feedback from here that
/// is not revoked, and the average that ERC-8004 makes of it is the score last exported.
///
/// **The feedback is a copy, and a node can stop it from being renewed**: it moves the agent to another
/// account, or makes this contract an operator of the agent, whose feedback ERC-8004 refuses. A score
/// that fell since, after a verdict say, then stays up as it was. Whoever depends on a score reads
/// `Reputation.scoreOf` itself.
interface IAgentExport {
    /// @notice A node is known as an agent from now on, and as no other.
    /// @param owner The node's owner.
    /// @param agentId The agent's number.
    event AgentLinked(address indexed owner, uint256 indexed agentId);
    /// @notice A node's score was exported; what was exported before is revoked.
    /// @param owner The node's owner.
    /// @param agentId The agent's number.
    /// @param score The score that was exported.
    event ScoreExported(address indexed owner, uint256 indexed agentId, uint96 score);

    /// @notice A contract this one depends on has the zero address.
    error AgentExport_AddressZero();
    /// @notice The token has more decimals than ERC-8004 takes.
    /// @param decimals The token's.
    /// @param max ERC-8004's limit.
    error AgentExport_TooManyDecimals(uint8 decimals, uint8 max);
    /// @notice The caller does not own the agent.
    /// @param agentId The agent's number.
    /// @param caller Who called.
    error AgentExport_CallerNotAgentOwner(uint256 agentId, address caller);
    /// @notice The node is linked to an agent already; that never changes.
    /// @param owner The node's owner.
    /// @param agentId The agent that it is linked to.
    error AgentExport_AlreadyLinked(address owner, uint256 agentId);
    /// @notice The agent stands for another node, or did before it was sold; that never changes.
    /// @param agentId The agent's number.
    /// @param owner That node's owner.
    error AgentExport_AgentTaken(uint256 agentId, address owner);
    /// @notice The node is linked to no agent.
    /// @param owner The node's owner.
    error AgentExport_NotLinked(address owner);
    /// @notice The agent is another account's; there are no exports until it is the node's again.
    /// @param agentId The agent's number.
    /// @param owner The node's owner.
    error AgentExport_AgentMoved(uint256 agentId, address owner);
    /// @notice The score is the one last exported, or zero and none was exported.
    /// @param owner The node's owner.
    /// @param score Base units.
    error AgentExport_Unchanged(address owner, uint96 score);
    /// @notice The account is no node.
    /// @param owner The account.
    error AgentExport_UnknownNode(address owner);
    /// @notice Only an agent that is being registered here is taken, so that no token gets stuck.
    /// @param token The contract that calls.
    /// @param tokenId The token's number.
    error AgentExport_UnexpectedToken(address token, uint256 tokenId);

    /// @notice Registers the caller, a node's owner that is linked to no agent yet, as an agent for
    /// good and gives it the agent's token.
    /// @param agentURI Where the agent's registration file is, as ERC-8004 has it.
    /// @return agentId The agent.
    function register(string calldata agentURI) external returns (uint256 agentId);

    /// @notice Links the caller, a node's owner, to an agent it owns, for good: never to another one,
    /// and the agent never to another node, even when it is sold.
    /// @param agentId The agent.
    function link(uint256 agentId) external;

    /// @notice Gives a node's agent its score as feedback in place of the one before; anyone may call,
    /// if the score has changed.
    /// @dev A node can make this revert and so keep the feedback as it is; see above. `value` is the score in base units with the token's decimals, tag1 is `plait`, tag2 is
    /// `burned-fee`, the hash is keccak256(abi.encode(chainId, Reputation, owner, score, block)).
    /// @param owner The node.
    /// @return score Base units.
    function exportScore(address owner) external returns (uint96 score);

    /// @notice Returns a node's agent.
    /// @param owner The node's owner.
    /// @return agentId The agent, if `linked`.
    /// @return linked Whether there is one; agents count from 0.
    function agentOf(address owner) external view returns (uint256 agentId, bool linked);
}
