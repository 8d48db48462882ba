// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Intake} from "../../contracts/libraries/Intake.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsTopUpTest is Fixture {
    function test_AddsToTheDepositAndSaysSo() public {
        open(5e6);

        vm.expectEmit(address(channels));
        emit IChannels.ChannelToppedUp(idOf(payer, signer), payer, 2e6, 7e6);
        _topUp(payer, 2e6);

        vm.assertEq(slot().deposit, 7e6, "deposit");
        vm.assertEq(slot().claimed, 0, "claimed");
        vm.assertEq(token.balanceOf(address(channels)), 7e6, "balance");
        vm.assertEq(token.balanceOf(payer), RICH - 7e6, "payer's balance");
    }

    function testFuzz_AddsAnyAmount(uint96 amount, uint96 paid, uint96 more) public {
        amount = uint96(bound(amount, 1, RICH / 2));
        paid = uint96(bound(paid, 1, amount));
        more = uint96(bound(more, 1, RICH / 2));
        open(amount);
        claim(paid);

        _topUp(payer, more);

        vm.assertEq(slot().deposit, amount + more, "deposit");
        vm.assertEq(slot().claimed, paid, "claimed");
        vm.assertEq(token.balanceOf(address(channels)), amount + more, "balance");
    }

    function test_GoesOnFromWhatWasClaimed() public {
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

    function test_RevertWhen_DepositTooLarge() public {
        open(5e6);

        vm.expectRevert(
            abi.encodeWithSelector(
                IChannels.Channels_DepositTooLarge.selector,
                idOf(payer, signer),
                5e6,
                type(uint96).max
            )
        );
        _topUp(payer, type(uint96).max);
    }

    function test_RevertWhen_BalanceTooSmall() public {
        open(5e6);

        vm.expectRevert(
            abi.encodeWithSelector(
                IERC20Errors.ERC20InsufficientBalance.selector, payer, RICH - 5e6, RICH
            )
        );
        _topUp(payer, RICH);

        vm.assertEq(slot().deposit, 5e6, "the deposit stays");
    }

    function test_RevertWhen_LessArrives() public {
        open(5e6);
        vm.mockCall(
            address(token), abi.encodeWithSelector(IERC20.transferFrom.selector), abi.encode(true)
        );

        vm.expectRevert(abi.encodeWithSelector(Intake.Intake_WrongAmount.selector, 1, 0));
        _topUp(payer, 1);
    }

    function _topUp(address from, uint96 amount) private {
        vm.prank(from);
        channels.topUp(payee, signer, amount);
    }
}
