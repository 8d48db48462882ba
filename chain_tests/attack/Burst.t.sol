// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {RequestsFixture} from "../RequestsFixture.sol";

/// @notice A node cheats much at once and tries to be gone with the money before the verdict.
contract BurstAttackTest is RequestsFixture {
    uint96 private constant _BURST = 400e6;
    uint96 private constant _NET = 396e6;

    function setUp() public override {
        super.setUp();
        open(500e6);
        claim(_BURST);
    }

    function test_WithinTheEpoch_NothingLeaves() public {
        _expectNothing(0, MIN_STAKE / 2);
        channels.release(payee);
        nextEpoch();
        _expectNothing(0, MIN_STAKE / 2);
        channels.release(payee);

        _convict();

        vm.assertEq(token.balanceOf(arbiter), _NET + MIN_STAKE, "all of the burst and the stake");
        vm.assertEq(token.balanceOf(payee), RICH - MIN_STAKE, "the cheat has nothing of it");
    }

    function testFuzz_AfterSomeEpochs_AtMostHalfOfTheStakeEachHasLeft(uint8 epochs) public {
        uint256 passed = bound(epochs, 2, 9);
        uint256 out = 0;
        for (uint256 i = 1; i <= passed; ++i) {
            nextEpoch();
            if (i < 2 || out == _NET) continue;
            out += channels.release(payee);
        }

        uint256 most = (passed - 1) * MIN_STAKE / 2;
        vm.assertEq(out, most < _NET ? most : _NET, "what has left");
        _convict();

        uint256 taken = _NET - out + MIN_STAKE;
        vm.assertEq(token.balanceOf(arbiter), taken, "the rest of the burst and the stake");
        vm.assertEq(token.balanceOf(payee), RICH - MIN_STAKE + out, "the cheat has the first part");
    }

    /// @dev The first epoch in which anything leaves pays half of the stake; a verdict then takes all
    /// of it, so the cheat is worse off than before.
    function test_ConvictedInTheFirstEpochOfPayouts_TheCheatHasLost() public {
        uint256 before = token.balanceOf(payee) + MIN_STAKE;
        nextEpoch();
        nextEpoch();
        channels.release(payee);
        _convict();

        vm.assertLt(token.balanceOf(payee), before, "the cheat");
        vm.assertEq(before - token.balanceOf(payee), MIN_STAKE / 2, "half of its stake");
    }

    function test_MoreStakeForTheDay_RaisesTheCapByHalfOfItAndStays() public {
        nextEpoch();
        nextEpoch();
        vm.prank(payee);
        nodes.stake(300e6);

        vm.assertEq(channels.release(payee), 200e6, "half of the stake");
        vm.prank(payee);
        nodes.unbond(300e6);
        nextEpoch();
        vm.assertEq(channels.release(payee), MIN_STAKE / 2, "half of what is left");
        _convict();
        vm.prank(arbiter);
        nodes.slash(payee, 300e6);
        vm.assertEq(nodes.nodeOf(payee).unbonding, 0, "what it lent itself is lost");
    }

    function test_JailedNode_TakesNothingUntilItEnds() public {
        nextEpoch();
        nextEpoch();
        uint64 until = uint64(block.timestamp + UNBONDING);
        vm.prank(arbiter);
        nodes.jail(payee, until);
        (uint256 id, IRequests.Params memory params) = ask();

        _expectJailed(until);
        channels.release(payee);
        vm.expectRevert(abi.encodeWithSelector(IRequests.Requests_GatewayNotActive.selector, payee));
        fulfil(nodeKey, id, params);
        vm.prank(payee);
        nodes.unbond(MIN_STAKE);
        vm.warp(until - 1);
        _expectJailed(until);
        channels.release(payee);
        _convict();

        vm.assertEq(token.balanceOf(arbiter), _NET + MIN_STAKE, "all is taken");
        vm.assertEq(token.balanceOf(payee), RICH - MIN_STAKE, "the cheat has nothing of it");
    }

    function test_JailWithoutAVerdict_EndsAndTheMoneyIsThere() public {
        nextEpoch();
        nextEpoch();
        uint64 until = uint64(block.timestamp + UNBONDING);
        vm.prank(arbiter);
        nodes.jail(payee, until);
        vm.warp(until);

        vm.assertEq(channels.release(payee), MIN_STAKE / 2, "released");
        vm.assertTrue(nodes.isActive(payee), "active");
        vm.prank(payee);
        nodes.unbond(MIN_STAKE);
        vm.warp(block.timestamp + UNBONDING);
        vm.prank(payee);
        nodes.withdrawUnbonded();
        vm.assertEq(token.balanceOf(payee), RICH + MIN_STAKE / 2, "stake and earnings");
    }

    /// @dev A payer's deposit that was not claimed is never the arbiter's.
    function test_Verdict_LeavesPayersWhole() public {
        fund(stranger);
        vm.prank(stranger);
        channels.open(payee, signer, 50e6);
        _convict();
        vm.prank(payer);
        channels.exit(payee, signer);
        vm.prank(stranger);
        channels.exit(payee, signer);
        vm.warp(block.timestamp + EXIT_DELAY);
        vm.prank(payer);
        channels.withdraw(payee, signer);
        vm.prank(stranger);
        channels.withdraw(payee, signer);

        vm.assertEq(token.balanceOf(payer), RICH - _BURST, "the payer has its rest");
        vm.assertEq(token.balanceOf(stranger), RICH, "the other payer has all");
    }

    function _convict() private {
        vm.startPrank(arbiter);
        (uint96 maturing, uint96 mature) = channels.pendingOf(payee);
        if (maturing + mature != 0) channels.forfeit(payee);
        nodes.slash(payee, MIN_STAKE);
        vm.stopPrank();
    }

    function _expectNothing(uint96 mature, uint96 allowance) private {
        vm.expectRevert(
            abi.encodeWithSelector(
                IChannels.Channels_NothingToRelease.selector, payee, mature, allowance
            )
        );
    }

    function _expectJailed(uint64 until) private {
        vm.expectRevert(
            abi.encodeWithSelector(IChannels.Channels_PayeeJailed.selector, payee, until)
        );
    }
}
