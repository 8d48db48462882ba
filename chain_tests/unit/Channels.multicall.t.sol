// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsMulticallTest is Fixture {
    function setUp() public override {
        super.setUp();
        join(payee, NODE_KEY, MIN_STAKE);
        open(5e6);
        claim(1e6);
        nextEpoch();
        nextEpoch();
    }

    function test_MakesAllCallsInOrder() public {
        uint256 before = token.balanceOf(payee);
        _calls(
            abi.encodeCall(IChannels.claim, (payee, row(2e6))),
            abi.encodeCall(IChannels.release, (payee))
        );

        vm.assertEq(slot().claimed, 2e6, "claimed");
        vm.assertEq(token.balanceOf(payee) - before, 990_000, "what was mature");
    }

    function test_ActsForItsCallerOnly() public {
        vm.expectRevert(err(IChannels.Channels_UnknownChannel.selector, idOf(stranger, signer)));
        vm.prank(stranger);
        _calls(
            abi.encodeCall(IChannels.exit, (payee, signer)),
            abi.encodeCall(IChannels.exit, (payee, signer))
        );

        vm.prank(payer);
        _calls(
            abi.encodeCall(IChannels.topUp, (payee, signer, 1e6)),
            abi.encodeCall(IChannels.exit, (payee, signer))
        );
        vm.assertEq(slot().deposit, 6e6, "deposit");
        vm.assertTrue(slot().exitAt != 0, "exiting");
    }

    function test_RevertWhen_OneCallReverts() public {
        vm.expectRevert(
            abi.encodeWithSelector(IChannels.Channels_CallerNotArbiter.selector, address(this))
        );
        _calls(
            abi.encodeCall(IChannels.claim, (payee, row(2e6))),
            abi.encodeCall(IChannels.forfeit, (payee))
        );

        vm.assertEq(slot().claimed, 1e6, "nothing is claimed");
    }

    function _calls(bytes memory first, bytes memory second) private {
        bytes[] memory both = new bytes[](2);
        (both[0], both[1]) = (first, second);
        Multicall(address(channels)).multicall(both);
    }
}
