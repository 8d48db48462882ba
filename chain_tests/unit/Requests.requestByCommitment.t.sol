// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {Intake} from "../../contracts/libraries/Intake.sol";
import {TypedData} from "../../contracts/libraries/TypedData.sol";
import {RequestsFixture} from "../RequestsFixture.sol";

contract RequestsRequestByCommitmentTest is RequestsFixture {
    bytes32 private constant _PROMPT = keccak256("prompt");

    function test_TakesTheFeeAndKeepsThePromptSecret() public {
        IRequests.Order memory what = order();
        IRequests.Params memory params = paramsOf(payer, what, _PROMPT, 32);
        bytes32 name = digest(TypedData.request(params, requests.seedOf(1)));

        vm.expectEmit(address(requests));
        emit IRequests.Requested(1, payee, name, params);
        vm.recordLogs();
        vm.prank(payer);
        uint256 id = requests.requestByCommitment(what, _PROMPT, 32);

        vm.assertEq(id, 1, "id");
        vm.assertEq(requests.openRequest(1), keccak256(abi.encode(params)), "what is kept");
        vm.assertEq(token.balanceOf(address(requests)), 1e6, "escrow");
        vm.assertEq(token.balanceOf(payer), RICH - 1e6, "payer's balance");
        vm.assertEq(vm.getRecordedLogs().length, 2, "the request and the transfer, no prompt");
    }

    function testFuzz_TakesAnyFeeAndLength(uint96 fee, uint32 inputTokens, bytes32 prompt) public {
        IRequests.Order memory what = order();
        what.fee = uint96(bound(fee, 1, RICH));
        inputTokens = uint32(bound(inputTokens, 1, 4096));
        vm.assume(prompt != 0);

        vm.prank(payer);
        uint256 id = requests.requestByCommitment(what, prompt, inputTokens);

        bytes32 kept = keccak256(abi.encode(paramsOf(payer, what, prompt, inputTokens)));
        vm.assertEq(requests.openRequest(id), kept, "what is kept");
        vm.assertEq(token.balanceOf(address(requests)), what.fee, "escrow");
    }

    function test_RevertWhen_PromptZero() public {
        _expect(_badPrompt(128), order(), 0, 32);
    }

    function test_RevertWhen_LengthZeroOrTooLong() public {
        _expect(_badPrompt(0), order(), _PROMPT, 0);
        _expect(_badPrompt(16_388), order(), _PROMPT, 4097);
        // Four times this does not fit 32 bits.
        uint32 most = type(uint32).max;
        _expect(_badPrompt(4 * uint256(most)), order(), _PROMPT, most);
    }

    function test_RevertWhen_OrderBad() public {
        IRequests.Order memory what = order();
        what.fee = 0;
        _expect(abi.encodeWithSelector(IRequests.Requests_FeeZero.selector), what, _PROMPT, 32);
        what = order();
        what.callbackGas = 1_000_001;
        bytes memory reason = abi.encodeWithSelector(
            IRequests.Requests_CallbackTooCostly.selector, 1_000_001, 1_000_000
        );
        _expect(reason, what, _PROMPT, 32);
    }

    function test_RevertWhen_LessArrives() public {
        vm.mockCall(
            address(token), abi.encodeWithSelector(IERC20.transferFrom.selector), abi.encode(true)
        );

        bytes memory reason = abi.encodeWithSelector(Intake.Intake_WrongAmount.selector, 1e6, 0);
        _expect(reason, order(), _PROMPT, 32);
    }

    function _badPrompt(uint256 length) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IRequests.Requests_BadPrompt.selector, length, 16_384);
    }

    function _expect(
        bytes memory reason,
        IRequests.Order memory what,
        bytes32 prompt,
        uint32 inputTokens
    ) private {
        vm.expectRevert(reason);
        vm.prank(payer);
        requests.requestByCommitment(what, prompt, inputTokens);
    }
}
