// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsReleaseTest is Fixture {
    function setUp() public override {
        super.setUp();
        open(500e6);
    }

    function test_Release_PaysWhatIsMatureAndSaysSo() public {
        join(payee, NODE_KEY, MIN_STAKE);
        claim(10e6);
        nextEpoch();
        claim(11e6);
        nextEpoch();
        uint256 before = token.balanceOf(payee);

        vm.expectEmit(address(channels));
        emit IChannels.Released(payee, channels.epochNow(), 9_900_000, 9_900_000);
        vm.prank(stranger);
        uint96 amount = channels.release(payee);

        vm.assertEq(amount, 9_900_000, "amount");
        vm.assertEq(token.balanceOf(payee) - before, 9_900_000, "payee's balance");
        (uint96 maturing, uint96 mature) = channels.pendingOf(payee);
        vm.assertEq(maturing, 990_000, "maturing");
        vm.assertEq(mature, 0, "mature");
    }

    function test_Release_GivenLittleStake_PaysHalfOfItPerEpoch() public {
        join(payee, NODE_KEY, MIN_STAKE);
        claim(40e6);
        _mature();
        vm.assertEq(channels.release(payee), 39_600_000, "below half of the stake");
        claim(200e6);
        _mature();

        vm.assertEq(channels.release(payee), MIN_STAKE / 2, "half of the stake");
        _expectNothing(108_400_000, 0);
        channels.release(payee);
        nextEpoch();
        vm.assertEq(channels.release(payee), MIN_STAKE / 2, "half of the stake in the next epoch");
    }

    function test_Release_GivenTwoPartsInOneEpoch_SharesTheAllowance() public {
        join(payee, NODE_KEY, MIN_STAKE);
        claim(40e6);
        nextEpoch();
        claim(100e6);
        nextEpoch();
        vm.assertEq(channels.release(payee), 39_600_000, "first part");

        // More stake raises the allowance at once, by half of what was added.
        vm.prank(payee);
        nodes.stake(2e6);
        _expectNothing(0, 51e6 - 39_600_000);
        channels.release(payee);
    }

    function test_RevertGiven_NothingMature() public {
        join(payee, NODE_KEY, MIN_STAKE);
        claim(10e6);
        nextEpoch();

        _expectNothing(0, MIN_STAKE / 2);
        channels.release(payee);
    }

    function test_RevertGiven_NoStake() public {
        join(payee, NODE_KEY, 0);
        claim(10e6);
        _mature();

        _expectNothing(9_900_000, 0);
        channels.release(payee);
    }

    function test_RevertGiven_AllUnbonding() public {
        join(payee, NODE_KEY, MIN_STAKE);
        claim(10e6);
        _mature();
        vm.prank(payee);
        nodes.unbond(MIN_STAKE);

        _expectNothing(9_900_000, 0);
        channels.release(payee);
    }

    function test_RevertGiven_Jailed() public {
        join(payee, NODE_KEY, MIN_STAKE);
        claim(10e6);
        _mature();
        uint64 until = uint64(block.timestamp + 1);
        vm.prank(arbiter);
        nodes.jail(payee, until);

        vm.expectRevert(
            abi.encodeWithSelector(IChannels.Channels_PayeeJailed.selector, payee, until)
        );
        channels.release(payee);
        vm.warp(until);
        vm.assertEq(channels.release(payee), 9_900_000, "once the jail is over");
    }

    function test_Burn_SendsTheFeesAndSaysSo() public {
        claim(10e6);
        claim(20e6);

        vm.expectEmit(address(channels));
        emit IChannels.FeeBurned(payee, 200_000, 200_000);
        channels.burn(payee);

        vm.assertEq(token.balanceOf(BURN), 200_000, "burned");
        vm.expectRevert(abi.encodeWithSelector(IChannels.Channels_NothingToBurn.selector, payee));
        channels.burn(payee);
    }

    function test_Forfeit_TakesAllThatWasNotPaid() public {
        join(payee, NODE_KEY, MIN_STAKE);
        claim(20e6);
        _mature();
        claim(100e6);
        channels.release(payee);
        nextEpoch();
        claim(110e6);

        vm.expectEmit(address(channels));
        emit IChannels.Forfeited(payee, 89_100_000, 89_100_000);
        vm.prank(arbiter);
        channels.forfeit(payee);

        vm.assertEq(token.balanceOf(arbiter), 89_100_000, "arbiter's balance");
        (uint96 maturing, uint96 mature) = channels.pendingOf(payee);
        vm.assertEq(maturing + mature, 0, "pending");
        vm.assertEq(slot().claimed, 110e6, "claimed stays");
        claim(120e6);
        (maturing,) = channels.pendingOf(payee);
        vm.assertEq(maturing, 9_900_000, "later work counts again");
    }

    function test_Forfeit_RevertWhen_CallerNotArbiter() public {
        claim(10e6);

        vm.expectRevert(
            abi.encodeWithSelector(IChannels.Channels_CallerNotArbiter.selector, stranger)
        );
        vm.prank(stranger);
        channels.forfeit(payee);
    }

    function test_Forfeit_RevertGiven_NothingPending() public {
        vm.expectRevert(abi.encodeWithSelector(IChannels.Channels_NothingPending.selector, payee));
        vm.prank(arbiter);
        channels.forfeit(payee);
    }

    function test_Credit_RevertWhen_CallerNotRequests() public {
        vm.expectRevert(
            abi.encodeWithSelector(IChannels.Channels_CallerNotRequests.selector, stranger)
        );
        vm.prank(stranger);
        channels.credit(payee, 1);
    }

    function _mature() private {
        nextEpoch();
        nextEpoch();
    }

    function _expectNothing(uint96 mature, uint96 allowance) private {
        vm.expectRevert(
            abi.encodeWithSelector(
                IChannels.Channels_NothingToRelease.selector, payee, mature, allowance
            )
        );
    }
}
