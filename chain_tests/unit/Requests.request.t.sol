// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {Intake} from "../../contracts/libraries/Intake.sol";
import {TypedData} from "../../contracts/libraries/TypedData.sol";
import {RequestsFixture} from "../RequestsFixture.sol";

contract RequestsRequestTest is RequestsFixture {
    function test_TakesTheFeeAndSaysAll() public {
        IRequests.Order memory what = order();
        what.callbackGas = 1;
        IRequests.Params memory params = askedBy(payer, what);
        bytes32 name = digest(TypedData.request(params, requests.seedOf(1)));

        vm.expectEmit(address(requests));
        emit IRequests.Requested(1, payee, name, params);
        vm.expectEmit(address(requests));
        emit IRequests.PromptPublished(1, payee, IDS);
        vm.prank(payer);
        uint256 id = requests.request(what, IDS);

        vm.assertEq(id, 1, "id");
        vm.assertEq(requests.requestCount(), 1, "count");
        vm.assertEq(requests.openRequest(1), keccak256(abi.encode(params)), "what is kept");
        vm.assertEq(requests.digestOf(1, params), name, "digestOf");
        vm.assertEq(
            requests.seedOf(1), keccak256(abi.encode(block.chainid, address(requests), 1)), "seed"
        );
        vm.assertEq(token.balanceOf(address(requests)), 1e6, "escrow");
        vm.assertEq(token.balanceOf(payer), RICH - 1e6, "payer's balance");
    }

    function test_CountsFromOne() public {
        (uint256 first,) = ask();
        (uint256 second,) = ask();

        vm.assertEq(first, 1, "first");
        vm.assertEq(second, 2, "second");
        vm.assertTrue(requests.seedOf(first) != requests.seedOf(second), "seeds differ");
    }

    function testFuzz_TakesAnyFeeAndTimes(uint96 fee, uint64 exclusiveUntil, uint64 deadline)
        public
    {
        IRequests.Order memory what = order();
        what.fee = uint96(bound(fee, 1, RICH));
        what.deadline = uint64(bound(deadline, START + 1 minutes, START + 1 hours));
        what.exclusiveUntil = uint64(bound(exclusiveUntil, START + 1 minutes, what.deadline));

        (uint256 id, IRequests.Params memory params) = ask(payer, what);

        vm.assertEq(requests.openRequest(id), keccak256(abi.encode(params)), "what is kept");
        vm.assertEq(token.balanceOf(address(requests)), what.fee, "escrow");
    }

    function test_TakesTheMostOfAll() public {
        IRequests.Order memory what = order();
        what.topP = 1_000_000;
        what.deadline = uint64(START + 1 hours);
        what.exclusiveUntil = what.deadline;
        what.callbackGas = 1_000_000;
        bytes memory longest = new bytes(16_384);
        vm.recordLogs();

        vm.prank(payer);
        requests.request(what, longest);

        vm.assertEq(loggedParams().inputTokens, 4096, "inputTokens");
    }

    function test_TakesTheShortestExclusivePeriod() public {
        IRequests.Order memory what = order();
        what.exclusiveUntil = uint64(START + 1 minutes);
        what.deadline = what.exclusiveUntil;

        (uint256 id,) = ask(payer, what);

        vm.assertTrue(requests.openRequest(id) != 0, "open");
    }

    function test_RevertWhen_PromptIsEmptyCutShortOrTooLong() public {
        uint16[3] memory lengths = [0, 5, 16_388];
        IRequests.Order memory what = order();
        for (uint256 i = 0; i < lengths.length; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(IRequests.Requests_BadPrompt.selector, lengths[i], 16_384)
            );
            vm.prank(payer);
            requests.request(what, new bytes(lengths[i]));
        }
    }

    function test_RevertWhen_FeeZero() public {
        IRequests.Order memory what = order();
        what.fee = 0;

        _expect(abi.encodeWithSelector(IRequests.Requests_FeeZero.selector), what);
    }

    function test_RevertWhen_NoOutput() public {
        IRequests.Order memory what = order();
        what.maxTokens = 0;

        _expect(abi.encodeWithSelector(IRequests.Requests_NoOutput.selector), what);
    }

    function test_RevertWhen_TopPOutOfRange() public {
        IRequests.Order memory what = order();
        what.topP = 0;
        _expect(abi.encodeWithSelector(IRequests.Requests_BadSampling.selector, 0), what);
        what.topP = 1_000_001;
        _expect(abi.encodeWithSelector(IRequests.Requests_BadSampling.selector, 1_000_001), what);
    }

    function test_RevertWhen_ExclusivePeriodTooShort() public {
        IRequests.Order memory what = order();
        what.exclusiveUntil = uint64(START + 59);

        _expect(_badTimes(what), what);
    }

    function test_RevertWhen_ExclusivePeriodEndsAfterTheDeadline() public {
        IRequests.Order memory what = order();
        what.exclusiveUntil = what.deadline + 1;

        _expect(_badTimes(what), what);
    }

    function test_RevertWhen_DeadlineTooLate() public {
        IRequests.Order memory what = order();
        what.deadline = uint64(START + 1 hours + 1);

        _expect(_badTimes(what), what);
    }

    function test_RevertWhen_CallbackTooCostly() public {
        IRequests.Order memory what = order();
        what.callbackGas = 1_000_001;

        _expect(
            abi.encodeWithSelector(
                IRequests.Requests_CallbackTooCostly.selector, 1_000_001, 1_000_000
            ),
            what
        );
    }

    function test_RevertWhen_OrderHasDirtyBits() public {
        bytes memory data = abi.encodeCall(IRequests.request, (order(), IDS));
        // The first word of the order is the gateway: its top byte is no part of an address.
        data[4] = 0x01;

        vm.prank(payer);
        (bool success, bytes memory reason) = address(requests).call(data);

        vm.assertFalse(success, "refused");
        vm.assertEq(reason.length, 0, "by the decoder");
    }

    function test_RevertWhen_TokenRefuses() public {
        IRequests.Order memory what = order();
        what.fee = RICH + 1;

        _expect(
            abi.encodeWithSelector(
                IERC20Errors.ERC20InsufficientBalance.selector, payer, RICH, RICH + 1
            ),
            what
        );
        vm.assertEq(requests.requestCount(), 0, "nothing was asked");
    }

    function test_RevertWhen_LessArrives() public {
        vm.mockCall(
            address(token), abi.encodeWithSelector(IERC20.transferFrom.selector), abi.encode(true)
        );

        _expect(abi.encodeWithSelector(Intake.Intake_WrongAmount.selector, 1e6, 0), order());
    }

    function _badTimes(IRequests.Order memory what) private pure returns (bytes memory) {
        return abi.encodeWithSelector(
            IRequests.Requests_BadTimes.selector,
            what.exclusiveUntil,
            what.deadline,
            START + 1 hours
        );
    }

    function _expect(bytes memory reason, IRequests.Order memory what) private {
        vm.expectRevert(reason);
        vm.prank(payer);
        requests.request(what, IDS);
    }
}
