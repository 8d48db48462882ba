// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IRequestReceiver} from "../../contracts/interfaces/IRequestReceiver.sol";

/// @notice A wallet that anybody may command, and that does the worst when it is called back.
contract Receiver is IRequestReceiver {
    enum Manner {
        Keep,
        Revert,
        RevertHuge,
        Burn,
        ReturnHuge,
        Reenter
    }

    struct Call {
        address target;
        bytes data;
    }

    /// @dev Costs 342,000 gas to lay out, so that copying it would be seen.
    uint256 private constant _HUGE = 400_000;

    Manner public manner;
    Call[] private _calls;

    uint256 public kept;
    bytes32 public keptReceipt;
    bytes public keptOutput;
    uint96 public keptFee;
    uint256 public landed;

    error Receiver_No(uint256 id);

    function execute(address target, bytes calldata data) external returns (bytes memory) {
        (bool success, bytes memory answer) = target.call(data);
        if (!success) {
            assembly ("memory-safe") {
                revert(add(answer, 0x20), mload(answer))
            }
        }
        return answer;
    }

    function behave(Manner manner_) external {
        manner = manner_;
    }

    function plan(Call[] calldata calls) external {
        for (uint256 i = 0; i < calls.length; ++i) {
            _calls.push(calls[i]);
        }
    }

    function requestFulfilled(uint256 id, bytes32 receipt, bytes calldata output) external {
        _act(id);
        kept = id;
        keptReceipt = receipt;
        keptOutput = output;
    }

    function requestRefunded(uint256 id, uint96 fee) external {
        _act(id);
        kept = id;
        keptFee = fee;
    }

    function _act(uint256 id) private {
        if (manner == Manner.Keep) return;
        if (manner == Manner.Revert) revert Receiver_No(id);
        if (manner == Manner.Reenter) {
            for (uint256 i = 0; i < _calls.length; ++i) {
                (bool success,) = _calls[i].target.call(_calls[i].data);
                if (success) ++landed;
            }
            return;
        }
        bool reverts = manner == Manner.RevertHuge;
        bool burns = manner == Manner.Burn;
        assembly ("memory-safe") {
            if burns { invalid() }
            if reverts { revert(0, _HUGE) }
            return(0, _HUGE)
        }
    }
}
