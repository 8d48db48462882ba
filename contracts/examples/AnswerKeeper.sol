// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {PlaitConsumer} from "../PlaitConsumer.sol";
import {IRequests} from "../interfaces/IRequests.sol";

/// @title AnswerKeeper
/// @notice Asks a model on behalf of its owner and keeps the hash of each answer.
contract AnswerKeeper is PlaitConsumer {
    using SafeERC20 for IERC20;

    /// @notice What is kept for a request that was refunded.
    bytes32 public constant REFUNDED = bytes32(uint256(1));

    address private immutable _OWNER;

    /// @notice Hash of the answer's token ids, `REFUNDED`, or zero while a request waits.
    mapping(uint256 id => bytes32 hash) public answers;

    /// @notice An answer arrived; `hash` is keccak256 of its token ids.
    /// @param id The request's number.
    /// @param hash keccak256 of the answer's token ids.
    event Answered(uint256 indexed id, bytes32 hash);
    /// @notice A request ended without an answer.
    /// @param id The request's number.
    /// @param fee Base units.
    event NotAnswered(uint256 indexed id, uint96 fee);

    /// @notice Only the owner spends this contract's tokens.
    error AnswerKeeper_CallerNotOwner(address caller);

    /// @notice Fixes what never changes afterwards.
    /// @param requests_ The deployment's `Requests`.
    constructor(address requests_) PlaitConsumer(requests_) {
        _OWNER = msg.sender;
    }

    modifier onlyOwner() {
        require(msg.sender == _OWNER, AnswerKeeper_CallerNotOwner(msg.sender));
        _;
    }

    /// @notice Asks with a public prompt; this contract pays the fee.
    /// @param order What is asked for, and for how much.
    /// @param ids Token ids, four bytes each.
    /// @return id The request's number.
    function ask(IRequests.Order calldata order, bytes calldata ids)
        external
        onlyOwner
        returns (uint256 id)
    {
        return _ask(order, ids);
    }

    /// @notice Asks with a prompt that reaches the node off chain; this contract pays the fee.
    /// @param order What is asked for, and for how much.
    /// @param prompt Commitment to the prompt.
    /// @param inputTokens Number of the prompt's tokens.
    /// @return id The request's number.
    function askByCommitment(IRequests.Order calldata order, bytes32 prompt, uint32 inputTokens)
        external
        onlyOwner
        returns (uint256 id)
    {
        return _askByCommitment(order, prompt, inputTokens);
    }

    /// @notice Gives up on a request whose exclusive period is over.
    /// @param id The request's number.
    /// @param params The request's parameters.
    function giveUp(uint256 id, IRequests.Params calldata params) external onlyOwner {
        _cancel(id, params);
    }

    /// @notice Takes tokens out that no request needs.
    /// @param amount Base units.
    function withdraw(uint256 amount) external onlyOwner {
        IERC20(requests().token()).safeTransfer(_OWNER, amount);
    }

    function _answered(uint256 id, bytes32, bytes calldata output) internal override {
        bytes32 hash = keccak256(output);
        answers[id] = hash;

        emit Answered(id, hash);
    }

    function _refunded(uint256 id, uint96 fee) internal override {
        answers[id] = REFUNDED;

        emit NotAnswered(id, fee);
    }
}
