// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsTopUpWithPermitTest is Fixture {
    uint256 private constant _POOR_KEY = 0x900D;

    address private poor;
    ChannelId private id;

    function setUp() public override {
        super.setUp();
        poor = vm.addr(_POOR_KEY);
        id = idOf(poor, signer);
        token.mint(poor, RICH);
        vm.startPrank(poor);
        token.approve(address(channels), 5e6);
        channels.open(payee, signer, 5e6);
        vm.stopPrank();
    }

    function test_AddsToTheDepositAndSaysSo() public {
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 2e6);

        vm.expectEmit(address(channels));
        emit IChannels.ChannelToppedUp(id, poor, 2e6, 7e6);
        _topUp(2e6, permit);

        vm.assertEq(channels.channel(id).deposit, 7e6, "deposit");
        vm.assertEq(token.balanceOf(address(channels)), 7e6, "balance");
        vm.assertEq(token.balanceOf(poor), RICH - 7e6, "payer's balance");
        vm.assertEq(token.allowance(poor, address(channels)), 0, "no allowance is left");
    }

    function testFuzz_AddsAnyAmount(uint96 amount) public {
        amount = uint96(bound(amount, 1, RICH - 5e6));

        _topUp(amount, permitFor(_POOR_KEY, amount));

        vm.assertEq(channels.channel(id).deposit, 5e6 + amount, "deposit");
    }

    function test_GoesOnWithTheAllowanceOfAUsedPermit() public {
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 2e6);
        vm.prank(stranger);
        IERC20Permit(address(token))
            .permit(poor, address(channels), 2e6, permit.deadline, permit.v, permit.r, permit.s);

        _topUp(2e6, permit);

        vm.assertEq(channels.channel(id).deposit, 7e6, "deposit");
    }

    function test_RevertWhen_PermitBad() public {
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 2e6);
        permit.v = 0;

        vm.expectRevert(
            abi.encodeWithSelector(
                IERC20Errors.ERC20InsufficientAllowance.selector, address(channels), 0, 2e6
            )
        );
        _topUp(2e6, permit);
    }

    function test_RevertWhen_AmountZero() public {
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 0);

        vm.expectRevert(abi.encodeWithSelector(IChannels.Channels_AmountZero.selector));
        _topUp(0, permit);
    }

    function test_RevertGiven_Unknown() public {
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 1);

        vm.expectRevert(err(IChannels.Channels_UnknownChannel.selector, idOf(poor, stranger)));
        vm.prank(poor);
        channels.topUpWithPermit(payee, stranger, 1, permit);
    }

    function test_RevertGiven_Exiting() public {
        vm.prank(poor);
        channels.exit(payee, signer);
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 1);

        vm.expectRevert(
            abi.encodeWithSelector(
                IChannels.Channels_Exiting.selector, id, uint32(START + EXIT_DELAY)
            )
        );
        _topUp(1, permit);
    }

    function _topUp(uint96 amount, IChannels.Permit memory permit) private {
        vm.prank(poor);
        channels.topUpWithPermit(payee, signer, amount, permit);
    }
}
