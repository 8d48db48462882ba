// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {Callback} from "../../contracts/libraries/Callback.sol";
import {Fixture} from "../Fixture.sol";
import {Vm} from "../Vm.sol";
import {CallbackCaller} from "../mocks/Callers.sol";

contract CallbackGasNeededTest is Fixture {
    address private constant _PROBE = address(0xBEEF);

    CallbackCaller private caller = new CallbackCaller();

    function test_AddsA63rdRoundedUpAndTheReserve() public pure {
        vm.assertEq(Callback.gasNeeded(0), 10_000, "none");
        vm.assertEq(Callback.gasNeeded(1), 10_002, "one");
        vm.assertEq(Callback.gasNeeded(63), 10_064, "a whole 63rd");
        vm.assertEq(Callback.gasNeeded(64), 10_066, "one more");
        vm.assertEq(Callback.gasNeeded(630_000), 650_000, "many");
    }

    function testFuzz_LeavesEnoughAfterTheKeptBack64th(uint32 callGas) public pure {
        uint256 left = Callback.gasNeeded(callGas) - 10_000;

        vm.assertGe(left - left / 64, callGas, "what EIP-150 lets through");
        if (callGas != 0) {
            vm.assertLt(left - 2 - (left - 2) / 64, callGas, "at most one is too many");
        }
    }

    function testFuzz_IsWhatACallNeedsToSeeAllItsGas(uint32 callGas) public {
        callGas = uint32(bound(callGas, 1_000, 10_000_000));
        // gas; mstore(0); log0(0, 32); stop
        vm.etch(_PROBE, hex"5a5f5260205fa000");
        uint256 enough = _leastGas(callGas);
        vm.recordLogs();

        (bool success,) = _call(callGas, enough);

        vm.assertTrue(success, "with just enough");
        Vm.Log[] memory logs = vm.getRecordedLogs();
        vm.assertEq(logs.length, 1, "the call succeeds");
        // To ask costs two.
        vm.assertEq(abi.decode(logs[0].data, (uint256)) + 2, callGas, "gas");
    }

    function testFuzz_IsWhatTheCallerNeedsToEnd(uint32 callGas) public {
        callGas = uint32(bound(callGas, 0, 10_000_000));
        vm.etch(_PROBE, hex"fe");
        uint256 enough = _leastGas(callGas);

        (bool success, bytes memory answer) = _call(callGas, enough);

        vm.assertTrue(success, "with just enough");
        vm.assertFalse(abi.decode(answer, (bool)), "the call burns all it has");
    }

    function _leastGas(uint256 callGas) private returns (uint256) {
        // Enough to be refused, not enough to call.
        (bool success, bytes memory reason) = _call(callGas, callGas + 5_000);
        vm.assertFalse(success, "too little");
        uint256 left;
        uint256 needed;
        assembly ("memory-safe") {
            left := mload(add(reason, 0x24))
            needed := mload(add(reason, 0x44))
        }
        return callGas + 5_000 + needed - left;
    }

    function _call(uint256 callGas, uint256 available)
        private
        returns (bool success, bytes memory answer)
    {
        bytes memory data = abi.encodeCall(CallbackCaller.callBack, (_PROBE, callGas, ""));
        vm.cool(address(caller));
        vm.cool(_PROBE);
        return address(caller).call{gas: available}(data);
    }
}
