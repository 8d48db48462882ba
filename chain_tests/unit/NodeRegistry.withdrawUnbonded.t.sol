// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../Fixture.sol";

contract NodeRegistryWithdrawUnbondedTest is Fixture {
    function setUp() public override {
        super.setUp();
        join(payee, NODE_KEY, 150e6);
    }

    function test_PaysAndSaysSo() public {
        _unbond(50e6);
        vm.warp(START + UNBONDING);

        vm.expectEmit(address(nodes));
        emit INodeRegistry.StakeWithdrawn(payee, 50e6);
        _withdraw(payee);

        vm.assertEq(token.balanceOf(payee), RICH - 100e6, "payee's balance");
        vm.assertEq(token.balanceOf(address(nodes)), 100e6, "balance");
        vm.assertEq(nodes.nodeOf(payee).unbonding, 0, "unbonding");
        vm.assertEq(nodes.nodeOf(payee).unbondedAt, 0, "unbondedAt");
    }

    function testFuzz_PaysWhatWasUnbondedAndNotSlashed(uint96 amount, uint96 slashed) public {
        amount = uint96(bound(amount, 1, 150e6));
        slashed = uint96(bound(slashed, 0, amount - 1));
        _unbond(amount);
        if (slashed != 0) {
            vm.prank(arbiter);
            nodes.slash(payee, slashed);
        }
        vm.warp(START + UNBONDING);

        _withdraw(payee);

        vm.assertEq(token.balanceOf(payee), RICH - 150e6 + amount - slashed, "payee's balance");
        vm.assertEq(nodes.nodeOf(payee).stake, 150e6 - amount, "stake");
    }

    function test_PaysOnceTheJailIsOver() public {
        _unbond(50e6);
        vm.warp(START + UNBONDING);
        vm.prank(arbiter);
        nodes.jail(payee, uint64(START + UNBONDING + 1));
        vm.warp(START + UNBONDING + 1);

        _withdraw(payee);

        vm.assertEq(token.balanceOf(payee), RICH - 100e6, "payee's balance");
    }

    function test_RevertGiven_NothingUnbonding() public {
        _expectNothing(payee);
        _withdraw(payee);
        _expectNothing(stranger);
        _withdraw(stranger);
        _unbond(50e6);
        vm.warp(START + UNBONDING);
        _withdraw(payee);
        _expectNothing(payee);
        _withdraw(payee);
    }

    function test_RevertGiven_NotDue() public {
        _unbond(50e6);
        vm.warp(START + UNBONDING - 1);

        vm.expectRevert(
            abi.encodeWithSelector(
                INodeRegistry.NodeRegistry_StillUnbonding.selector, payee, uint64(START + UNBONDING)
            )
        );
        _withdraw(payee);
    }

    function test_RevertGiven_Jailed() public {
        _unbond(50e6);
        vm.warp(START + UNBONDING);
        uint64 until = uint64(START + UNBONDING + 1);
        vm.prank(arbiter);
        nodes.jail(payee, until);

        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_Jailed.selector, payee, until)
        );
        _withdraw(payee);
    }

    function _unbond(uint96 amount) private {
        vm.prank(payee);
        nodes.unbond(amount);
    }

    function _withdraw(address from) private {
        vm.prank(from);
        nodes.withdrawUnbonded();
    }

    function _expectNothing(address owner) private {
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_NothingUnbonding.selector, owner)
        );
    }
}
