// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {IRequestReceiver} from "./interfaces/IRequestReceiver.sol";
import {IRequests} from "./interfaces/IRequests.sol";

/// @title PlaitConsumer
/// @notice The base of a contract that asks a model and is called back with the answer.
/// @dev Inherit, ask with `_ask` or `_askByCommitment`, and say in `_answered` and `_refunded` what
/// an end means. The fee is paid from this contract's own tokens. A request whose order names
/// `callbackGas` ends in exactly one of the two calls, unless that call itself fails: then `Requests`
/// says `CallbackFailed`, the money has moved all the same, and `IRequests.openRequest` tells that the
/// request is over. Without `callbackGas` nobody calls.
/// Warning: an answer is what one node says a model said. Until its receipt can be disputed no more,
/// do not let it move more than the node has at stake.
abstract contract PlaitConsumer is IRequestReceiver {
    using SafeERC20 for IERC20;

    IRequests private immutable _REQUESTS;

    /// @notice Only `Requests` calls back.
    error PlaitConsumer_CallerNotRequests(address caller);

    /// @notice Fixes what never changes afterwards.
    /// @param requests_ The deployment's `Requests`.
    constructor(address requests_) {
        _REQUESTS = IRequests(requests_);
        IERC20(IRequests(requests_).token()).forceApprove(requests_, type(uint256).max);
    }

    modifier onlyRequests() {
        require(msg.sender == address(_REQUESTS), PlaitConsumer_CallerNotRequests(msg.sender));
        _;
    }

    /// @inheritdoc IRequestReceiver
    function requestFulfilled(uint256 id, bytes32 receipt, bytes calldata output)
        external
        onlyRequests
    {
        _answered(id, receipt, output);
    }

    /// @inheritdoc IRequestReceiver
    function requestRefunded(uint256 id, uint96 fee) external onlyRequests {
        _refunded(id, fee);
    }

    /// @notice Returns where this contract asks.
    function requests() public view returns (IRequests) {
        return _REQUESTS;
    }

    /// @notice Asks with a public prompt: token ids, 4 bytes each, big-endian.
    /// @param order What is asked for, and for how much.
    /// @param ids Token ids, four bytes each.
    /// @return id The request's number.
    function _ask(IRequests.Order memory order, bytes memory ids) internal returns (uint256 id) {
        return _REQUESTS.request(order, ids);
    }

    /// @notice Asks with a prompt that reaches the node off chain.
    /// @param order What is asked for, and for how much.
    /// @param prompt Commitment to the prompt.
    /// @param inputTokens Number of the prompt's tokens.
    /// @return id The request's number.
    function _askByCommitment(IRequests.Order memory order, bytes32 prompt, uint32 inputTokens)
        internal
        returns (uint256 id)
    {
        return _REQUESTS.requestByCommitment(order, prompt, inputTokens);
    }

    /// @notice Cancels a request after its exclusive period; `_refunded` follows in the same call if the
    /// order named `callbackGas`.
    /// @param id The request's number.
    /// @param params The request's parameters.
    function _cancel(uint256 id, IRequests.Params calldata params) internal {
        _REQUESTS.cancel(id, params);
    }

    /// @notice Acts on an answer.
    /// @dev Runs within the order's `callbackGas`; a revert loses the call, never the payment.
    /// @param id The request's number.
    /// @param receipt Digest of the gateway's receipt.
    /// @param output The answer's token ids.
    function _answered(uint256 id, bytes32 receipt, bytes calldata output) internal virtual;

    /// @notice Acts on a request that ended without an answer; the fee is here again.
    /// @param id The request's number.
    /// @param fee Base units.
    function _refunded(uint256 id, uint96 fee) internal virtual;
}
