// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {RequestsFixture} from "../RequestsFixture.sol";
import {Receiver} from "../mocks/Receiver.sol";

contract RequestsRefundTest is RequestsFixture {
    function test_PaysThePayerAndSaysSo() public {
        (uint256 id, IRequests.Params memory params) = ask();
        vm.warp(DEADLINE + 1);

        vm.expectEmit(address(requests));
        emit IRequests.Refunded(id, payer, 1e6);
        _refund(id, params);

        vm.assertEq(requests.openRequest(id), 0, "settled");
        vm.assertEq(token.balanceOf(payer), RICH, "payer's balance");
        vm.assertEq(token.balanceOf(stranger), 0, "the caller's balance");
        vm.assertEq(token.balanceOf(address(requests)), 0, "escrow");
    }

    function testFuzz_PaysBackAnyFeeAtAnyLaterTime(uint96 fee, uint32 time) public {
        IRequests.Order memory what = order();
        what.fee = uint96(bound(fee, 1, RICH));
        (uint256 id, IRequests.Params memory params) = ask(payer, what);
        vm.warp(bound(time, DEADLINE + 1, type(uint32).max));

        _refund(id, params);

        vm.assertEq(token.balanceOf(payer), RICH, "payer's balance");
    }

    function test_CallsThePayerBack() public {
        Receiver receiver = new Receiver();
        (uint256 id, IRequests.Params memory params) = _askAs(receiver, Receiver.Manner.Keep);

        _refund(id, params);

        vm.assertEq(receiver.kept(), id, "id");
        vm.assertEq(receiver.keptFee(), 1e6, "fee");
    }

    function test_PaysBackAndTellsWhenTheCallbackFails() public {
        Receiver receiver = new Receiver();
        (uint256 id, IRequests.Params memory params) = _askAs(receiver, Receiver.Manner.Burn);

        vm.expectEmit(address(requests));
        emit IRequests.CallbackFailed(id);
        _refund(id, params);

        vm.assertEq(token.balanceOf(address(receiver)), RICH, "payer's balance");
    }

    function test_RevertWhen_NotDue() public {
        (uint256 id, IRequests.Params memory params) = ask();
        vm.warp(DEADLINE);

        vm.expectRevert(abi.encodeWithSelector(IRequests.Requests_NotDue.selector, id, DEADLINE));
        _refund(id, params);
    }

    function test_RevertGiven_Settled() public {
        (uint256 fulfilled, IRequests.Params memory params) = ask();
        (uint256 refunded,) = ask();
        fulfil(nodeKey, fulfilled, params);
        vm.warp(DEADLINE + 1);
        _refund(refunded, params);

        vm.expectRevert(notOpen(fulfilled));
        _refund(fulfilled, params);
        vm.expectRevert(notOpen(refunded));
        _refund(refunded, params);
    }

    function test_RevertWhen_ParametersChanged() public {
        (uint256 id, IRequests.Params memory params) = ask();
        params.payer = stranger;
        vm.warp(DEADLINE + 1);

        vm.expectRevert(notOpen(id));
        _refund(id, params);
    }

    function test_RevertWhen_TokenSaysNo() public {
        (uint256 id, IRequests.Params memory params) = ask();
        vm.warp(DEADLINE + 1);
        vm.mockCall(
            address(token), abi.encodeWithSelector(IERC20.transfer.selector), abi.encode(false)
        );

        vm.expectRevert(
            abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(token))
        );
        _refund(id, params);
        vm.assertTrue(requests.openRequest(id) != 0, "still open");
    }

    function test_RevertWhen_TooLittleGas() public {
        IRequests.Order memory what = order();
        what.callbackGas = 1_000_000;
        (uint256 id, IRequests.Params memory params) = ask(payer, what);
        vm.warp(DEADLINE + 1);
        bytes memory data = abi.encodeCall(IRequests.refund, (id, params));

        (bool success, bytes memory reason) = address(requests).call{gas: 1_000_000}(data);

        vm.assertFalse(success, "refused");
        vm.assertEq(bytes32(bytes4(reason)), IRequests.Requests_TooLittleGas.selector, "reason");
        vm.assertTrue(requests.openRequest(id) != 0, "still open");
    }

    function _refund(uint256 id, IRequests.Params memory params) private {
        vm.prank(stranger);
        requests.refund(id, params);
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
        vm.warp(DEADLINE + 1);
    }
}
