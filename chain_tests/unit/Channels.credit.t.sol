// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsCreditTest is Fixture {
    function test_AddsToPendingMoneyAndSaysSo() public {
        uint32 epoch = uint32(START / EPOCH);
        token.mint(address(channels), 1_000_002);
        vm.startPrank(address(requests));

        vm.expectEmit(address(channels));
        emit IChannels.Accrued(payee, epoch, 1_000_001, 10_001, 1);
        channels.credit(payee, 1_000_001);
        vm.expectEmit(address(channels));
        emit IChannels.Accrued(payee, epoch, 1_000_002, 10_002, 2);
        channels.credit(payee, 1);

        IChannels.Account memory account = channels.accountOf(payee);
        vm.assertEq(account.current, 990_000, "current");
        vm.assertEq(account.epoch, epoch, "epoch");
        (uint96 maturing, uint96 mature) = channels.pendingOf(payee);
        vm.assertEq(maturing, 990_000, "maturing");
        vm.assertEq(mature, 0, "mature");
    }

    function testFuzz_SplitsOffTheFeeRoundedUp(uint96 amount, uint96 more, uint8 epochs) public {
        amount = uint96(bound(amount, 1, RICH));
        more = uint96(bound(more, 1, RICH));
        _credit(amount);
        vm.warp(START + uint256(epochs % 4) * EPOCH);
        _credit(more);

        IChannels.Account memory account = channels.accountOf(payee);
        vm.assertEq(account.earned, amount + more, "earned");
        vm.assertEq(account.fee, feeUp(amount) + feeUp(more), "fee");
        (uint96 maturing, uint96 mature) = channels.pendingOf(payee);
        vm.assertEq(maturing + mature, account.earned - account.fee, "nothing is lost");
        vm.assertEq(mature, epochs % 4 < 2 ? 0 : amount - feeUp(amount), "mature");
    }

    function test_RevertWhen_CallerNotRequests() public {
        vm.expectRevert(
            abi.encodeWithSelector(IChannels.Channels_CallerNotRequests.selector, stranger)
        );
        vm.prank(stranger);
        channels.credit(payee, 1);
    }

    function test_RevertWhen_AmountZero() public {
        vm.expectRevert(abi.encodeWithSelector(IChannels.Channels_AmountZero.selector));
        vm.prank(address(requests));
        channels.credit(payee, 0);
    }

    function _credit(uint96 amount) private {
        token.mint(address(channels), amount);
        vm.prank(address(requests));
        channels.credit(payee, amount);
    }
}
