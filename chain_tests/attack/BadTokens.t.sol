// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {Intake} from "../../contracts/libraries/Intake.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {ITestToken} from "../Fixture.sol";
import {RequestsFixture} from "../RequestsFixture.sol";
import {BlockingToken, CompliantToken, FeeToken, SilentToken} from "../mocks/Tokens.sol";

/// @notice Whole deployments over tokens that are not what they seem.
/// @dev Out of scope, as `IChannels` says: a token that rebases, or that begins to take fees when
/// money is already in, can hold back what is here, and no contract can help against its own token.
contract BadTokensAttackTest is RequestsFixture {
    uint256 private constant _POOR_KEY = 0x900D;

    // ---- fees on transfer

    function test_FeeOnTransfer_IsRefusedWhereverMoneyComesIn() public {
        FeeToken bad = new FeeToken();
        _deployOver(address(bad));
        open(5e6);
        bad.takeFees(true);

        _expectRefused(
            payer, address(channels), abi.encodeCall(IChannels.open, (payee, payer, 5e6))
        );
        _expectRefused(
            payer, address(channels), abi.encodeCall(IChannels.topUp, (payee, signer, 5e6))
        );
        _expectRefused(payee, address(nodes), abi.encodeCall(INodeRegistry.stake, (5e6)));
        IRequests.Order memory what = order();
        what.fee = 5e6;
        _expectRefused(payer, address(requests), abi.encodeCall(IRequests.request, (what, IDS)));
        _expectRefused(
            payer,
            address(requests),
            abi.encodeCall(IRequests.requestByCommitment, (what, "prompt", 3))
        );

        vm.assertEq(token.balanceOf(payer), RICH - 5e6, "the payer has lost nothing");
        vm.assertEq(token.balanceOf(payee), RICH - MIN_STAKE, "nor has the node");
        vm.assertEq(requests.requestCount(), 0, "nothing was asked");
    }

    function test_FeeOnTransfer_IsRefusedBySignatureToo() public {
        FeeToken bad = new FeeToken();
        _deployOver(address(bad));
        address poor = vm.addr(_POOR_KEY);
        token.mint(poor, RICH);
        bad.takeFees(true);

        IChannels.Permit memory permit = permitFor(_POOR_KEY, 5e6);
        _expectRefused(
            poor,
            address(channels),
            abi.encodeCall(IChannels.openWithPermit, (payee, signer, 5e6, permit))
        );
        IChannels.Authorization memory authorization =
            authorizationFor(_POOR_KEY, idOf(poor, signer), 5e6, "salt");
        bytes memory data = abi.encodeCall(
            IChannels.openWithAuthorization, (poor, payee, signer, 5e6, authorization)
        );
        _expectRefused(stranger, address(channels), data);
        bad.takeFees(false);
        vm.prank(stranger);
        channels.openWithAuthorization(poor, payee, signer, 5e6, authorization);
        bad.takeFees(true);
        authorization = authorizationFor(_POOR_KEY, idOf(poor, signer), 5e6, "more");
        data = abi.encodeCall(
            IChannels.topUpWithAuthorization, (poor, payee, signer, 5e6, authorization)
        );
        _expectRefused(stranger, address(channels), data);
        permit = permitFor(_POOR_KEY, 5e6);
        data = abi.encodeCall(IChannels.topUpWithPermit, (payee, signer, 5e6, permit));
        _expectRefused(poor, address(channels), data);

        vm.assertEq(token.balanceOf(poor), RICH - 5e6, "the payer has lost nothing");
    }

    // ---- a fallback that says yes

    function test_FallbackThatSaysYes_OpensNothing() public {
        deployOver(ITestToken(address(new CompliantToken())));
        fund(payer);
        IChannels.Authorization memory none;

        vm.expectRevert(abi.encodeWithSelector(Intake.Intake_WrongAmount.selector, 5e6, 0));
        vm.prank(stranger);
        channels.openWithAuthorization(payer, payee, signer, 5e6, none);

        vm.assertEq(slot().deposit, 0, "no channel in the payer's name");
        IChannels.Permit memory noPermit;
        vm.prank(payer);
        channels.openWithPermit(payee, signer, 5e6, noPermit);
        vm.assertEq(slot().deposit, 5e6, "the payer's own allowance still counts");
    }

    // ---- no answer

    function test_SilentToken_ServesAWholeLife() public {
        _deployOver(address(new SilentToken()));
        open(5e6);
        claim(2e6);
        (uint256 id, IRequests.Params memory params) = ask();
        fulfil(nodeKey, id, params);
        nextEpoch();
        nextEpoch();

        channels.release(payee);
        channels.burn(payee);
        vm.prank(payer);
        channels.exit(payee, signer);
        vm.warp(block.timestamp + EXIT_DELAY);
        vm.prank(payer);
        channels.withdraw(payee, signer);

        vm.assertEq(token.balanceOf(payer), RICH - 3e6, "payer");
        vm.assertEq(token.balanceOf(payee), RICH - MIN_STAKE + 2_970_000, "payee");
        vm.assertEq(token.balanceOf(BURN), 30_000, "burned");
        vm.assertEq(token.balanceOf(address(channels)), 0, "nothing is left");
    }

    // ---- blocked accounts

    function test_BlockedPayer_HoldsUpNobodyElse() public {
        BlockingToken bad = new BlockingToken();
        _deployOver(address(bad));
        fund(stranger);
        open(5e6);
        vm.prank(stranger);
        channels.open(payee, signer, 5e6);
        _exit(payer);
        _exit(stranger);
        (uint256 mine, IRequests.Params memory myParams) = ask();
        (uint256 fulfilled, IRequests.Params memory fulfilledParams) = ask();
        (uint256 theirs, IRequests.Params memory theirParams) = ask(stranger, order());
        bad.block_(payer, true);

        channels.claim(payee, bytes.concat(row(1e6), row(stranger, SIGNER_KEY, 1e6, 1, "root")));
        fulfil(nodeKey, fulfilled, fulfilledParams);
        vm.warp(START + EXIT_DELAY);
        bytes memory blocked = abi.encodeWithSelector(BlockingToken.Blocked.selector, payer);
        vm.expectRevert(blocked);
        requests.refund(mine, myParams);
        vm.expectRevert(blocked);
        vm.prank(payer);
        channels.withdraw(payee, signer);
        requests.refund(theirs, theirParams);
        vm.prank(stranger);
        channels.withdraw(payee, signer);

        vm.assertEq(token.balanceOf(stranger), RICH - 1e6, "the other payer");
        vm.assertEq(channels.accountOf(payee).earned, 3e6, "the node");
        bad.block_(payer, false);
        requests.refund(mine, myParams);
        vm.prank(payer);
        channels.withdraw(payee, signer);
        vm.assertEq(token.balanceOf(payer), RICH - 2e6, "once it is free, all is there");
    }

    function test_BlockedPayee_HoldsUpNoPayer() public {
        BlockingToken bad = new BlockingToken();
        _deployOver(address(bad));
        open(5e6);
        claim(2e6);
        nextEpoch();
        nextEpoch();
        _exit(payer);
        bad.block_(payee, true);

        vm.expectRevert(abi.encodeWithSelector(BlockingToken.Blocked.selector, payee));
        channels.release(payee);
        claim(3e6);
        vm.warp(block.timestamp + EXIT_DELAY);
        vm.prank(payer);
        channels.withdraw(payee, signer);

        vm.assertEq(token.balanceOf(payer), RICH - 3e6, "payer");
        vm.prank(arbiter);
        channels.forfeit(payee);
        vm.assertEq(token.balanceOf(arbiter), 2_970_000, "the arbiter can still take it");
    }

    function _deployOver(address bad) private {
        deployOver(ITestToken(bad));
        fund(payer);
        fund(payee);
        join(payee, NODE_KEY, MIN_STAKE);
    }

    function _exit(address from) private {
        vm.prank(from);
        channels.exit(payee, signer);
    }

    function _expectRefused(address from, address target, bytes memory data) private {
        vm.prank(from);
        (bool success, bytes memory reason) = target.call(data);

        vm.assertFalse(success, "refused");
        vm.assertEq(
            reason,
            abi.encodeWithSelector(Intake.Intake_WrongAmount.selector, 5e6, 4_950_000),
            "reason"
        );
    }
}
