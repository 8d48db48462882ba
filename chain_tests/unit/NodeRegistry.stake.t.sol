// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../Fixture.sol";

contract NodeRegistryStakeTest is Fixture {
    function setUp() public override {
        super.setUp();
        join(payee, NODE_KEY, 0);
    }

    function test_Stake_TakesTheMoneyAndSaysSo() public {
        vm.expectEmit(address(nodes));
        emit INodeRegistry.Staked(payee, 60e6, 60e6);
        _stake(60e6);

        vm.assertEq(token.balanceOf(address(nodes)), 60e6, "balance");
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

    function test_Stake_RevertWhen_Zero() public {
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_AmountZero.selector));
        _stake(0);
    }

    function test_Serves_AsksForAllRolesAndActivity() public {
        vm.assertFalse(nodes.serves(payee, 1), "not active");
        _stake(MIN_STAKE);
        vm.assertTrue(nodes.serves(payee, 1), "one role");
        vm.assertTrue(nodes.serves(payee, 7), "all its roles");
        vm.assertFalse(nodes.serves(payee, 8), "a role it lacks");
        vm.assertFalse(nodes.serves(payee, 9), "one of two");
        vm.assertFalse(nodes.serves(address(0), 1), "nobody");
    }

    function test_Unbond_MovesTheMoneyAndSaysSo() public {
        _stake(150e6);

        vm.expectEmit(address(nodes));
        emit INodeRegistry.Unbonded(payee, 50e6, 100e6, 50e6, uint64(START + UNBONDING));
        _unbond(50e6);
        vm.assertTrue(nodes.isActive(payee), "at the minimum");
        vm.warp(START + 10);
        vm.expectEmit(address(nodes));
        emit INodeRegistry.Unbonded(payee, 1, 100e6 - 1, 50e6 + 1, uint64(START + 10 + UNBONDING));
        _unbond(1);

        vm.assertFalse(nodes.isActive(payee), "below the minimum");
        vm.assertEq(nodes.nodeCount(), 0, "off the list");
        vm.assertEq(token.balanceOf(address(nodes)), 150e6, "nothing left yet");
    }

    function test_Unbond_RevertWhen_Zero() public {
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_AmountZero.selector));
        _unbond(0);
    }

    function test_Unbond_RevertWhen_AboveStake() public {
        _stake(5);

        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_StakeTooSmall.selector, payee, 5, 6)
        );
        _unbond(6);
    }

    function test_WithdrawUnbonded_PaysAndSaysSo() public {
        _stake(150e6);
        _unbond(50e6);
        vm.warp(START + UNBONDING);

        vm.expectEmit(address(nodes));
        emit INodeRegistry.StakeWithdrawn(payee, 50e6);
        _withdraw();

        vm.assertEq(token.balanceOf(payee), RICH - 100e6, "payee's balance");
        vm.assertEq(nodes.nodeOf(payee).unbonding, 0, "unbonding");
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_NothingUnbonding.selector, payee)
        );
        _withdraw();
    }

    function test_WithdrawUnbonded_RevertGiven_NotDue() public {
        _stake(150e6);
        _unbond(50e6);
        vm.warp(START + UNBONDING - 1);

        vm.expectRevert(
            abi.encodeWithSelector(
                INodeRegistry.NodeRegistry_StillUnbonding.selector, payee, uint64(START + UNBONDING)
            )
        );
        _withdraw();
    }

    function test_WithdrawUnbonded_RevertGiven_Jailed() public {
        _stake(150e6);
        _unbond(50e6);
        uint64 until = uint64(START + UNBONDING + 1);
        vm.prank(arbiter);
        nodes.jail(payee, until);
        vm.warp(until - 1);

        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_Jailed.selector, payee, until)
        );
        _withdraw();
    }

    function test_Jail_MakesInactiveUntilThen() public {
        _stake(MIN_STAKE);

        vm.expectEmit(address(nodes));
        emit INodeRegistry.NodeJailed(payee, uint64(START + 5));
        vm.prank(arbiter);
        nodes.jail(payee, uint64(START + 5));

        vm.assertFalse(nodes.isActive(payee), "jailed");
        (, uint64 until) = nodes.bondOf(payee);
        vm.assertEq(until, START + 5, "until");
        vm.warp(START + 5);
        vm.assertTrue(nodes.isActive(payee), "free again");
    }

    function test_Jail_RevertWhen_CallerNotArbiter() public {
        vm.expectRevert(_notArbiter(payee));
        vm.prank(payee);
        nodes.jail(payee, 0);
    }

    function test_Jail_RevertGiven_UnknownNode() public {
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_UnknownNode.selector, stranger)
        );
        vm.prank(arbiter);
        nodes.jail(stranger, 1);
    }

    function test_Slash_TakesUnbondingFirst() public {
        _stake(150e6);
        _unbond(30e6);

        vm.expectEmit(address(nodes));
        emit INodeRegistry.NodeSlashed(payee, 60e6, 90e6, 0);
        vm.prank(arbiter);
        vm.assertEq(nodes.slash(payee, 60e6), 60e6, "taken");

        vm.assertEq(token.balanceOf(arbiter), 60e6, "arbiter's balance");
        vm.assertEq(nodes.nodeCount(), 0, "off the list");
    }

    function test_Slash_TakesAtMostAll() public {
        _stake(150e6);
        _unbond(30e6);

        vm.prank(arbiter);
        vm.assertEq(nodes.slash(payee, type(uint96).max), 150e6, "taken");

        INodeRegistry.Node memory node = nodes.nodeOf(payee);
        vm.assertEq(node.stake + node.unbonding, 0, "nothing left");
    }

    function test_Slash_RevertWhen_CallerNotArbiter() public {
        vm.expectRevert(_notArbiter(stranger));
        vm.prank(stranger);
        nodes.slash(payee, 1);
    }

    function test_Slash_RevertGiven_Nothing() public {
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_AmountZero.selector));
        vm.prank(arbiter);
        nodes.slash(payee, 1);
    }

    function test_Nodes_PagesTheListedOnes() public {
        address[3] memory owners = [payee, address(0xA1), address(0xA2)];
        _stake(MIN_STAKE);
        for (uint256 i = 1; i < 3; ++i) {
            fund(owners[i]);
            join(owners[i], 0xF000 + i, MIN_STAKE);
        }

        vm.assertEq(nodes.nodes(0, 10).length, 3, "all");
        INodeRegistry.Node[] memory page = nodes.nodes(1, 1);
        vm.assertEq(page.length, 1, "one");
        vm.assertEq(page[0].owner, owners[1], "the second");
        vm.assertTrue(page[0].active, "active");
        vm.assertEq(nodes.nodes(3, 5).length, 0, "past the end");
        vm.assertEq(nodes.nodes(type(uint256).max, type(uint256).max).length, 0, "far past");
    }

    function _stake(uint96 amount) private {
        vm.prank(payee);
        nodes.stake(amount);
    }

    function _unbond(uint96 amount) private {
        vm.prank(payee);
        nodes.unbond(amount);
    }

    function _withdraw() private {
        vm.prank(payee);
        nodes.withdrawUnbonded();
    }

    function _notArbiter(address who) private pure returns (bytes memory) {
        return abi.encodeWithSelector(INodeRegistry.NodeRegistry_CallerNotArbiter.selector, who);
    }
}
