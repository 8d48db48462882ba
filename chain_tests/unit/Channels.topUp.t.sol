// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsTopUpTest is Fixture {
    function test_TopUp_AddsToTheDepositAndSaysSo() public {
        open(5e6);

        vm.expectEmit(address(channels));
        emit IChannels.ChannelToppedUp(idOf(payer, signer), payer, 2e6, 7e6);
        _topUp(payer, 2e6);

        vm.assertEq(slot().deposit, 7e6, "deposit");
        vm.assertEq(token.balanceOf(address(channels)), 7e6, "balance");
    }

    function test_TopUp_GivenWithdrawn_GoesOnFromWhatWasClaimed() public {
        open(5e6);
        claim(3e6);
        vm.prank(payer);
        channels.exit(payee, signer);
        vm.warp(START + EXIT_DELAY);
        vm.prank(payer);
        channels.withdraw(payee, signer);

        _topUp(payer, 1e6);
        channels.claim(payee, row(3e6));
        claim(4e6);

        vm.assertEq(slot().claimed, 4e6, "claimed");
        vm.assertEq(slot().deposit, 4e6, "deposit");
    }

    function test_RevertWhen_AmountZero() public {
        open(5e6);

        vm.expectRevert(abi.encodeWithSelector(IChannels.Channels_AmountZero.selector));
        _topUp(payer, 0);
    }

    function test_RevertGiven_Unknown() public {
        vm.expectRevert(err(IChannels.Channels_UnknownChannel.selector, idOf(payer, signer)));
        _topUp(payer, 1);
    }

    function test_RevertWhen_CallerNotPayer() public {
        open(5e6);

        vm.expectRevert(err(IChannels.Channels_UnknownChannel.selector, idOf(stranger, signer)));
        _topUp(stranger, 1);
    }

    function test_RevertGiven_Exiting() public {
        open(5e6);
        vm.prank(payer);
        channels.exit(payee, signer);

        vm.expectRevert(
            abi.encodeWithSelector(
                IChannels.Channels_Exiting.selector, idOf(payer, signer), uint32(START + EXIT_DELAY)
            )
        );
        _topUp(payer, 1);
    }

    function _topUp(address from, uint96 amount) private {
        vm.prank(from);
        channels.topUp(payee, signer, amount);
    }
}
