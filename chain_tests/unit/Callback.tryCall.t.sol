// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IRequestReceiver} from "../../contracts/interfaces/IRequestReceiver.sol";
import {Fixture} from "../Fixture.sol";
import {CallbackCaller} from "../mocks/Callers.sol";
import {Receiver} from "../mocks/Receiver.sol";

contract CallbackTryCallTest is Fixture {
    CallbackCaller private caller = new CallbackCaller();
    Receiver private receiver = new Receiver();

    function testFuzz_HandsOverTheData(uint256 id, uint96 fee) public {
        vm.assertTrue(_call(Receiver.Manner.Keep, id, fee), "success");

        vm.assertEq(receiver.kept(), id, "id");
        vm.assertEq(receiver.keptFee(), fee, "fee");
    }

    function test_SaysThatTheCallReverted() public {
        vm.assertFalse(_call(Receiver.Manner.Revert, 1, 1), "reverts");
        vm.assertFalse(_call(Receiver.Manner.Burn, 1, 1), "runs out of gas");
        vm.assertEq(receiver.kept(), 0, "nothing was kept");
    }

    /// @dev Copying the answer would cost the caller 342,000 gas more than is here.
    function test_CopiesNoAnswer() public {
        vm.assertFalse(_call(Receiver.Manner.RevertHuge, 1, 1), "a huge reason");
        vm.assertTrue(_call(Receiver.Manner.ReturnHuge, 1, 1), "a huge answer");
    }

    function test_SucceedsWithoutCode() public {
        vm.assertTrue(caller.callBack(stranger, 100_000, hex"01020304"), "success");
    }

    function _call(Receiver.Manner manner, uint256 id, uint96 fee) private returns (bool) {
        receiver.behave(manner);
        bytes memory data = abi.encodeCall(IRequestReceiver.requestRefunded, (id, fee));
        return caller.callBack{gas: 600_000}(address(receiver), 500_000, data);
    }
}
