// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsExitTest is Fixture {
    uint32 private constant _DUE = uint32(START + EXIT_DELAY);

    function setUp() public override {
        super.setUp();
        open(5e6);
    }

    function test_KeepsTheTimeAndSaysSo() public {
        vm.expectEmit(address(channels));
        emit IChannels.ExitStarted(idOf(payer, signer), payer, _DUE);
        _exit(payer);

        vm.assertEq(slot().exitAt, _DUE, "exitAt");
        vm.assertEq(slot().deposit, 5e6, "deposit");
        vm.assertEq(token.balanceOf(address(channels)), 5e6, "no token moves");
    }

    function testFuzz_KeepsTheTime(uint32 time, uint96 paid) public {
        time = uint32(bound(time, START, type(uint32).max - EXIT_DELAY));
        paid = uint96(bound(paid, 0, 5e6 - 1));
        if (paid != 0) claim(paid);
        vm.warp(time);

        _exit(payer);

        vm.assertEq(slot().exitAt, time + EXIT_DELAY, "exitAt");
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

    function test_RevertWhen_TimeHasNo32Bits() public {
        uint256 late = uint256(type(uint32).max) - EXIT_DELAY + 1;
        vm.warp(late);

        vm.expectRevert(
            abi.encodeWithSelector(
                SafeCast.SafeCastOverflowedUintDowncast.selector, 32, late + EXIT_DELAY
            )
        );
        _exit(payer);
    }

    function _exit(address from) private {
        vm.prank(from);
        channels.exit(payee, signer);
    }
}
