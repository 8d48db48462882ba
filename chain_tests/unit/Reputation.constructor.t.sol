// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IReputation} from "../../contracts/interfaces/IReputation.sol";
import {Fixture} from "../Fixture.sol";

contract ReputationConstructorTest is Fixture {
    function test_KeepsItsParameters() public view {
        vm.assertEq(reputation.channels(), address(channels), "channels");
        vm.assertEq(reputation.tierUnit(), TIER_UNIT, "tierUnit");
    }

    function test_RevertWhen_AddressZero() public {
        vm.expectRevert(abi.encodeWithSelector(IReputation.Reputation_AddressZero.selector));
        vm.deployCode("Reputation.sol:Reputation", abi.encode(0, TIER_UNIT));
    }

    function test_RevertWhen_TierUnitZero() public {
        vm.expectRevert(abi.encodeWithSelector(IReputation.Reputation_TierUnitZero.selector));
        vm.deployCode("Reputation.sol:Reputation", abi.encode(channels, 0));
    }
}
