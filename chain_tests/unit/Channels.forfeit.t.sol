// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsForfeitTest is Fixture {
    function setUp() public override {
        super.setUp();
        open(500e6);
        join(payee, NODE_KEY, MIN_STAKE);
    }

    function test_TakesAllThatWasNotPaid() public {
        claim(20e6);
        nextEpoch();
        nextEpoch();
        claim(100e6);
        channels.release(payee);
        nextEpoch();
        claim(110e6);

        vm.expectEmit(address(channels));
        emit IChannels.Forfeited(payee, 89_100_000, 89_100_000);
        uint96 amount = _forfeit();

        vm.assertEq(amount, 89_100_000, "amount");
        vm.assertEq(token.balanceOf(arbiter), 89_100_000, "arbiter's balance");
        (uint96 maturing, uint96 mature) = channels.pendingOf(payee);
        vm.assertEq(maturing + mature, 0, "pending");
        vm.assertEq(slot().claimed, 110e6, "claimed stays");
    }

    function test_LetsLaterWorkCountAgain() public {
        claim(110e6);
        _forfeit();

        claim(120e6);

        (uint96 maturing, uint96 mature) = channels.pendingOf(payee);
        vm.assertEq(maturing, 9_900_000, "maturing");
        vm.assertEq(mature, 0, "mature");
        vm.expectEmit(address(channels));
        emit IChannels.Forfeited(payee, 9_900_000, 118_800_000);
        _forfeit();
    }

    function testFuzz_LeavesNothingPending(uint96[2] memory totals, uint8[2] memory epochs) public {
        uint96 first = uint96(bound(totals[0], 101, 500e6 - 1));
        uint96 second = uint96(bound(totals[1], first + 1, 500e6));
        claim(first);
        vm.warp(block.timestamp + uint256(epochs[0] % 4) * EPOCH);
        claim(second);
        vm.warp(block.timestamp + uint256(epochs[1] % 4) * EPOCH);

        uint96 amount = _forfeit();

        IChannels.Account memory account = channels.accountOf(payee);
        vm.assertEq(amount, account.earned - account.fee, "all of it");
        (uint96 maturing, uint96 mature) = channels.pendingOf(payee);
        vm.assertEq(maturing + mature, 0, "pending");
        vm.assertEq(token.balanceOf(address(channels)), 500e6 - amount, "the rest stays");
    }

    function test_RevertWhen_CallerNotArbiter() public {
        claim(10e6);

        vm.expectRevert(
            abi.encodeWithSelector(IChannels.Channels_CallerNotArbiter.selector, stranger)
        );
        vm.prank(stranger);
        channels.forfeit(payee);
    }

    function test_RevertGiven_NothingPending() public {
        _expectNothing();
        _forfeit();
        claim(10e6);
        _forfeit();
        _expectNothing();
        _forfeit();
    }

    function _forfeit() private returns (uint96) {
        vm.prank(arbiter);
        return channels.forfeit(payee);
    }

    function _expectNothing() private {
        vm.expectRevert(abi.encodeWithSelector(IChannels.Channels_NothingPending.selector, payee));
    }
}
