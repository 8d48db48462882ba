// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IRequestReceiver} from "../../contracts/interfaces/IRequestReceiver.sol";
import {ITokenHook} from "./Tokens.sol";

/// @notice Payer, payee and node in one, which calls in again at a moment of its choice.
contract Intruder is IRequestReceiver, ITokenHook {
    enum Moment {
        Never,
        BeforeTransfer,
        AfterTransfer,
        Callback
    }

    Moment private _moment;
    address private _target;
    bytes private _data;

    /// @notice How often it called in, and how often that call went through.
    uint256 public struck;
    uint256 public landed;

    function arm(Moment moment, address target, bytes calldata data) external {
        (_moment, _target, _data) = (moment, target, data);
    }

    function execute(address target, bytes calldata data) external returns (bool success) {
        (success,) = target.call(data);
    }

    function beforeTransfer() external {
        _strike(Moment.BeforeTransfer);
    }

    function afterTransfer() external {
        _strike(Moment.AfterTransfer);
    }

    function requestFulfilled(uint256, bytes32, bytes calldata) external {
        _strike(Moment.Callback);
    }

    function requestRefunded(uint256, uint96) external {
        _strike(Moment.Callback);
    }

    function _strike(Moment moment) private {
        if (moment != _moment) return;
        _moment = Moment.Never;
        ++struck;
        (bool success,) = _target.call(_data);
        if (success) ++landed;
    }
}
