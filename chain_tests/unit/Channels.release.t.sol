// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsReleaseTest is Fixture {
    function setUp() public override {
        super.setUp();
        open(500e6);
    }

    function test_PaysWhatIsMatureAndSaysSo() public {
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
        vm.assertEq(token.balanceOf(stranger), 0, "the caller's balance");
        (uint96 maturing, uint96 mature) = channels.pendingOf(payee);
        vm.assertEq(maturing, 990_000, "maturing");
        vm.assertEq(mature, 0, "mature");
        IChannels.Account memory account = channels.accountOf(payee);
        vm.assertEq(account.released, 9_900_000, "released");
        vm.assertEq(account.releasedNow, 9_900_000, "releasedNow");
        vm.assertEq(account.releaseEpoch, channels.epochNow(), "releaseEpoch");
    }

    function testFuzz_PaysWhatIsMatureUpToHalfOfTheStake(uint96 stake, uint96 earned) public {
        stake = uint96(bound(stake, 2, RICH));
        earned = uint96(bound(earned, 1, 500e6));
        join(payee, NODE_KEY, stake);
        claim(earned);
        _mature();
        uint96 net = earned - feeUp(earned);
        uint96 paid = net < stake / 2 ? net : stake / 2;
        if (net == 0) return;

        vm.assertEq(channels.release(payee), paid, "amount");

        vm.assertEq(token.balanceOf(payee), RICH - stake + paid, "payee's balance");
        _expectNothing(net - paid, stake / 2 - paid);
        channels.release(payee);
    }

    function test_PaysHalfOfTheStakePerEpoch() public {
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

    function test_SharesTheAllowanceOfAnEpoch() public {
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

    function test_AllowsNothingMoreWhenTheStakeFell() public {
        join(payee, NODE_KEY, MIN_STAKE);
        claim(100e6);
        _mature();
        channels.release(payee);
        vm.prank(payee);
        nodes.unbond(MIN_STAKE / 2);

        _expectNothing(49e6, 0);
        channels.release(payee);
        nextEpoch();
        vm.assertEq(channels.release(payee), MIN_STAKE / 4, "half of what is left");
    }

    function test_PaysOnceTheJailIsOver() public {
        join(payee, NODE_KEY, MIN_STAKE);
        claim(10e6);
        _mature();
        uint64 until = uint64(block.timestamp + 1);
        vm.prank(arbiter);
        nodes.jail(payee, until);
        vm.warp(until);

        vm.assertEq(channels.release(payee), 9_900_000, "amount");
    }

    function test_RevertGiven_NothingMature() public {
        join(payee, NODE_KEY, MIN_STAKE);
        claim(10e6);
        nextEpoch();

        _expectNothing(0, MIN_STAKE / 2);
        channels.release(payee);
    }

    function test_RevertGiven_NothingEarned() public {
        _expectNothing(0, 0);
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
