// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC3009} from "@openzeppelin/contracts/interfaces/draft-IERC3009.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Intake} from "../../contracts/libraries/Intake.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsTopUpWithAuthorizationTest is Fixture {
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
        IChannels.Authorization memory authorization = _authorization(2e6);

        vm.expectEmit(address(channels));
        emit IChannels.ChannelToppedUp(id, poor, 2e6, 7e6);
        _topUp(2e6, authorization);

        vm.assertEq(channels.channel(id).deposit, 7e6, "deposit");
        vm.assertEq(token.balanceOf(address(channels)), 7e6, "balance");
        vm.assertEq(token.balanceOf(poor), RICH - 7e6, "payer's balance");
    }

    function testFuzz_AddsAnyAmount(uint96 amount, bytes32 salt) public {
        amount = uint96(bound(amount, 1, RICH - 5e6));

        _topUp(amount, authorizationFor(_POOR_KEY, id, amount, salt));

        vm.assertEq(channels.channel(id).deposit, 5e6 + amount, "deposit");
    }

    function test_CanBeCarriedHereLaterWhenAnExitWasInTheWay() public {
        IChannels.Authorization memory authorization = _authorization(2e6);
        vm.prank(poor);
        channels.exit(payee, signer);
        vm.warp(START + EXIT_DELAY);
        vm.prank(poor);
        channels.withdraw(payee, signer);
        vm.prank(poor);
        token.approve(address(channels), 1e6);
        vm.prank(poor);
        channels.open(payee, signer, 1e6);

        _topUp(2e6, authorization);

        vm.assertEq(channels.channel(id).deposit, 3e6, "deposit");
    }

    function test_RevertGiven_AuthorizationUsed() public {
        IChannels.Authorization memory authorization = _authorization(2e6);
        _topUp(2e6, authorization);

        vm.expectRevert(
            abi.encodeWithSelector(
                ERC3009.ERC3009UsedAuthorization.selector,
                poor,
                channels.authorizationNonce(id, "salt")
            )
        );
        _topUp(2e6, authorization);
    }

    function test_RevertWhen_OtherChannel() public {
        vm.prank(payer);
        channels.open(stranger, signer, 1);
        open(1);
        IChannels.Authorization memory authorization = _authorization(2e6);

        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009InvalidSignature.selector));
        channels.topUpWithAuthorization(payer, payee, signer, 2e6, authorization);
    }

    function test_RevertWhen_LessArrives() public {
        IChannels.Authorization memory authorization = _authorization(2e6);
        vm.mockCall(
            address(token), abi.encodeWithSelector(IERC3009.receiveWithAuthorization.selector), ""
        );

        vm.expectRevert(abi.encodeWithSelector(Intake.Intake_WrongAmount.selector, 2e6, 0));
        _topUp(2e6, authorization);
    }

    function test_RevertWhen_AmountZero() public {
        IChannels.Authorization memory authorization = _authorization(0);

        vm.expectRevert(abi.encodeWithSelector(IChannels.Channels_AmountZero.selector));
        _topUp(0, authorization);
    }

    function test_RevertGiven_Unknown() public {
        ChannelId unknown = idOf(poor, stranger);
        IChannels.Authorization memory authorization =
            authorizationFor(_POOR_KEY, unknown, 2e6, "salt");

        vm.expectRevert(err(IChannels.Channels_UnknownChannel.selector, unknown));
        channels.topUpWithAuthorization(poor, payee, stranger, 2e6, authorization);
    }

    function test_RevertGiven_Exiting() public {
        vm.prank(poor);
        channels.exit(payee, signer);
        IChannels.Authorization memory authorization = _authorization(2e6);

        vm.expectRevert(
            abi.encodeWithSelector(
                IChannels.Channels_Exiting.selector, id, uint32(START + EXIT_DELAY)
            )
        );
        _topUp(2e6, authorization);
    }

    function _authorization(uint96 amount) private view returns (IChannels.Authorization memory) {
        return authorizationFor(_POOR_KEY, id, amount, "salt");
    }

    function _topUp(uint96 amount, IChannels.Authorization memory authorization) private {
        vm.prank(stranger);
        channels.topUpWithAuthorization(poor, payee, signer, amount, authorization);
    }
}
