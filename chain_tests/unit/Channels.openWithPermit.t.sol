// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Intake} from "../../contracts/libraries/Intake.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsOpenWithPermitTest is Fixture {
    uint256 private constant _POOR_KEY = 0x900D;

    address private poor;
    ChannelId private id;

    function setUp() public override {
        super.setUp();
        poor = vm.addr(_POOR_KEY);
        id = idOf(poor, signer);
        token.mint(poor, RICH);
    }

    function test_TakesTheMoneyAndSaysSo() public {
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 5e6);

        vm.expectEmit(address(channels));
        emit IChannels.ChannelOpened(id, poor, payee, signer, 5e6, 5e6);
        vm.prank(poor);
        ChannelId opened = channels.openWithPermit(payee, signer, 5e6, permit);

        vm.assertEq(ChannelId.unwrap(opened), ChannelId.unwrap(id), "id");
        vm.assertEq(channels.channel(id).deposit, 5e6, "deposit");
        vm.assertEq(token.balanceOf(address(channels)), 5e6, "balance");
        vm.assertEq(token.balanceOf(poor), RICH - 5e6, "payer's balance");
        vm.assertEq(token.allowance(poor, address(channels)), 0, "no allowance is left");
    }

    function testFuzz_TakesAnyAmount(uint96 amount) public {
        amount = uint96(bound(amount, 1, RICH));

        _open(amount, permitFor(_POOR_KEY, amount));

        vm.assertEq(channels.channel(id).deposit, amount, "deposit");
        vm.assertEq(token.balanceOf(poor), RICH - amount, "payer's balance");
    }

    function test_GoesOnWithTheAllowanceOfAUsedPermit() public {
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 5e6);
        vm.prank(stranger);
        IERC20Permit(address(token))
            .permit(poor, address(channels), 5e6, permit.deadline, permit.v, permit.r, permit.s);

        _open(5e6, permit);

        vm.assertEq(channels.channel(id).deposit, 5e6, "deposit");
    }

    function test_GoesOnWithAnAllowanceAndNoPermit() public {
        vm.prank(poor);
        token.approve(address(channels), 5e6);
        IChannels.Permit memory none;

        _open(5e6, none);

        vm.assertEq(channels.channel(id).deposit, 5e6, "deposit");
    }

    function test_AddsToWhatWasClaimed() public {
        _open(5e6, permitFor(_POOR_KEY, 5e6));
        channels.claim(payee, row(poor, SIGNER_KEY, 5e6, 1, 0));

        _open(2e6, permitFor(_POOR_KEY, 2e6));

        vm.assertEq(channels.channel(id).deposit, 7e6, "deposit");
    }

    function test_RevertWhen_SignatureBad() public {
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 5e6);
        permit.s ^= bytes32(uint256(1));

        _expectNoAllowance(5e6);
        _open(5e6, permit);
    }

    function test_RevertWhen_PermitOfOtherAccount() public {
        IChannels.Permit memory permit = permitFor(SIGNER_KEY, 5e6);

        _expectNoAllowance(5e6);
        _open(5e6, permit);
    }

    function test_RevertWhen_PermitForOtherAmount() public {
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 4e6);

        _expectNoAllowance(5e6);
        _open(5e6, permit);
    }

    function test_RevertWhen_PermitExpired() public {
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 5e6);
        vm.warp(permit.deadline + 1);

        _expectNoAllowance(5e6);
        _open(5e6, permit);
    }

    function test_RevertWhen_LessArrives() public {
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 5e6);
        vm.mockCall(
            address(token), abi.encodeWithSelector(IERC20.transferFrom.selector), abi.encode(true)
        );

        vm.expectRevert(abi.encodeWithSelector(Intake.Intake_WrongAmount.selector, 5e6, 0));
        _open(5e6, permit);
    }

    function test_RevertWhen_PartyZero() public {
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 5e6);
        vm.startPrank(poor);

        vm.expectRevert(
            abi.encodeWithSelector(IChannels.Channels_BadParty.selector, address(0), signer)
        );
        channels.openWithPermit(address(0), signer, 5e6, permit);
        vm.expectRevert(
            abi.encodeWithSelector(IChannels.Channels_BadParty.selector, payee, address(0))
        );
        channels.openWithPermit(payee, address(0), 5e6, permit);
        vm.assertEq(token.nonces(poor), 0, "the permit stays good");
    }

    function test_RevertWhen_AmountZero() public {
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 0);

        vm.expectRevert(abi.encodeWithSelector(IChannels.Channels_AmountZero.selector));
        _open(0, permit);
    }

    function test_RevertGiven_HoldsMoney() public {
        _open(5e6, permitFor(_POOR_KEY, 5e6));
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 1);

        vm.expectRevert(err(IChannels.Channels_AlreadyOpen.selector, id));
        _open(1, permit);
    }

    function _open(uint96 amount, IChannels.Permit memory permit) private {
        vm.prank(poor);
        channels.openWithPermit(payee, signer, amount, permit);
    }

    function _expectNoAllowance(uint96 amount) private {
        vm.expectRevert(
            abi.encodeWithSelector(
                IERC20Errors.ERC20InsufficientAllowance.selector, address(channels), 0, amount
            )
        );
    }
}
