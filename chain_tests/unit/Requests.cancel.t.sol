// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {RequestsFixture} from "../RequestsFixture.sol";
import {Receiver} from "../mocks/Receiver.sol";

contract RequestsCancelTest is RequestsFixture {
    function test_PaysThePayerBackAndSaysSo() public {
        (uint256 id, IRequests.Params memory params) = ask();
        vm.warp(EXCLUSIVE_UNTIL + 1);

        vm.expectEmit(address(requests));
        emit IRequests.Cancelled(id, payer, 1e6);
        cancel(payer, id, params);

        vm.assertEq(requests.openRequest(id), 0, "settled");
        vm.assertEq(token.balanceOf(payer), RICH, "payer's balance");
        vm.assertEq(token.balanceOf(address(requests)), 0, "escrow");
    }

    function testFuzz_PaysBackAnyFeeAtAnyLaterTime(uint96 fee, uint32 time) public {
        IRequests.Order memory what = order();
        what.fee = uint96(bound(fee, 1, RICH));
        (uint256 id, IRequests.Params memory params) = ask(payer, what);
        vm.warp(bound(time, EXCLUSIVE_UNTIL + 1, type(uint32).max));

        cancel(payer, id, params);

        vm.assertEq(token.balanceOf(payer), RICH, "payer's balance");
    }

    function test_CallsThePayerBack() public {
        Receiver receiver = new Receiver();
        (uint256 id, IRequests.Params memory params) = _askAs(receiver, Receiver.Manner.Keep);

        cancel(address(receiver), id, params);

        vm.assertEq(receiver.kept(), id, "id");
        vm.assertEq(receiver.keptFee(), 1e6, "fee");
    }

    function test_PaysBackAndTellsWhenTheCallbackFails() public {
        Receiver receiver = new Receiver();
        (uint256 id, IRequests.Params memory params) = _askAs(receiver, Receiver.Manner.Revert);

        vm.expectEmit(address(requests));
        emit IRequests.CallbackFailed(id);
        cancel(address(receiver), id, params);

        vm.assertEq(token.balanceOf(address(receiver)), RICH, "payer's balance");
    }

    function test_RevertWhen_CallerNotPayer() public {
        (uint256 id, IRequests.Params memory params) = ask();
        vm.warp(EXCLUSIVE_UNTIL + 1);

        vm.expectRevert(
            abi.encodeWithSelector(IRequests.Requests_CallerNotPayer.selector, id, stranger, payer)
        );
        cancel(stranger, id, params);
    }

    function test_RevertWhen_StillExclusive() public {
        (uint256 id, IRequests.Params memory params) = ask();
        vm.warp(EXCLUSIVE_UNTIL);

        vm.expectRevert(
            abi.encodeWithSelector(IRequests.Requests_StillExclusive.selector, id, EXCLUSIVE_UNTIL)
        );
        cancel(payer, id, params);
    }

    function test_RevertGiven_Settled() public {
        (uint256 fulfilled, IRequests.Params memory params) = ask();
        (uint256 cancelled,) = ask();
        fulfil(nodeKey, fulfilled, params);
        vm.warp(EXCLUSIVE_UNTIL + 1);
        cancel(payer, cancelled, params);

        vm.expectRevert(notOpen(fulfilled));
        cancel(payer, fulfilled, params);
        vm.expectRevert(notOpen(cancelled));
        cancel(payer, cancelled, params);
    }

    function test_RevertWhen_ParametersChanged() public {
        (uint256 id, IRequests.Params memory params) = ask();
        params.exclusiveUntil = 0;

        vm.expectRevert(notOpen(id));
        cancel(payer, id, params);
    }

    function test_RevertWhen_TooLittleGas() public {
        IRequests.Order memory what = order();
        what.callbackGas = 1_000_000;
        (uint256 id, IRequests.Params memory params) = ask(payer, what);
        vm.warp(EXCLUSIVE_UNTIL + 1);
        bytes memory data = abi.encodeCall(IRequests.cancel, (id, params));

        vm.prank(payer);
        (bool success, bytes memory reason) = address(requests).call{gas: 1_000_000}(data);

        vm.assertFalse(success, "refused");
        vm.assertEq(bytes32(bytes4(reason)), IRequests.Requests_TooLittleGas.selector, "reason");
        vm.assertTrue(requests.openRequest(id) != 0, "still open");
    }

    function _askAs(Receiver receiver, Receiver.Manner manner)
        private
        returns (uint256 id, IRequests.Params memory params)
    {
        fund(address(receiver));
        receiver.behave(manner);
        IRequests.Order memory what = order();
        what.callbackGas = 200_000;
        (id, params) = ask(address(receiver), what);
        vm.warp(EXCLUSIVE_UNTIL + 1);
    }
}
