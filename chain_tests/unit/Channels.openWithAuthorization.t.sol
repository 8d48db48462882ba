// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC3009} from "@openzeppelin/contracts/interfaces/draft-IERC3009.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Intake} from "../../contracts/libraries/Intake.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsOpenWithAuthorizationTest is Fixture {
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
        IChannels.Authorization memory authorization = _authorization(5e6);
        bytes32 nonce = channels.authorizationNonce(id, "salt");
        vm.assertEq(nonce, keccak256(abi.encode(id, bytes32("salt"))), "nonce");

        vm.expectEmit(address(channels));
        emit IChannels.ChannelOpened(id, poor, payee, signer, 5e6, 5e6);
        vm.expectEmit(address(token));
        emit IERC3009.AuthorizationUsed(poor, nonce);
        vm.prank(stranger);
        ChannelId opened = channels.openWithAuthorization(poor, payee, signer, 5e6, authorization);

        vm.assertEq(ChannelId.unwrap(opened), ChannelId.unwrap(id), "id");
        vm.assertEq(channels.channel(id).deposit, 5e6, "deposit");
        vm.assertEq(token.balanceOf(address(channels)), 5e6, "balance");
        vm.assertEq(token.balanceOf(poor), RICH - 5e6, "payer's balance");
        vm.assertEq(token.balanceOf(stranger), 0, "the carrier's balance");
    }

    function testFuzz_TakesAnyAmount(uint96 amount, bytes32 salt) public {
        amount = uint96(bound(amount, 1, RICH));

        _open(amount, authorizationFor(_POOR_KEY, id, amount, salt));

        vm.assertEq(channels.channel(id).deposit, amount, "deposit");
        vm.assertEq(token.balanceOf(poor), RICH - amount, "payer's balance");
    }

    function test_AddsToWhatWasClaimed() public {
        _open(5e6, _authorization(5e6));
        channels.claim(payee, row(poor, SIGNER_KEY, 5e6, 1, 0));

        _open(2e6, authorizationFor(_POOR_KEY, id, 2e6, "another salt"));

        vm.assertEq(channels.channel(id).deposit, 7e6, "deposit");
    }

    function test_RevertGiven_AuthorizationUsed() public {
        _open(5e6, _authorization(5e6));
        channels.claim(payee, row(poor, SIGNER_KEY, 5e6, 1, 0));
        IChannels.Authorization memory authorization = _authorization(5e6);

        vm.expectRevert(
            abi.encodeWithSelector(
                ERC3009.ERC3009UsedAuthorization.selector,
                poor,
                channels.authorizationNonce(id, "salt")
            )
        );
        _open(5e6, authorization);
    }

    function test_RevertWhen_OtherChannel() public {
        IChannels.Authorization memory authorization = _authorization(5e6);

        _expectBadSignature();
        channels.openWithAuthorization(poor, stranger, signer, 5e6, authorization);
        _expectBadSignature();
        channels.openWithAuthorization(poor, payee, stranger, 5e6, authorization);
        _expectBadSignature();
        channels.openWithAuthorization(payer, payee, signer, 5e6, authorization);
    }

    function test_RevertWhen_OtherAmountOrSalt() public {
        IChannels.Authorization memory authorization = _authorization(5e6);

        _expectBadSignature();
        _open(4e6, authorization);
        authorization.salt = "another salt";
        _expectBadSignature();
        _open(5e6, authorization);
    }

    function test_RevertWhen_OutOfItsTime() public {
        IChannels.Authorization memory authorization = _authorization(5e6);
        vm.warp(authorization.validBefore);

        vm.expectRevert(
            abi.encodeWithSelector(
                ERC3009.ERC3009InvalidAuthorizationTime.selector, 0, authorization.validBefore
            )
        );
        _open(5e6, authorization);
    }

    function test_RevertWhen_LessArrives() public {
        IChannels.Authorization memory authorization = _authorization(5e6);
        vm.mockCall(
            address(token), abi.encodeWithSelector(IERC3009.receiveWithAuthorization.selector), ""
        );

        vm.expectRevert(abi.encodeWithSelector(Intake.Intake_WrongAmount.selector, 5e6, 0));
        _open(5e6, authorization);
    }

    function test_RevertWhen_PartyZero() public {
        IChannels.Authorization memory authorization = _authorization(5e6);

        vm.expectRevert(
            abi.encodeWithSelector(IChannels.Channels_BadParty.selector, address(0), signer)
        );
        channels.openWithAuthorization(poor, address(0), signer, 5e6, authorization);
        vm.expectRevert(
            abi.encodeWithSelector(IChannels.Channels_BadParty.selector, payee, address(0))
        );
        channels.openWithAuthorization(poor, payee, address(0), 5e6, authorization);
    }

    function test_RevertWhen_AmountZero() public {
        IChannels.Authorization memory authorization = _authorization(0);

        vm.expectRevert(abi.encodeWithSelector(IChannels.Channels_AmountZero.selector));
        _open(0, authorization);
    }

    function test_RevertGiven_HoldsMoney() public {
        _open(5e6, _authorization(5e6));
        IChannels.Authorization memory authorization =
            authorizationFor(_POOR_KEY, id, 1, "another salt");

        vm.expectRevert(err(IChannels.Channels_AlreadyOpen.selector, id));
        _open(1, authorization);
    }

    function _authorization(uint96 amount) private view returns (IChannels.Authorization memory) {
        return authorizationFor(_POOR_KEY, id, amount, "salt");
    }

    function _open(uint96 amount, IChannels.Authorization memory authorization) private {
        vm.prank(stranger);
        channels.openWithAuthorization(poor, payee, signer, amount, authorization);
    }

    function _expectBadSignature() private {
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009InvalidSignature.selector));
    }
}
