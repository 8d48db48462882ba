// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsCloseTest is Fixture {
    uint32 private constant _DUE = uint32(START + EXIT_DELAY);

    function setUp() public override {
        super.setUp();
        join(payee, NODE_KEY, MIN_STAKE);
        join(stranger, OTHER_NODE_KEY, 0);
        open(5e6);
        claim(2e6);
        _exit();
    }

    function test_Close_PaysAtOnceAndSaysSo() public {
        (bytes32 r, bytes32 vs) = consent(NODE_KEY, 2e6, _DUE);

        vm.expectEmit(address(channels));
        emit IChannels.ChannelClosed(idOf(payer, signer), payer, 3e6);
        vm.prank(stranger);
        channels.close(payer, payee, signer, r, vs);

        vm.assertEq(token.balanceOf(payer), RICH - 2e6, "payer's balance");
        vm.assertEq(slot().deposit, 2e6, "deposit");
        vm.assertEq(slot().claimed, 2e6, "claimed");
        vm.assertEq(slot().exitAt, 0, "exitAt");
    }

    function test_RevertGiven_NotExiting() public {
        (bytes32 r, bytes32 vs) = consent(NODE_KEY, 2e6, _DUE);
        channels.close(payer, payee, signer, r, vs);

        vm.expectRevert(err(IChannels.Channels_NotExiting.selector, idOf(payer, signer)));
        channels.close(payer, payee, signer, r, vs);
    }

    function test_RevertWhen_OtherNodesKey() public {
        (bytes32 r, bytes32 vs) = consent(OTHER_NODE_KEY, 2e6, _DUE);

        _expectBadClose(2e6, _DUE, vm.addr(OTHER_NODE_KEY));
        channels.close(payer, payee, signer, r, vs);
    }

    function test_RevertWhen_KeyRevoked() public {
        (bytes32 r, bytes32 vs) = consent(NODE_KEY, 2e6, _DUE);
        vm.prank(payee);
        nodes.revokeServiceKey(nodeKey);

        _expectBadClose(2e6, _DUE, nodeKey);
        channels.close(payer, payee, signer, r, vs);
    }

    function test_RevertWhen_SignatureMalformed() public {
        _expectBadClose(2e6, _DUE, address(0));
        channels.close(payer, payee, signer, 0, 0);
    }

    function test_RevertWhen_ClaimedInBetween() public {
        (bytes32 r, bytes32 vs) = consent(NODE_KEY, 2e6, _DUE);
        claim(3e6);

        vm.expectRevert();
        channels.close(payer, payee, signer, r, vs);
        vm.assertEq(slot().exitAt, _DUE, "the exit goes on");
    }

    function test_RevertWhen_ConsentForEarlierExit() public {
        (bytes32 r, bytes32 vs) = consent(NODE_KEY, 2e6, _DUE);
        channels.close(payer, payee, signer, r, vs);
        vm.warp(START + 1);
        open(1e6);
        _exit();

        vm.expectRevert();
        channels.close(payer, payee, signer, r, vs);
        vm.assertEq(slot().deposit, 3e6, "the deposit stays");
    }

    function _exit() private {
        vm.prank(payer);
        channels.exit(payee, signer);
    }

    function _expectBadClose(uint96 claimed, uint32 exitAt, address recovered) private {
        vm.expectRevert(
            abi.encodeWithSelector(
                IChannels.Channels_BadClose.selector,
                idOf(payer, signer),
                claimed,
                exitAt,
                recovered
            )
        );
    }
}
