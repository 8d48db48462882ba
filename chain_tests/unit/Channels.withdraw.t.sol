// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsWithdrawTest is Fixture {
    uint32 private constant _DUE = uint32(START + EXIT_DELAY);

    function setUp() public override {
        super.setUp();
        open(5e6);
    }

    function test_PaysWhatIsLeftAndSaysSo() public {
        claim(2e6);
        _exit(payer);
        vm.warp(_DUE);

        vm.expectEmit(address(channels));
        emit IChannels.ChannelWithdrawn(idOf(payer, signer), payer, 3e6);
        _withdraw(payer);

        vm.assertEq(token.balanceOf(payer), RICH - 2e6, "payer's balance");
        vm.assertEq(token.balanceOf(address(channels)), 2e6, "balance");
        vm.assertEq(slot().deposit, 2e6, "deposit");
        vm.assertEq(slot().claimed, 2e6, "claimed");
        vm.assertEq(slot().exitAt, 0, "exitAt");
    }

    function testFuzz_SplitsTheDepositExactly(uint96 before, uint96 meanwhile, uint32 wait) public {
        before = uint96(bound(before, 0, 5e6 - 1));
        meanwhile = uint96(bound(meanwhile, before, 5e6));
        if (before != 0) claim(before);
        _exit(payer);
        if (meanwhile != before) claim(meanwhile);
        vm.warp(bound(wait, _DUE, type(uint32).max));

        _withdraw(payer);

        vm.assertEq(token.balanceOf(payer), RICH - meanwhile, "payer");
        vm.assertEq(token.balanceOf(address(channels)), meanwhile, "contract");
    }

    function test_EndsTheExitWithoutMoney() public {
        _exit(payer);
        claim(5e6);
        vm.warp(_DUE);

        vm.expectEmit(address(channels));
        emit IChannels.ChannelWithdrawn(idOf(payer, signer), payer, 0);
        _withdraw(payer);

        vm.assertEq(token.balanceOf(payer), RICH - 5e6, "payer's balance");
        vm.assertEq(slot().exitAt, 0, "exitAt");
    }

    function test_RevertGiven_NotExiting() public {
        _expectNotExiting(payer);
        _withdraw(payer);
    }

    function test_RevertGiven_NotDue() public {
        _exit(payer);
        vm.warp(_DUE - 1);

        vm.expectRevert(
            abi.encodeWithSelector(
                IChannels.Channels_ExitNotDue.selector, idOf(payer, signer), _DUE
            )
        );
        _withdraw(payer);
    }

    function test_RevertWhen_CallerNotPayer() public {
        _exit(payer);
        vm.warp(_DUE);

        _expectNotExiting(stranger);
        _withdraw(stranger);
    }

    function test_RevertGiven_Withdrawn() public {
        _exit(payer);
        vm.warp(_DUE);
        _withdraw(payer);

        _expectNotExiting(payer);
        _withdraw(payer);
    }

    function test_RevertWhen_TokenSaysNo() public {
        _exit(payer);
        vm.warp(_DUE);
        vm.mockCall(
            address(token), abi.encodeWithSelector(IERC20.transfer.selector), abi.encode(false)
        );

        vm.expectRevert(
            abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(token))
        );
        _withdraw(payer);

        vm.assertEq(slot().exitAt, _DUE, "the exit goes on");
        vm.assertEq(slot().deposit, 5e6, "the deposit stays");
    }

    function _exit(address from) private {
        vm.prank(from);
        channels.exit(payee, signer);
    }

    function _withdraw(address from) private {
        vm.prank(from);
        channels.withdraw(payee, signer);
    }

    function _expectNotExiting(address from) private {
        vm.expectRevert(err(IChannels.Channels_NotExiting.selector, idOf(from, signer)));
    }
}
