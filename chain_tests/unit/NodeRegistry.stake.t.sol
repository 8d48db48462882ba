// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {Intake} from "../../contracts/libraries/Intake.sol";
import {Fixture} from "../Fixture.sol";

contract NodeRegistryStakeTest is Fixture {
    function setUp() public override {
        super.setUp();
        join(payee, NODE_KEY, 0);
    }

    function test_TakesTheMoneyAndSaysSo() public {
        vm.expectEmit(address(nodes));
        emit INodeRegistry.Staked(payee, 60e6, 60e6);
        _stake(60e6);

        vm.assertEq(token.balanceOf(address(nodes)), 60e6, "balance");
        vm.assertEq(token.balanceOf(payee), RICH - 60e6, "payee's balance");
        (uint96 stake,) = nodes.bondOf(payee);
        vm.assertEq(stake, 60e6, "stake");
    }

    function test_ListsTheNodeFromTheMinimumOn() public {
        _stake(60e6);
        vm.assertFalse(nodes.isActive(payee), "below the minimum");
        vm.assertEq(nodes.nodeCount(), 0, "not listed");

        vm.expectEmit(address(nodes));
        emit INodeRegistry.Staked(payee, 40e6, 100e6);
        _stake(40e6);

        vm.assertTrue(nodes.isActive(payee), "at the minimum");
        vm.assertEq(nodes.nodeCount(), 1, "listed");
        vm.assertEq(nodes.nodeAt(0), payee, "the listed node");
        _stake(1);
        vm.assertEq(nodes.nodeCount(), 1, "listed once");
    }

    function testFuzz_AddsAnyAmount(uint96 first, uint96 second) public {
        first = uint96(bound(first, 1, RICH / 2));
        second = uint96(bound(second, 1, RICH / 2));
        _stake(first);
        _stake(second);

        vm.assertEq(nodes.nodeOf(payee).stake, first + second, "stake");
        vm.assertEq(nodes.isActive(payee), first + second >= MIN_STAKE, "active");
        vm.assertEq(nodes.nodeCount(), first + second >= MIN_STAKE ? 1 : 0, "listed");
        vm.assertEq(token.balanceOf(address(nodes)), first + second, "balance");
    }

    function test_RevertGiven_UnknownNode() public {
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_UnknownNode.selector, stranger)
        );
        vm.prank(stranger);
        nodes.stake(1);
    }

    function test_RevertWhen_AmountZero() public {
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_AmountZero.selector));
        _stake(0);
    }

    function test_RevertWhen_TokenRefuses() public {
        vm.expectRevert(
            abi.encodeWithSelector(
                IERC20Errors.ERC20InsufficientBalance.selector, payee, RICH, RICH + 1
            )
        );
        _stake(RICH + 1);

        vm.assertEq(nodes.nodeOf(payee).stake, 0, "no stake");
    }

    function test_RevertWhen_LessArrives() public {
        vm.mockCall(
            address(token), abi.encodeWithSelector(IERC20.transferFrom.selector), abi.encode(true)
        );

        vm.expectRevert(abi.encodeWithSelector(Intake.Intake_WrongAmount.selector, 5, 0));
        _stake(5);
    }

    function _stake(uint96 amount) private {
        vm.prank(payee);
        nodes.stake(amount);
    }
}
