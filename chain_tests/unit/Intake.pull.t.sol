// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {Intake} from "../../contracts/libraries/Intake.sol";
import {Fixture} from "../Fixture.sol";
import {IntakeCaller} from "../mocks/Callers.sol";

contract IntakePullTest is Fixture {
    IntakeCaller private caller = new IntakeCaller();

    function testFuzz_MovesExactlyTheAmount(uint256 held, uint256 amount) public {
        held = bound(held, 0, type(uint128).max);
        amount = bound(amount, 0, RICH);
        token.mint(address(caller), held);
        _approve();

        vm.prank(payer);
        caller.pull(token, amount);

        vm.assertEq(token.balanceOf(address(caller)), held + amount, "balance");
        vm.assertEq(token.balanceOf(payer), RICH - amount, "payer's balance");
    }

    function testFuzz_RevertWhen_AnotherAmountArrives(uint96 held, uint96 expected, uint96 received)
        public
    {
        vm.assume(expected != received);
        token.mint(address(caller), uint256(held) + received);

        vm.expectRevert(
            abi.encodeWithSelector(Intake.Intake_WrongAmount.selector, expected, received)
        );
        caller.check(token, held, expected);
    }

    function test_RevertWhen_TheTokenSaysNo() public {
        vm.mockCall(
            address(token), abi.encodeWithSelector(IERC20.transferFrom.selector), abi.encode(false)
        );

        vm.expectRevert(
            abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(token))
        );
        caller.pull(token, 1);
    }

    function test_TakesATokenThatSaysNothing() public {
        vm.mockCall(address(token), abi.encodeWithSelector(IERC20.transferFrom.selector), "");

        caller.pull(token, 0);
    }

    function _approve() private {
        vm.prank(payer);
        token.approve(address(caller), type(uint256).max);
    }
}
