// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

/// @title Callback
/// @notice Calls a contract that nobody trusts: it gets a fixed amount of gas, and what it returns is
/// not looked at.
/// @dev A call that itself needs a call back of as much gas cannot have it: callbacks do not nest.
library Callback {
    /// @dev For what comes between the check and the call (2,600 of it opens a cold account) and for
    /// the event that reports a failure (1,500).
    uint256 private constant _RESERVE = 10_000;

    /// @notice Returns the gas that must be left so that a call gets all of `callGas` (EIP-150 keeps
    /// back a 64th) and its caller can finish.
    /// @param callGas Gas that the call gets.
    function gasNeeded(uint256 callGas) internal pure returns (uint256) {
        // The 64th that is kept back, rounded up: left - left / 64 >= callGas.
        return callGas + (callGas + 62) / 63 + _RESERVE;
    }

    /// @notice Calls with exactly `callGas` and copies nothing back, so that a huge answer costs the
    /// caller nothing; says whether the call succeeded.
    /// @dev Warning: a call to an account without code succeeds.
    /// @param target The contract to call.
    /// @param callGas Gas that the call gets.
    /// @param data The call's data.
    /// @return success Whether the call succeeded.
    function tryCall(address target, uint256 callGas, bytes memory data)
        internal
        returns (bool success)
    {
        assembly ("memory-safe") {
            success := call(callGas, target, 0, add(data, 0x20), mload(data), 0, 0)
        }
    }
}
