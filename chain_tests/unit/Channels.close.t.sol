// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

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
        vm.warp(START + 1);
    }

    function test_PaysAtOnceAndSaysSo() public {
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

    function testFuzz_SplitsTheDepositExactly(uint96 paid) public {
        paid = uint96(bound(paid, 2e6, 5e6));
        if (paid != 2e6) claim(paid);
        (bytes32 r, bytes32 vs) = consent(NODE_KEY, paid, _DUE);

        channels.close(payer, payee, signer, r, vs);

        vm.assertEq(token.balanceOf(payer), RICH - paid, "payer");
        vm.assertEq(token.balanceOf(address(channels)), paid, "contract");
        vm.assertEq(slot().deposit, paid, "deposit");
    }

    function test_TakesTheConsentOfAnyValidKey() public {
        addKey(payee, 0xD00D);
        (bytes32 r, bytes32 vs) = consent(NODE_KEY, 2e6, _DUE);

        channels.close(payer, payee, signer, r, vs);

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

    function test_RevertWhen_NoNodesKey() public {
        (bytes32 r, bytes32 vs) = consent(SIGNER_KEY, 2e6, _DUE);

        _expectBadClose(2e6, _DUE, signer);
        channels.close(payer, payee, signer, r, vs);
    }

    function test_RevertWhen_SignatureMalformed() public {
        _expectBadClose(2e6, _DUE, address(0));
        channels.close(payer, payee, signer, 0, 0);
    }

    function test_RevertWhen_ClaimedInBetween() public {
        (bytes32 r, bytes32 vs) = consent(NODE_KEY, 2e6, _DUE);
        claim(3e6);

        _expectBadClose(3e6, _DUE, _recovered(r, vs, 3e6, _DUE));
        channels.close(payer, payee, signer, r, vs);
        vm.assertEq(slot().exitAt, _DUE, "the exit goes on");
    }

    function test_RevertWhen_ConsentForEarlierExit() public {
        (bytes32 r, bytes32 vs) = consent(NODE_KEY, 2e6, _DUE);
        channels.close(payer, payee, signer, r, vs);
        open(1e6);
        _exit();
        vm.warp(START + 2);

        _expectBadClose(2e6, _DUE + 1, _recovered(r, vs, 2e6, _DUE + 1));
        channels.close(payer, payee, signer, r, vs);
        vm.assertEq(slot().deposit, 3e6, "the deposit stays");
    }

    /// @dev Or a consent could fit a second exit of the same second.
    function test_RevertWhen_InTheExitsOwnSecond() public {
        (bytes32 r, bytes32 vs) = consent(NODE_KEY, 2e6, _DUE);
        vm.warp(START);

        vm.expectRevert(
            abi.encodeWithSelector(
                IChannels.Channels_CloseTooEarly.selector, idOf(payer, signer), _DUE
            )
        );
        channels.close(payer, payee, signer, r, vs);
    }

    function _exit() private {
        vm.prank(payer);
        channels.exit(payee, signer);
    }

    /// @dev Whom a consent over one state names when it is read as one over another.
    function _recovered(bytes32 r, bytes32 vs, uint96 claimed, uint32 exitAt)
        private
        view
        returns (address who)
    {
        bytes32 hash = channels.closeDigest(payer, payee, signer, claimed, exitAt);
        (who,,) = ECDSA.tryRecover(hash, r, vs);
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
