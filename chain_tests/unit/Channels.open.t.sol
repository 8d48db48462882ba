// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Intake} from "../../contracts/libraries/Intake.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsOpenTest is Fixture {
    function test_TakesTheMoneyAndSaysSo() public {
        ChannelId id = idOf(payer, signer);

        vm.expectEmit(address(channels));
        emit IChannels.ChannelOpened(id, payer, payee, signer, 5e6, 5e6);
        ChannelId opened = open(5e6);

        vm.assertEq(ChannelId.unwrap(opened), ChannelId.unwrap(id), "id");
        vm.assertEq(
            ChannelId.unwrap(channels.channelId(payer, payee, signer)),
            ChannelId.unwrap(id),
            "channelId"
        );
        vm.assertEq(token.balanceOf(address(channels)), 5e6, "balance");
        vm.assertEq(token.balanceOf(payer), RICH - 5e6, "payer's balance");
        IChannels.Channel memory kept = slot();
        vm.assertEq(kept.deposit, 5e6, "deposit");
        vm.assertEq(kept.claimed, 0, "claimed");
        vm.assertEq(kept.exitAt, 0, "exitAt");
        vm.assertEq(kept.jobs, 0, "jobs");
    }

    function testFuzz_TakesAnyAmount(uint96 amount, uint96 again) public {
        amount = uint96(bound(amount, 1, RICH / 2));
        again = uint96(bound(again, 1, RICH / 2));

        open(amount);
        claim(amount);
        open(again);

        vm.assertEq(slot().deposit, amount + again, "deposit");
        vm.assertEq(slot().claimed, amount, "claimed");
        vm.assertEq(token.balanceOf(address(channels)), amount + again, "balance");
    }

    function test_AddsToWhatWasClaimed() public {
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

    function test_OldVouchersAboveWhatWasClaimedCount() public {
        open(5e6);
        claim(5e6);
        open(2e6);

        claim(6e6);

        vm.assertEq(slot().claimed, 6e6, "claimed");
    }

    function test_OpensAgainAfterAWithdrawal() public {
        open(5e6);
        vm.prank(payer);
        channels.exit(payee, signer);
        vm.warp(START + EXIT_DELAY);
        vm.prank(payer);
        channels.withdraw(payee, signer);

        open(2e6);

        vm.assertEq(slot().deposit, 2e6, "deposit");
        vm.assertEq(slot().exitAt, 0, "exitAt");
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

        _expectTooLarge(type(uint96).max - 5e6 + 1);
        open(type(uint96).max - 5e6 + 1);
        _expectTooLarge(type(uint96).max);
        open(type(uint96).max);
    }

    function test_RevertWhen_NoAllowance() public {
        vm.expectRevert(
            abi.encodeWithSelector(
                IERC20Errors.ERC20InsufficientAllowance.selector, address(channels), 0, 1
            )
        );
        vm.prank(stranger);
        channels.open(payee, signer, 1);

        vm.assertEq(channels.channel(idOf(stranger, signer)).deposit, 0, "nothing opened");
    }

    function test_RevertWhen_TokenSaysNo() public {
        vm.mockCall(
            address(token), abi.encodeWithSelector(IERC20.transferFrom.selector), abi.encode(false)
        );

        vm.expectRevert(
            abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(token))
        );
        open(5e6);
    }

    function test_RevertWhen_LessArrives() public {
        vm.mockCall(
            address(token), abi.encodeWithSelector(IERC20.transferFrom.selector), abi.encode(true)
        );

        vm.expectRevert(abi.encodeWithSelector(Intake.Intake_WrongAmount.selector, 5e6, 0));
        open(5e6);
    }

    function _expectTooLarge(uint96 amount) private {
        vm.expectRevert(
            abi.encodeWithSelector(
                IChannels.Channels_DepositTooLarge.selector, idOf(payer, signer), 5e6, amount
            )
        );
    }
}
