// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

/// @title IAgentExport
/// @notice Makes nodes known as agents of ERC-8004 and exports their reputation there as feedback.
/// @dev Nothing in plait reads it back: it costs its callers gas and nobody else anything. Feedback is
/// in this contract's name, so a reader who trusts plait's rule for a score filters by this address
/// as the client, and everybody else's feedback does not count.
interface IAgentExport {
    /// @notice A node is known as an agent from now on.
    /// @param owner The node's owner.
    /// @param agentId The agent's number.
    event AgentLinked(address indexed owner, uint256 indexed agentId);
    /// @notice A node's score was exported; the next feedback replaces it in meaning.
    /// @param owner The node's owner.
    /// @param agentId The agent's number.
    /// @param score The score that was exported.
    event ScoreExported(address indexed owner, uint256 indexed agentId, uint96 score);

    /// @notice A contract this one depends on has the zero address.
    error AgentExport_AddressZero();
    /// @notice The caller does not own the agent.
    error AgentExport_CallerNotAgentOwner(uint256 agentId, address caller);
    /// @notice The node is linked to no agent.
    error AgentExport_NotLinked(address owner);
    /// @notice The agent was sold since; its new owner is no node's.
    error AgentExport_AgentMoved(uint256 agentId, address owner);
    /// @notice The account is no node.
    error AgentExport_UnknownNode(address owner);

    /// @notice Registers the caller, a node's owner, as an agent and gives it the agent's token.
    /// @param agentURI Where the agent's registration file is, as ERC-8004 has it.
    /// @return agentId The agent.
    function register(string calldata agentURI) external returns (uint256 agentId);

    /// @notice Links the caller, a node's owner, to an agent it owns; again to change it.
    /// @param agentId The agent.
    function link(uint256 agentId) external;

    /// @notice Gives a node's agent its score as feedback; anyone may call.
    /// @dev `value` is the score in base units with the token's decimals, tag1 is `plait`, tag2 is
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
