// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {KeeperFixture} from "../KeeperFixture.sol";

contract AnswerKeeperWithdrawTest is KeeperFixture {
    function testFuzz_PaysTheOwner(uint256 amount) public {
        amount = bound(amount, 0, RICH);

        keeper.withdraw(amount);

        vm.assertEq(token.balanceOf(address(this)), amount, "the owner's balance");
        vm.assertEq(token.balanceOf(address(keeper)), RICH - amount, "its tokens");
    }

    function test_RevertWhen_CallerNotOwner() public {
        vm.expectRevert(notOwner());
        vm.prank(stranger);
        keeper.withdraw(1);
    }

    function test_RevertWhen_ItHasLess() public {
        vm.expectRevert(
            abi.encodeWithSelector(
                IERC20Errors.ERC20InsufficientBalance.selector, address(keeper), RICH, RICH + 1
            )
        );
        keeper.withdraw(RICH + 1);
    }
}
