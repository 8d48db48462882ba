// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../Fixture.sol";

contract NodeRegistrySlashTest is Fixture {
    function setUp() public override {
        super.setUp();
        join(payee, NODE_KEY, 150e6);
        vm.prank(payee);
        nodes.unbond(30e6);
    }

    function test_TakesUnbondingMoneyFirstAndSaysSo() public {
        vm.expectEmit(address(nodes));
        emit INodeRegistry.NodeSlashed(payee, 20e6, 120e6, 10e6, 1);
        vm.assertEq(_slash(20e6), 20e6, "taken");
        vm.expectEmit(address(nodes));
        emit INodeRegistry.NodeSlashed(payee, 15e6, 115e6, 0, 2);
        vm.assertEq(_slash(15e6), 15e6, "taken");

        vm.assertEq(token.balanceOf(arbiter), 35e6, "arbiter's balance");
        vm.assertEq(token.balanceOf(address(nodes)), 115e6, "balance");
        vm.assertEq(nodes.nodeOf(payee).verdicts, 2, "verdicts");
        vm.assertTrue(nodes.isActive(payee), "still active");
    }

    function test_TakesTheNodeOffTheList() public {
        _slash(30e6 + 20e6 + 1);

        vm.assertFalse(nodes.isActive(payee), "below the minimum");
        vm.assertEq(nodes.nodeCount(), 0, "off the list");
    }

    function test_TakesAtMostAll() public {
        vm.assertEq(_slash(type(uint96).max), 150e6, "taken");

        INodeRegistry.Node memory node = nodes.nodeOf(payee);
        vm.assertEq(node.stake + node.unbonding, 0, "nothing left");
        vm.assertEq(node.verdicts, 1, "verdicts");
    }

    function testFuzz_TakesExactlyTheAmountOrAll(uint96 amount) public {
        amount = uint96(bound(amount, 1, type(uint96).max));
        uint96 expected = amount < 150e6 ? amount : 150e6;

        vm.assertEq(_slash(amount), expected, "taken");

        INodeRegistry.Node memory node = nodes.nodeOf(payee);
        vm.assertEq(node.stake + node.unbonding, 150e6 - expected, "left");
        vm.assertEq(node.unbonding, expected < 30e6 ? 30e6 - expected : 0, "unbonding first");
        vm.assertEq(token.balanceOf(arbiter), expected, "arbiter's balance");
        vm.assertEq(token.balanceOf(address(nodes)), 150e6 - expected, "balance");
    }

    function test_RevertWhen_CallerNotArbiter() public {
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_CallerNotArbiter.selector, stranger)
        );
        vm.prank(stranger);
        nodes.slash(payee, 1);
    }

    function test_RevertGiven_UnknownNode() public {
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_UnknownNode.selector, stranger)
        );
        vm.prank(arbiter);
        nodes.slash(stranger, 1);
    }

    function test_GivenNothingAtStake_CountsTheVerdictAlone() public {
        uint96 all = _slash(type(uint96).max);
        uint256 before = token.balanceOf(arbiter);

        vm.expectEmit(address(nodes));
        emit INodeRegistry.NodeSlashed(payee, 0, 0, 0, 2);
        uint96 taken = _slash(1);

        vm.assertTrue(all != 0, "there was something");
        vm.assertEq(taken, 0, "taken");
        vm.assertEq(token.balanceOf(arbiter), before, "no money moves");
        vm.assertEq(nodes.nodeOf(payee).verdicts, 2, "verdicts");
    }

    function test_RevertWhen_AmountZero() public {
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_AmountZero.selector));
        _slash(0);
    }

    function _slash(uint96 amount) private returns (uint96) {
        vm.prank(arbiter);
        return nodes.slash(payee, amount);
    }
}
