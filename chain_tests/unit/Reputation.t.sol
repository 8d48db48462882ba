// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {Fixture} from "../Fixture.sol";

contract ReputationTest is Fixture {
    function setUp() public override {
        super.setUp();
        open(1e15);
    }

    function test_Score_IsTheFee() public {
        vm.assertEq(reputation.scoreOf(payee), 0, "nothing earned");
        claim(10e6);
        vm.assertEq(reputation.scoreOf(payee), 100_000, "one percent");
        vm.assertEq(reputation.scoreOf(stranger), 0, "somebody else");
    }

    function test_Score_GivenForfeited_Falls() public {
        join(payee, NODE_KEY, MIN_STAKE);
        claim(10e6);
        nextEpoch();
        nextEpoch();
        channels.release(payee);
        claim(40e6);
        vm.prank(arbiter);
        channels.forfeit(payee);

        vm.assertEq(reputation.scoreOf(payee), 100_000, "what was released counts");
    }

    function test_Score_GivenAllForfeited_IsZero() public {
        claim(10e6);
        vm.prank(arbiter);
        channels.forfeit(payee);

        vm.assertEq(reputation.scoreOf(payee), 0, "nothing counts");
    }

    function test_Tier_DoublesFromUnit() public {
        join(payee, NODE_KEY, MIN_STAKE);
        _assertTier(99_900, 0);
        _assertTier(100_000, 1);
        _assertTier(199_900, 1);
        _assertTier(200_000, 2);
        _assertTier(1e15, 15);
    }

    function test_Tier_GivenInactive_IsZero() public {
        claim(10e6);
        vm.assertEq(reputation.tierOf(payee), 0, "no node");
        join(payee, NODE_KEY, MIN_STAKE);
        vm.assertEq(reputation.tierOf(payee), 7, "active");
        vm.prank(payee);
        nodes.unbond(1);
        vm.assertEq(reputation.tierOf(payee), 0, "below the minimum stake");
    }

    function _assertTier(uint96 earned, uint8 tier) private {
        claim(earned);
        vm.assertEq(reputation.tierOf(payee), tier, vm.toString(earned));
    }
}
