// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {RequestsFixture} from "../RequestsFixture.sol";
import {Vm} from "../Vm.sol";
import {Receiver} from "../mocks/Receiver.sol";

contract RequestsFulfilTest is RequestsFixture {
    Receiver private receiver;

    function setUp() public override {
        super.setUp();
        receiver = new Receiver();
        fund(address(receiver));
    }

    function test_CreditsTheGatewayAndSaysSo() public {
        (uint256 id, IRequests.Params memory params) = ask();
        uint32 epoch = channels.epochNow();

        vm.expectEmit(address(requests));
        emit IRequests.Fulfilled(id, payee, RECEIPT, keccak256(OUTPUT), 2);
        vm.expectEmit(address(channels));
        emit IChannels.Accrued(payee, epoch, 1e6, 10_000, 1);
        fulfil(nodeKey, id, params);

        vm.assertEq(requests.openRequest(id), 0, "settled");
        vm.assertEq(token.balanceOf(address(requests)), 0, "escrow");
        vm.assertEq(token.balanceOf(address(channels)), 1e6, "channels");
        (uint96 maturing,) = channels.pendingOf(payee);
        vm.assertEq(maturing, 990_000, "pending");
    }

    function testFuzz_CreditsAnyFee(uint96 fee, uint8 tokens) public {
        IRequests.Order memory what = order();
        what.fee = uint96(bound(fee, 1, RICH));
        bytes memory output = new bytes(4 * bound(tokens, 1, what.maxTokens));
        (uint256 id, IRequests.Params memory params) = ask(payer, what);

        vm.prank(nodeKey);
        requests.fulfil(id, params, RECEIPT, output);

        vm.assertEq(channels.accountOf(payee).earned, what.fee, "earned");
        vm.assertEq(channels.accountOf(payee).fee, feeUp(what.fee), "fee");
        vm.assertEq(token.balanceOf(address(channels)), what.fee, "channels");
    }

    function test_AnswersUntilTheDeadline() public {
        (uint256 id, IRequests.Params memory params) = ask();
        vm.warp(DEADLINE);

        fulfil(nodeKey, id, params);

        vm.assertEq(requests.openRequest(id), 0, "settled");
    }

    function test_TakesAnyValidKeyOfTheGateway() public {
        addKey(payee, OTHER_NODE_KEY);
        (uint256 id, IRequests.Params memory params) = ask();

        fulfil(vm.addr(OTHER_NODE_KEY), id, params);

        vm.assertEq(requests.openRequest(id), 0, "settled");
    }

    // ---- with a callback

    function test_CallsThePayerBack() public {
        (uint256 id, IRequests.Params memory params) = _askAs(Receiver.Manner.Keep);

        fulfil(nodeKey, id, params);

        vm.assertEq(receiver.kept(), id, "id");
        vm.assertEq(receiver.keptReceipt(), RECEIPT, "receipt");
        vm.assertEq(receiver.keptOutput(), OUTPUT, "output");
    }

    function test_PaysAndTellsWhenTheCallbackFails() public {
        uint8[3] memory manners = [
            uint8(Receiver.Manner.Revert),
            uint8(Receiver.Manner.RevertHuge),
            uint8(Receiver.Manner.Burn)
        ];
        for (uint256 i = 0; i < manners.length; ++i) {
            (uint256 id, IRequests.Params memory params) = _askAs(Receiver.Manner(manners[i]));

            vm.expectEmit(address(requests));
            emit IRequests.CallbackFailed(id);
            fulfil(nodeKey, id, params);

            vm.assertEq(channels.accountOf(payee).earned, (i + 1) * 1e6, "the node is paid");
            vm.assertEq(requests.openRequest(id), 0, "settled");
        }
        vm.assertEq(receiver.kept(), 0, "nothing was kept");
    }

    /// @dev What is returned or given as a reason is not copied: it would cost 342,000 gas more.
    function test_PaysNothingForAHugeAnswer() public {
        uint256[2] memory used;
        Receiver.Manner[2] memory manners = [Receiver.Manner.Burn, Receiver.Manner.ReturnHuge];
        for (uint256 i = 0; i < 2; ++i) {
            (uint256 id, IRequests.Params memory params) = _askAs(manners[i]);
            vm.prank(nodeKey);
            uint256 before = gasleft();
            requests.fulfil(id, params, RECEIPT, OUTPUT);
            used[i] = before - gasleft();
        }

        vm.assertLt(used[1], used[0], "less than a callback that burns what it may");
    }

    function test_SaysNothingWhenThePayerHasNoCode() public {
        IRequests.Order memory what = order();
        what.callbackGas = 100_000;
        (uint256 id, IRequests.Params memory params) = ask(payer, what);
        vm.recordLogs();

        fulfil(nodeKey, id, params);

        // The transfer, the credit, the answer.
        vm.assertEq(vm.getRecordedLogs().length, 3, "events");
    }

    function test_LetsNoCallbackSettleItAgain() public {
        (uint256 id, IRequests.Params memory params) = _askAs(Receiver.Manner.Reenter);
        Receiver.Call[] memory calls = new Receiver.Call[](3);
        bytes memory data = abi.encodeCall(IRequests.fulfil, (id, params, RECEIPT, OUTPUT));
        calls[0] = Receiver.Call(address(requests), data);
        data = abi.encodeCall(IRequests.cancel, (id, params));
        calls[1] = Receiver.Call(address(requests), data);
        data = abi.encodeCall(IRequests.refund, (id, params));
        calls[2] = Receiver.Call(address(requests), data);
        receiver.plan(calls);
        vm.warp(EXCLUSIVE_UNTIL + 1);

        fulfil(nodeKey, id, params);

        vm.assertEq(receiver.kept(), id, "it was called");
        vm.assertEq(receiver.landed(), 0, "no call landed");
        vm.assertEq(token.balanceOf(address(channels)), 1e6, "the node's fee");
    }

    function testFuzz_GivesTheCallbackAllItsGas(uint32 callbackGas) public {
        callbackGas = uint32(bound(callbackGas, 1_000, 1_000_000));
        IRequests.Order memory what = order();
        what.callbackGas = callbackGas;
        (uint256 id, IRequests.Params memory params) = ask(payer, what);
        // gas; mstore(0); log0(0, 32); stop
        vm.etch(payer, hex"5a5f5260205fa000");
        bytes memory data = abi.encodeCall(IRequests.fulfil, (id, params, RECEIPT, OUTPUT));
        uint256 enough = _leastGas(id, data, callbackGas);
        vm.recordLogs();

        (bool success,) = _fulfil(data, enough);

        vm.assertTrue(success, "with just enough");
        Vm.Log[] memory logs = vm.getRecordedLogs();
        vm.assertEq(logs[logs.length - 1].emitter, payer, "the callback succeeds");
        // To ask costs two.
        uint256 seen = abi.decode(logs[logs.length - 1].data, (uint256)) + 2;
        vm.assertEq(seen, callbackGas, "gas");
    }

    function testFuzz_EndsWithJustEnoughGasWhenTheCallbackBurnsIt(uint32 callbackGas) public {
        callbackGas = uint32(bound(callbackGas, 1, 1_000_000));
        IRequests.Order memory what = order();
        what.callbackGas = callbackGas;
        (uint256 id, IRequests.Params memory params) = ask(payer, what);
        vm.etch(payer, hex"fe");
        bytes memory data = abi.encodeCall(IRequests.fulfil, (id, params, RECEIPT, OUTPUT));
        uint256 enough = _leastGas(id, data, callbackGas);

        vm.expectEmit(address(requests));
        emit IRequests.CallbackFailed(id);
        (bool success,) = _fulfil(data, enough);
        vm.assertTrue(success, "with just enough");
    }

    function test_RevertWhen_TooLittleGas() public {
        IRequests.Order memory what = order();
        what.callbackGas = 630_000;
        (uint256 id, IRequests.Params memory params) = ask(payer, what);
        bytes memory data = abi.encodeCall(IRequests.fulfil, (id, params, RECEIPT, OUTPUT));
        uint256 enough = _leastGas(id, data, 630_000);

        (bool success, bytes memory reason) = _fulfil(data, enough - 1);

        vm.assertFalse(success, "with one too little");
        (bytes4 selector, uint256 request, uint256 left, uint256 needed) = _split(reason);
        vm.assertEq(selector, IRequests.Requests_TooLittleGas.selector, "reason");
        vm.assertEq(request, id, "request");
        vm.assertEq(needed, 630_000 + 10_000 + 10_000, "a 63rd and the reserve on top");
        vm.assertLt(left, needed, "left");
        vm.assertTrue(requests.openRequest(id) != 0, "still open");
        vm.assertEq(token.balanceOf(address(requests)), 1e6, "escrow");
    }

    // ---- refused

    function test_RevertGiven_Unknown() public {
        (, IRequests.Params memory params) = ask();

        vm.expectRevert(notOpen(2));
        fulfil(nodeKey, 2, params);
        vm.expectRevert(notOpen(0));
        fulfil(nodeKey, 0, params);
    }

    function test_RevertGiven_Settled() public {
        (uint256 id, IRequests.Params memory params) = ask();
        fulfil(nodeKey, id, params);

        vm.expectRevert(notOpen(id));
        fulfil(nodeKey, id, params);
    }

    /// @dev The lowest bit changes a value, the highest one is unused in the narrow fields.
    function test_RevertWhen_AnyParameterChanged() public {
        (uint256 id, IRequests.Params memory params) = ask();
        bytes memory data = abi.encodeCall(IRequests.fulfil, (id, params, RECEIPT, OUTPUT));
        for (uint256 word = 1; word <= 14; ++word) {
            _expectRefused(id, data, 4 + word * 32, 0x80);
            _expectRefused(id, data, 4 + word * 32 + 31, 0x01);
        }
        vm.prank(nodeKey);
        (bool success,) = address(requests).call(data);
        vm.assertTrue(success, "as it was asked");
    }

    function test_RevertWhen_CallerNotAServiceKey() public {
        (uint256 id, IRequests.Params memory params) = ask();

        _expectNotGateway(id, stranger);
        fulfil(stranger, id, params);
        _expectNotGateway(id, payee);
        fulfil(payee, id, params);
    }

    function test_RevertWhen_CallerIsOtherNodesKey() public {
        join(stranger, OTHER_NODE_KEY, 0);
        (uint256 id, IRequests.Params memory params) = ask();

        _expectNotGateway(id, vm.addr(OTHER_NODE_KEY));
        fulfil(vm.addr(OTHER_NODE_KEY), id, params);
    }

    function test_RevertWhen_KeyRevoked() public {
        (uint256 id, IRequests.Params memory params) = ask();
        vm.prank(payee);
        nodes.revokeServiceKey(nodeKey);

        _expectNotGateway(id, nodeKey);
        fulfil(nodeKey, id, params);
    }

    function test_RevertGiven_StakeBelowTheMinimum() public {
        (uint256 id, IRequests.Params memory params) = ask();
        vm.prank(payee);
        nodes.unbond(1);

        _expectNotActive(payee);
        fulfil(nodeKey, id, params);
    }

    function test_RevertGiven_Jailed() public {
        (uint256 id, IRequests.Params memory params) = ask();
        vm.prank(arbiter);
        nodes.jail(payee, uint64(START + 1));

        _expectNotActive(payee);
        fulfil(nodeKey, id, params);
    }

    function test_RevertGiven_NoGateway() public {
        (uint256 id, IRequests.Params memory params) = ask();
        vm.prank(payee);
        nodes.setRoles(2);

        _expectNotActive(payee);
        fulfil(nodeKey, id, params);
    }

    function test_RevertGiven_NobodyWasAsked() public {
        IRequests.Order memory what = order();
        what.gateway = address(0);
        (uint256 id, IRequests.Params memory params) = ask(payer, what);

        _expectNotActive(address(0));
        fulfil(stranger, id, params);
    }

    function test_RevertWhen_TooLate() public {
        (uint256 id, IRequests.Params memory params) = ask();
        vm.warp(DEADLINE + 1);

        vm.expectRevert(abi.encodeWithSelector(IRequests.Requests_TooLate.selector, id, DEADLINE));
        fulfil(nodeKey, id, params);
    }

    function test_RevertWhen_ReceiptZero() public {
        (uint256 id, IRequests.Params memory params) = ask();

        vm.expectRevert(abi.encodeWithSelector(IRequests.Requests_ReceiptZero.selector, id));
        vm.prank(nodeKey);
        requests.fulfil(id, params, 0, OUTPUT);
    }

    function test_RevertWhen_OutputEmptyCutShortOrTooLong() public {
        (uint256 id, IRequests.Params memory params) = ask();
        bytes4 selector = IRequests.Requests_BadOutput.selector;
        vm.startPrank(nodeKey);

        vm.expectRevert(abi.encodeWithSelector(selector, id, 65 * 4, 64));
        requests.fulfil(id, params, RECEIPT, new bytes(65 * 4));
        vm.expectRevert(abi.encodeWithSelector(selector, id, 7, 64));
        requests.fulfil(id, params, RECEIPT, new bytes(7));
        vm.expectRevert(abi.encodeWithSelector(selector, id, 0, 64));
        requests.fulfil(id, params, RECEIPT, "");
    }

    function _askAs(Receiver.Manner manner)
        private
        returns (uint256 id, IRequests.Params memory params)
    {
        IRequests.Order memory what = order();
        what.callbackGas = 600_000;
        receiver.behave(manner);
        return ask(address(receiver), what);
    }

    /// @dev The refusal names what is needed and, a few gas after it was compared, what was left.
    function _leastGas(uint256 id, bytes memory data, uint256 callbackGas)
        private
        returns (uint256 enough)
    {
        // A step is less than the reserve, so none jumps from no gas at all to enough.
        for (uint256 tried = callbackGas + 60_000;; tried += 8_000) {
            (bool success, bytes memory reason) = _fulfil(data, tried);
            vm.assertFalse(success, "too little");
            if (reason.length == 0) continue;
            (bytes4 selector, uint256 request, uint256 left, uint256 needed) = _split(reason);
            vm.assertEq(selector, IRequests.Requests_TooLittleGas.selector, "reason");
            vm.assertEq(request, id, "request");
            return _least(data, tried, tried + needed - left);
        }
    }

    function _least(bytes memory data, uint256 tooLittle, uint256 enough)
        private
        returns (uint256)
    {
        while (enough - tooLittle > 1) {
            uint256 middle = (enough + tooLittle) / 2;
            uint256 snapshot = vm.snapshotState();
            (bool success,) = _fulfil(data, middle);
            vm.revertToState(snapshot);
            if (success) enough = middle;
            else tooLittle = middle;
        }
        return enough;
    }

    /// @dev As in a transaction of its own: nothing was touched before.
    function _fulfil(bytes memory data, uint256 available)
        private
        returns (bool success, bytes memory reason)
    {
        address[5] memory met =
            [address(requests), address(nodes), address(channels), address(token), payer];
        for (uint256 i = 0; i < met.length; ++i) {
            vm.cool(met[i]);
        }
        vm.prank(nodeKey);
        return address(requests).call{gas: available}(data);
    }

    function _split(bytes memory reason)
        private
        pure
        returns (bytes4 selector, uint256 request, uint256 left, uint256 needed)
    {
        assembly ("memory-safe") {
            selector := mload(add(reason, 0x20))
            request := mload(add(reason, 0x24))
            left := mload(add(reason, 0x44))
            needed := mload(add(reason, 0x64))
        }
    }

    function _expectRefused(uint256 id, bytes memory data, uint256 place, bytes1 bits) private {
        data[place] ^= bits;
        vm.prank(nodeKey);
        (bool success, bytes memory reason) = address(requests).call(data);
        data[place] ^= bits;

        vm.assertFalse(success, "refused");
        vm.assertEq(reason, notOpen(id), vm.toString(place));
    }

    function _expectNotGateway(uint256 id, address caller) private {
        vm.expectRevert(
            abi.encodeWithSelector(IRequests.Requests_CallerNotGateway.selector, id, caller, payee)
        );
    }

    function _expectNotActive(address gateway) private {
        vm.expectRevert(
            abi.encodeWithSelector(IRequests.Requests_GatewayNotActive.selector, gateway)
        );
    }
}
