// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsBurnTest is Fixture {
    function setUp() public override {
        super.setUp();
        open(500e6);
    }

    function test_SendsTheFeesAndSaysSo() public {
        claim(10e6);
        claim(20e6);

        vm.expectEmit(address(channels));
        emit IChannels.FeeBurned(payee, 200_000, 200_000);
        vm.prank(stranger);
        uint96 amount = channels.burn(payee);

        vm.assertEq(amount, 200_000, "amount");
        vm.assertEq(token.balanceOf(BURN), 200_000, "burned");
        vm.assertEq(token.balanceOf(address(channels)), 500e6 - 200_000, "balance");
        vm.assertEq(channels.accountOf(payee).burned, 200_000, "the total");
        vm.assertEq(channels.accountOf(payee).fee, 200_000, "the fee stays");
    }

    function testFuzz_BurnsEachFeeOnce(uint96 first, uint96 second) public {
        first = uint96(bound(first, 1, 500e6 - 1));
        second = uint96(bound(second, first + 1, 500e6));

        claim(first);
        channels.burn(payee);
        claim(second);
        vm.assertEq(channels.burn(payee), feeUp(second - first), "the second part");

        vm.assertEq(token.balanceOf(BURN), channels.accountOf(payee).fee, "burned");
    }

    function test_BurnsTheFeesOfForfeitedMoney() public {
        claim(10e6);
        vm.prank(arbiter);
        channels.forfeit(payee);

        vm.assertEq(channels.burn(payee), 100_000, "amount");
        vm.assertEq(token.balanceOf(BURN), 100_000, "burned");
    }

    function test_RevertGiven_NothingOwed() public {
        _expectNothing();
        channels.burn(payee);
        claim(10e6);
        channels.burn(payee);
        _expectNothing();
        channels.burn(payee);
    }

    function _expectNothing() private {
        vm.expectRevert(abi.encodeWithSelector(IChannels.Channels_NothingToBurn.selector, payee));
    }
}
