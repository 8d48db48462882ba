// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

/// @title IRequestReceiver
/// @notice What `Requests` calls on a contract that asked with a callback; see `PlaitConsumer`.
/// @dev Exactly one of the two is called once per request that names `callbackGas`, with exactly that
/// gas, after all money has moved. A call that fails is reported in `CallbackFailed` and never
/// repeated. Warning: check that the caller is `Requests`.
interface IRequestReceiver {
    /// @notice Receives the answer to a request of this contract.
    /// @param id The request.
    /// @param receipt Digest of the node's signed receipt.
    /// @param output The answer's token ids, 4 bytes each, big-endian. Warning: the node chose them;
    /// what they mean has not been judged.
    function requestFulfilled(uint256 id, bytes32 receipt, bytes calldata output) external;

    /// @notice Learns that a request of this contract ended without an answer.
    /// @param id The request.
    /// @param fee Base units that came back.
    function requestRefunded(uint256 id, uint96 fee) external;
}
