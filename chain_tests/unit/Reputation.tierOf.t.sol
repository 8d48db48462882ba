// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {Fixture} from "../Fixture.sol";

contract ReputationTierOfTest is Fixture {
    function setUp() public override {
        super.setUp();
        open(1e15);
    }

    function test_GrowsByOneWithEachDoubling() public {
        join(payee, NODE_KEY, MIN_STAKE);
        _assertTier(99_900, 0);
        _assertTier(100_000, 1);
        _assertTier(199_900, 1);
        _assertTier(200_000, 2);
        _assertTier(1e15, 15);
    }

    function testFuzz_IsTheNumberOfDoublings(uint96 earned) public {
        earned = uint96(bound(earned, 1, 1e15));
        join(payee, NODE_KEY, MIN_STAKE);
        claim(earned);

        uint8 tier = 0;
        for (uint256 units = feeUp(earned) / TIER_UNIT; units != 0 && tier < 15; units /= 2) {
            ++tier;
        }
        vm.assertEq(reputation.tierOf(payee), tier, "tier");
    }

    function test_IsZeroWithoutStake() public {
        claim(10e6);
        vm.assertEq(reputation.tierOf(payee), 0, "no node");
        join(payee, NODE_KEY, MIN_STAKE);
        vm.assertEq(reputation.tierOf(payee), 7, "active");
        vm.prank(payee);
        nodes.unbond(1);
        vm.assertEq(reputation.tierOf(payee), 0, "below the minimum stake");
    }

    function test_IsZeroWhileJailed() public {
        claim(10e6);
        join(payee, NODE_KEY, MIN_STAKE);
        vm.prank(arbiter);
        nodes.jail(payee, uint64(START + 1));

        vm.assertEq(reputation.tierOf(payee), 0, "jailed");
        vm.warp(START + 1);
        vm.assertEq(reputation.tierOf(payee), 7, "free");
    }

    function _assertTier(uint96 earned, uint8 tier) private {
        claim(earned);
        vm.assertEq(reputation.tierOf(payee), tier, vm.toString(earned));
    }
}
