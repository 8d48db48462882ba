// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsOpenTest is Fixture {
    function test_Open_TakesTheMoneyAndSaysSo() public {
        ChannelId id = idOf(payer, signer);

        vm.expectEmit(address(channels));
        emit IChannels.ChannelOpened(id, payer, payee, signer, 5e6, 5e6);
        ChannelId opened = open(5e6);

        vm.assertEq(ChannelId.unwrap(opened), ChannelId.unwrap(id), "id");
        vm.assertEq(token.balanceOf(address(channels)), 5e6, "balance");
        vm.assertEq(token.balanceOf(payer), RICH - 5e6, "payer's balance");
        IChannels.Channel memory kept = slot();
        vm.assertEq(kept.deposit, 5e6, "deposit");
        vm.assertEq(kept.claimed, 0, "claimed");
        vm.assertEq(kept.exitAt, 0, "exitAt");
        vm.assertEq(kept.jobs, 0, "jobs");
    }

    function test_Open_GivenSpent_AddsToWhatWasClaimed() public {
        open(5e6);
        claim(5e6);

        vm.expectEmit(address(channels));
        emit IChannels.ChannelOpened(idOf(payer, signer), payer, payee, signer, 2e6, 7e6);
        open(2e6);

        vm.assertEq(slot().deposit, 7e6, "deposit");
        vm.assertEq(slot().claimed, 5e6, "claimed");
        channels.claim(payee, row(5e6));
        vm.assertEq(slot().claimed, 5e6, "an old voucher stays stale");
    }

    function test_RevertWhen_PayeeZero() public {
        vm.expectRevert(
            abi.encodeWithSelector(IChannels.Channels_BadParty.selector, address(0), signer)
        );
        vm.prank(payer);
        channels.open(address(0), signer, 1);
    }

    function test_RevertWhen_SignerZero() public {
        vm.expectRevert(
            abi.encodeWithSelector(IChannels.Channels_BadParty.selector, payee, address(0))
        );
        vm.prank(payer);
        channels.open(payee, address(0), 1);
    }

    function test_RevertWhen_AmountZero() public {
        vm.expectRevert(abi.encodeWithSelector(IChannels.Channels_AmountZero.selector));
        open(0);
    }

    function test_RevertGiven_HoldsMoney() public {
        open(5e6);
        claim(1e6);

        vm.expectRevert(err(IChannels.Channels_AlreadyOpen.selector, idOf(payer, signer)));
        open(1);
    }

    function test_RevertGiven_Exiting() public {
        open(5e6);
        vm.prank(payer);
        channels.exit(payee, signer);
        claim(5e6);

        vm.expectRevert(
            abi.encodeWithSelector(
                IChannels.Channels_Exiting.selector, idOf(payer, signer), uint32(START + EXIT_DELAY)
            )
        );
        open(1);
    }

    function test_RevertWhen_DepositTooLarge() public {
        open(5e6);
        claim(5e6);

        vm.expectRevert(
            abi.encodeWithSelector(
                IChannels.Channels_DepositTooLarge.selector,
                idOf(payer, signer),
                5e6,
                type(uint96).max
            )
        );
        open(type(uint96).max);
    }

    function test_RevertWhen_TokenRefuses() public {
        vm.expectRevert();
        vm.prank(stranger);
        channels.open(payee, signer, 1);

        vm.assertEq(channels.channel(idOf(stranger, signer)).deposit, 0, "nothing opened");
    }
}
