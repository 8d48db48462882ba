// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../Fixture.sol";

contract NodeRegistryUnbondTest is Fixture {
    function setUp() public override {
        super.setUp();
        join(payee, NODE_KEY, 150e6);
    }

    function test_MovesTheMoneyAndSaysSo() public {
        vm.expectEmit(address(nodes));
        emit INodeRegistry.Unbonded(payee, 50e6, 100e6, 50e6, uint64(START + UNBONDING));
        _unbond(50e6);

        INodeRegistry.Node memory node = nodes.nodeOf(payee);
        vm.assertEq(node.stake, 100e6, "stake");
        vm.assertEq(node.unbonding, 50e6, "unbonding");
        vm.assertEq(node.unbondedAt, START + UNBONDING, "unbondedAt");
        vm.assertTrue(node.active, "at the minimum");
        vm.assertEq(token.balanceOf(address(nodes)), 150e6, "nothing left yet");
    }

    function test_StartsTheDelayOfAllAnew() public {
        _unbond(50e6);
        vm.warp(START + 10);

        vm.expectEmit(address(nodes));
        emit INodeRegistry.Unbonded(payee, 1, 100e6 - 1, 50e6 + 1, uint64(START + 10 + UNBONDING));
        _unbond(1);

        vm.assertEq(nodes.nodeOf(payee).unbondedAt, START + 10 + UNBONDING, "unbondedAt");
    }

    function test_TakesTheNodeOffTheList() public {
        _unbond(50e6 + 1);

        vm.assertFalse(nodes.isActive(payee), "below the minimum");
        vm.assertEq(nodes.nodeCount(), 0, "off the list");
    }

    function testFuzz_MovesAnyPart(uint96 amount) public {
        amount = uint96(bound(amount, 1, 150e6));

        _unbond(amount);

        INodeRegistry.Node memory node = nodes.nodeOf(payee);
        vm.assertEq(node.stake, 150e6 - amount, "stake");
        vm.assertEq(node.unbonding, amount, "unbonding");
        vm.assertEq(node.active, amount <= 50e6, "active");
        vm.assertEq(nodes.nodeCount(), amount <= 50e6 ? 1 : 0, "listed");
    }

    function test_RevertWhen_AmountZero() public {
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_AmountZero.selector));
        _unbond(0);
    }

    function test_RevertWhen_AboveTheStake() public {
        _expectTooSmall(payee, 150e6, 150e6 + 1);
        _unbond(150e6 + 1);
    }

    function test_RevertWhen_CallerIsNoNode() public {
        _expectTooSmall(stranger, 0, 1);
        vm.prank(stranger);
        nodes.unbond(1);
    }

    function _unbond(uint96 amount) private {
        vm.prank(payee);
        nodes.unbond(amount);
    }

    function _expectTooSmall(address owner, uint96 stake, uint96 amount) private {
        vm.expectRevert(
            abi.encodeWithSelector(
                INodeRegistry.NodeRegistry_StakeTooSmall.selector, owner, stake, amount
            )
        );
    }
}
