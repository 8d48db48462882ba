// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {RequestsFixture} from "../RequestsFixture.sol";

/// @notice A node that changes its keys, or takes its stake out, before the evidence arrives.
contract KeysAttackTest is RequestsFixture {
    uint256 private constant _NEW_KEY = 0xD00D;

    // ---- keys

    function test_KeyRotated_OldKeyStillNamesTheOwner() public {
        vm.warp(START + 100);
        vm.prank(payee);
        nodes.revokeServiceKey(nodeKey);
        addKey(payee, _NEW_KEY);
        vm.warp(START + 30 days);

        (address owner, uint48 validFrom, uint48 revokedAt) = nodes.serviceKey(nodeKey);
        vm.assertEq(owner, payee, "evidence finds its owner");
        vm.assertEq(validFrom, START, "validFrom");
        vm.assertEq(revokedAt, START + 100, "revokedAt");
        uint256 before = token.balanceOf(arbiter);
        vm.prank(arbiter);
        nodes.slash(owner, MIN_STAKE);
        vm.assertEq(token.balanceOf(arbiter) - before, MIN_STAKE, "the owner is slashed");
    }

    function test_KeyRotated_NobodyElseCanTakeTheOldKey() public {
        vm.prank(payee);
        nodes.revokeServiceKey(nodeKey);
        vm.prank(stranger);
        nodes.register(1, "", 0);
        (bytes32 r, bytes32 vs) = vm.signCompact(NODE_KEY, keyDigest(stranger, nodeKey));

        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_KeyTaken.selector, nodeKey, payee)
        );
        vm.prank(stranger);
        nodes.addServiceKey(nodeKey, r, vs);
    }

    function test_KeyRevoked_FulfilsAndClosesNothing() public {
        open(5e6);
        vm.prank(payer);
        channels.exit(payee, signer);
        vm.warp(block.timestamp + 1);
        uint32 due = slot().exitAt;
        (bytes32 r, bytes32 vs) = consent(NODE_KEY, 0, due);
        (uint256 id, IRequests.Params memory params) = ask();
        vm.prank(payee);
        nodes.revokeServiceKey(nodeKey);

        vm.expectRevert(
            abi.encodeWithSelector(IRequests.Requests_CallerNotGateway.selector, id, nodeKey, payee)
        );
        fulfil(nodeKey, id, params);
        vm.expectRevert(
            abi.encodeWithSelector(
                IChannels.Channels_BadClose.selector, idOf(payer, signer), 0, due, nodeKey
            )
        );
        channels.close(payer, payee, signer, r, vs);

        addKey(payee, _NEW_KEY);
        fulfil(vm.addr(_NEW_KEY), id, params);
        vm.assertEq(channels.accountOf(payee).earned, 1e6, "the new key earns for the node");
    }

    /// @dev Whoever steals a service key moves no money that the node has claimed or staked. What it has
    /// not claimed yet on a channel of the thief the thief can take back, by consenting to its close.
    function test_KeyStolen_TakesNoMoney() public {
        open(50e6);
        claim(20e6);
        nextEpoch();
        nextEpoch();
        vm.startPrank(nodeKey);

        vm.expectRevert(
            abi.encodeWithSelector(
                INodeRegistry.NodeRegistry_StakeTooSmall.selector, nodeKey, 0, MIN_STAKE
            )
        );
        nodes.unbond(MIN_STAKE);
        channels.release(payee);

        vm.assertEq(token.balanceOf(nodeKey), 0, "the thief");
        vm.assertEq(token.balanceOf(payee), RICH - MIN_STAKE + 19_800_000, "the node");
    }

    // ---- stake on its way out

    function test_UnbondedBeforeTheVerdict_IsStillSlashed() public {
        vm.prank(payee);
        nodes.unbond(MIN_STAKE);
        vm.warp(START + UNBONDING - 1);
        vm.prank(arbiter);
        nodes.slash(payee, MIN_STAKE);
        vm.warp(START + UNBONDING);

        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_NothingUnbonding.selector, payee)
        );
        vm.prank(payee);
        nodes.withdrawUnbonded();

        vm.assertEq(token.balanceOf(arbiter), MIN_STAKE, "all is slashed");
        vm.assertEq(token.balanceOf(payee), RICH - MIN_STAKE, "nothing left");
    }

    function test_UnbondedAndDue_IsStillSlashedUntilWithdrawn() public {
        vm.prank(payee);
        nodes.unbond(MIN_STAKE);
        vm.warp(START + UNBONDING + 30 days);

        vm.prank(arbiter);
        nodes.slash(payee, MIN_STAKE);

        vm.assertEq(token.balanceOf(arbiter), MIN_STAKE, "all is slashed");
    }

    /// @dev What was signed in an epoch can be judged in the next before any stake is out.
    function test_UnbondingOutlastsAnEpoch() public {
        vm.prank(payee);
        nodes.unbond(MIN_STAKE);
        nextEpoch();
        vm.warp(block.timestamp + EPOCH - 1);

        vm.expectRevert(
            abi.encodeWithSelector(
                INodeRegistry.NodeRegistry_StillUnbonding.selector, payee, START + UNBONDING
            )
        );
        vm.prank(payee);
        nodes.withdrawUnbonded();
    }

    function test_JailedBeforeTheVerdict_CannotRunWithItsStake() public {
        vm.prank(payee);
        nodes.unbond(MIN_STAKE);
        vm.warp(START + UNBONDING);
        uint64 until = uint64(START + 2 * UNBONDING);
        vm.prank(arbiter);
        nodes.jail(payee, until);

        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_Jailed.selector, payee, until)
        );
        vm.prank(payee);
        nodes.withdrawUnbonded();
        vm.prank(arbiter);
        nodes.slash(payee, MIN_STAKE);

        vm.assertEq(token.balanceOf(arbiter), MIN_STAKE, "all is slashed");
    }
}
