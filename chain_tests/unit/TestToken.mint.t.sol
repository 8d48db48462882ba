// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {Fixture} from "../Fixture.sol";

contract TestTokenMintTest is Fixture {
    function testFuzz_GivesAnybodyAnyAmount(uint96 amount) public {
        vm.expectEmit(address(token));
        emit IERC20.Transfer(address(0), stranger, amount);
        vm.prank(stranger);
        token.mint(stranger, amount);

        vm.assertEq(token.balanceOf(stranger), amount, "balance");
        vm.assertEq(token.decimals(), 6, "decimals");
    }

    function test_RevertWhen_ToZero() public {
        vm.expectRevert(
            abi.encodeWithSelector(IERC20Errors.ERC20InvalidReceiver.selector, address(0))
        );
        token.mint(address(0), 1);
    }
}
