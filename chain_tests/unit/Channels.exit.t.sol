// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsExitTest is Fixture {
    uint32 private constant _DUE = uint32(START + EXIT_DELAY);

    function setUp() public override {
        super.setUp();
        open(5e6);
    }

    function test_Exit_KeepsTheTimeAndSaysSo() public {
        vm.expectEmit(address(channels));
        emit IChannels.ExitStarted(idOf(payer, signer), payer, _DUE);
        _exit(payer);

        vm.assertEq(slot().exitAt, _DUE, "exitAt");
        vm.assertEq(slot().deposit, 5e6, "deposit");
    }

    function test_RevertGiven_UnknownChannel() public {
        vm.expectRevert(err(IChannels.Channels_UnknownChannel.selector, idOf(stranger, signer)));
        _exit(stranger);
    }

    function test_RevertGiven_AlreadyExiting() public {
        _exit(payer);
        vm.warp(START + 1);

        vm.expectRevert(
            abi.encodeWithSelector(IChannels.Channels_Exiting.selector, idOf(payer, signer), _DUE)
        );
        _exit(payer);
    }

    function test_RevertGiven_NothingLeft() public {
        claim(5e6);

        vm.expectRevert(err(IChannels.Channels_NothingLeft.selector, idOf(payer, signer)));
        _exit(payer);
    }

    function test_Withdraw_PaysWhatIsLeftAndSaysSo() public {
        claim(2e6);
        _exit(payer);
        vm.warp(_DUE);

        vm.expectEmit(address(channels));
        emit IChannels.ChannelWithdrawn(idOf(payer, signer), payer, 3e6);
        _withdraw(payer);

        vm.assertEq(token.balanceOf(payer), RICH - 2e6, "payer's balance");
        vm.assertEq(slot().deposit, 2e6, "deposit");
        vm.assertEq(slot().claimed, 2e6, "claimed");
        vm.assertEq(slot().exitAt, 0, "exitAt");
    }

    function test_Withdraw_GivenAllClaimedMeanwhile_EndsTheExit() public {
        _exit(payer);
        claim(5e6);
        vm.warp(_DUE);

        _withdraw(payer);

        vm.assertEq(token.balanceOf(payer), RICH - 5e6, "payer's balance");
        vm.assertEq(slot().exitAt, 0, "exitAt");
    }

    function test_Withdraw_RevertGiven_NotExiting() public {
        vm.expectRevert(err(IChannels.Channels_NotExiting.selector, idOf(payer, signer)));
        _withdraw(payer);
    }

    function test_Withdraw_RevertGiven_NotDue() public {
        _exit(payer);
        vm.warp(_DUE - 1);

        vm.expectRevert(
            abi.encodeWithSelector(
                IChannels.Channels_ExitNotDue.selector, idOf(payer, signer), _DUE
            )
        );
        _withdraw(payer);
    }

    function test_Withdraw_RevertWhen_CallerNotPayer() public {
        _exit(payer);
        vm.warp(_DUE);

        vm.expectRevert(err(IChannels.Channels_NotExiting.selector, idOf(stranger, signer)));
        _withdraw(stranger);
    }

    function test_Withdraw_RevertGiven_Withdrawn() public {
        _exit(payer);
        vm.warp(_DUE);
        _withdraw(payer);

        vm.expectRevert(err(IChannels.Channels_NotExiting.selector, idOf(payer, signer)));
        _withdraw(payer);
    }

    function _exit(address from) private {
        vm.prank(from);
        channels.exit(payee, signer);
    }

    function _withdraw(address from) private {
        vm.prank(from);
        channels.withdraw(payee, signer);
    }
}
