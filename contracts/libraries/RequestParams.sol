// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IRequests} from "../interfaces/IRequests.sol";

/// @title RequestParams
/// @notice Hashes a request's parameters where they lie: keccak256(abi.encode(params)).
/// @dev The struct is 14 words of fixed size, so memory, calldata and ABI encoding have the same
/// bytes. Assembly saves the copy, 1,400 gas a request; abi.encode is the reference it is fuzzed
/// against. Calldata whose unused bits are set gives another hash, which fits no request.
library RequestParams {
    uint256 private constant _SIZE = 14 * 32;

    /// @notice Returns the hash of parameters in memory.
    /// @param params The request's parameters.
    /// @return result The hash.
    function hash(IRequests.Params memory params) internal pure returns (bytes32 result) {
        assembly ("memory-safe") {
            result := keccak256(params, _SIZE)
        }
    }

    /// @notice Returns the hash of parameters in calldata.
    /// @param params The request's parameters.
    /// @return result The hash.
    function hashCalldata(IRequests.Params calldata params) internal pure returns (bytes32 result) {
        assembly ("memory-safe") {
            let free := mload(0x40)
            calldatacopy(free, params, _SIZE)
            result := keccak256(free, _SIZE)
        }
    }
}
