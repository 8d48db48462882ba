// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../Fixture.sol";

contract NodeRegistryJailTest is Fixture {
    function setUp() public override {
        super.setUp();
        join(payee, NODE_KEY, MIN_STAKE);
    }

    function test_MakesInactiveUntilThen() public {
        vm.expectEmit(address(nodes));
        emit INodeRegistry.NodeJailed(payee, uint64(START + 5));
        _jail(payee, uint64(START + 5));

        vm.assertFalse(nodes.isActive(payee), "jailed");
        vm.assertEq(nodes.nodeOf(payee).jailedUntil, START + 5, "jailedUntil");
        (, uint64 until) = nodes.bondOf(payee);
        vm.assertEq(until, START + 5, "until");
        vm.assertEq(nodes.nodeCount(), 1, "it stays listed");
        vm.warp(START + 5);
        vm.assertTrue(nodes.isActive(payee), "free again");
    }

    function testFuzz_LastsAtMostTheUnbondingDelay(uint64 until) public {
        uint64 latest = uint64(START) + UNBONDING;
        if (until > latest) _expectTooLong(until);
        _jail(payee, until);

        uint64 kept = until > latest ? 0 : until;
        vm.assertEq(nodes.nodeOf(payee).jailedUntil, kept, "jailedUntil");
        vm.assertEq(nodes.isActive(payee), kept <= START, "active");
    }

    function test_FreesWithATimeInThePast() public {
        _jail(payee, uint64(START + 5));

        vm.expectEmit(address(nodes));
        emit INodeRegistry.NodeJailed(payee, 0);
        _jail(payee, 0);

        vm.assertTrue(nodes.isActive(payee), "free");
    }

    function test_RevertWhen_CallerNotArbiter() public {
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_CallerNotArbiter.selector, payee)
        );
        vm.prank(payee);
        nodes.jail(payee, 0);
    }

    function test_RevertGiven_UnknownNode() public {
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_UnknownNode.selector, stranger)
        );
        _jail(stranger, 1);
    }

    function test_RevertWhen_TooLong() public {
        uint64 until = uint64(START + UNBONDING + 1);

        _expectTooLong(until);
        _jail(payee, until);
        _jail(payee, until - 1);
        vm.assertEq(nodes.nodeOf(payee).jailedUntil, until - 1, "the latest");
    }

    function _jail(address owner, uint64 until) private {
        vm.prank(arbiter);
        nodes.jail(owner, until);
    }

    function _expectTooLong(uint64 until) private {
        vm.expectRevert(
            abi.encodeWithSelector(
                INodeRegistry.NodeRegistry_JailTooLong.selector, until, START + UNBONDING
            )
        );
    }
}
