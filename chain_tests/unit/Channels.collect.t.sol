// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsCollectTest is Fixture {
    function setUp() public override {
        super.setUp();
        join(payee, NODE_KEY, MIN_STAKE);
        open(5e6);
        claim(1e6);
        nextEpoch();
        nextEpoch();
    }

    function test_ClaimsAndPaysWhatIsMature() public {
        uint256 before = token.balanceOf(payee);

        vm.expectEmit(address(channels));
        emit IChannels.Released(payee, channels.epochNow(), 990_000, 990_000);
        vm.prank(stranger);
        (uint96 earned, uint96 paid) = channels.collect(payee, row(2e6));

        vm.assertEq(earned, 1e6, "earned");
        vm.assertEq(paid, 990_000, "what was mature");
        vm.assertEq(slot().claimed, 2e6, "claimed");
        vm.assertEq(token.balanceOf(payee) - before, 990_000, "it left");
    }

    /// @dev Whoever releases first, to make the claim fail, only pays for the release.
    function test_GivenReleasedAlready_ClaimsAll() public {
        vm.prank(stranger);
        channels.release(payee);

        (uint96 earned, uint96 paid) = channels.collect(payee, row(2e6));

        vm.assertEq(earned, 1e6, "earned");
        vm.assertEq(paid, 0, "nothing is mature");
        vm.assertEq(slot().claimed, 2e6, "claimed");
    }

    function test_GivenJailed_ClaimsAll() public {
        vm.prank(arbiter);
        nodes.jail(payee, uint64(block.timestamp + 1));

        (uint96 earned, uint96 paid) = channels.collect(payee, row(2e6));

        vm.assertEq(earned, 1e6, "earned");
        vm.assertEq(paid, 0, "nothing leaves");
    }

    function test_WhenAllRowsAreBad_StillPays() public {
        (uint96 earned, uint96 paid) = channels.collect(payee, row(1e6));

        vm.assertEq(earned, 0, "earned");
        vm.assertEq(paid, 990_000, "paid");
    }

    function testFuzz_PaysAtMostHalfOfTheStake(uint96 amount) public {
        amount = uint96(bound(amount, 2e6, 400e6));
        vm.prank(payer);
        channels.topUp(payee, signer, 400e6);
        claim(amount);
        nextEpoch();
        nextEpoch();

        (, uint96 mature) = channels.pendingOf(payee);
        (, uint96 paid) = channels.collect(payee, row(1));

        vm.assertEq(paid, mature < MIN_STAKE / 2 ? mature : MIN_STAKE / 2, "paid");
    }

    function test_RevertWhen_NoRows() public {
        vm.expectRevert(abi.encodeWithSelector(IChannels.Channels_BadRows.selector, 0, 256));
        channels.collect(payee, "");
    }
}
