// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC721} from "@openzeppelin/contracts/token/ERC721/IERC721.sol";

/// @title IERC8004Identity
/// @notice The part of ERC-8004's identity registry that is used here.
interface IERC8004Identity is IERC721 {
    /// @notice Registers an agent; its token goes to the caller.
    /// @param agentURI Where the agent describes itself.
    /// @return agentId The agent's number.
    function register(string calldata agentURI) external returns (uint256 agentId);
}

/// @title IERC8004Reputation
/// @notice The part of ERC-8004's reputation registry that is used here.
interface IERC8004Reputation {
    /// @notice Gives feedback in the caller's name; refused from the agent's owner or operators.
    /// @param agentId The agent's number.
    /// @param value The score, times ten to the power of `valueDecimals`.
    /// @param valueDecimals Decimals of `value`.
    /// @param tag1 What the score is about.
    /// @param tag2 What the score is about, closer.
    /// @param endpoint What was used of the agent, may be empty.
    /// @param feedbackURI Where the feedback is explained, may be empty.
    /// @param feedbackHash keccak256 of what is there.
    function giveFeedback(
        uint256 agentId,
        int128 value,
        uint8 valueDecimals,
        string calldata tag1,
        string calldata tag2,
        string calldata endpoint,
        string calldata feedbackURI,
        bytes32 feedbackHash
    ) external;

    /// @notice Takes back feedback that the caller gave; a second time is refused.
    /// @param agentId The agent's number.
    /// @param feedbackIndex Which of the caller's feedback on this agent, counted from 1.
    function revokeFeedback(uint256 agentId, uint64 feedbackIndex) external;

    /// @notice Returns the index of the last feedback that a client gave on an agent.
    /// @param agentId The agent's number.
    /// @param clientAddress Who gave the feedback.
    /// @return feedbackIndex Counted from 1, zero for none; what was revoked counts too.
    function getLastIndex(uint256 agentId, address clientAddress)
        external
        view
        returns (uint64 feedbackIndex);

    /// @notice Returns the identity registry whose agents are judged.
    /// @return identity The registry.
    function getIdentityRegistry() external view returns (address identity);
}
