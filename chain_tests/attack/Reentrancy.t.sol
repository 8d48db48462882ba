// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {ITestToken} from "../Fixture.sol";
import {RequestsFixture} from "../RequestsFixture.sol";
import {Intruder} from "../mocks/Intruder.sol";
import {HookToken} from "../mocks/Tokens.sol";

/// @notice Every call that moves tokens is interrupted by every call that changes state, before and
/// after the money moves and in the callback. Whatever lands, the intruder owns no more than before,
/// the others own what they had, and every contract holds what its books say.
contract ReentrancyAttackTest is RequestsFixture {
    struct Step {
        address from;
        address target;
        bytes data;
    }

    uint256 private constant _LEAVING_KEY = 0xB00;
    uint256 private constant _FRESH_KEY = 0xC00;
    address private constant _ALICE = address(0xA11);
    address private constant _BOB = address(0xB0B);
    uint96 private constant _FEE = 1e6;
    uint96 private constant _GIFT = 4e6;

    Intruder private intruder;
    Step[] private outer;
    Step[] private inner;

    /// @dev The intruder is payer and payee at once and owns the node; all is ripe: an exit, mature
    /// money, unbonded stake, one request past its deadline and one past its exclusive period.
    function setUp() public override {
        vm.warp(START);
        (signer, nodeKey) = (vm.addr(SIGNER_KEY), vm.addr(NODE_KEY));
        HookToken hooked = new HookToken();
        deployOver(ITestToken(address(hooked)));
        intruder = new Intruder();
        (payer, payee) = (address(intruder), address(intruder));
        fund(payer);
        fund(_ALICE);
        fund(_BOB);
        join(_BOB, OTHER_NODE_KEY, MIN_STAKE);
        vm.prank(_ALICE);
        channels.open(_BOB, signer, 7e6);

        join(payee, NODE_KEY, MIN_STAKE + 50e6);
        open(50e6);
        claim(20e6);
        vm.startPrank(payer);
        channels.open(payee, vm.addr(_LEAVING_KEY), 10e6);
        channels.exit(payee, vm.addr(_LEAVING_KEY));
        nodes.unbond(50e6);
        vm.stopPrank();
        (uint256 stale, IRequests.Params memory staleParams) = ask(payer, _order(200_000));
        vm.warp(START + UNBONDING + EPOCH);
        (uint256 fresh, IRequests.Params memory freshParams) = ask(payer, _order(1_000_000));
        vm.warp(block.timestamp + 301);
        _planOuter(stale, staleParams, fresh, freshParams);
        _planInner();
        hooked.watch(intruder);
    }

    function test_HookBeforeTheMoneyMoves_GainsNothing() public {
        _interruptAll(Intruder.Moment.BeforeTransfer, outer.length);
    }

    function test_HookAfterTheMoneyMoved_GainsNothing() public {
        _interruptAll(Intruder.Moment.AfterTransfer, outer.length);
    }

    function test_Callback_GainsNothing() public {
        // The first three end a request.
        _interruptAll(Intruder.Moment.Callback, 3);
    }

    function _interruptAll(Intruder.Moment moment, uint256 count) private {
        uint256 landed = 0;
        for (uint256 i = 0; i < count; ++i) {
            for (uint256 j = 0; j < inner.length; ++j) {
                uint256 snapshot = vm.snapshotState();
                landed += _interrupt(moment, outer[i], inner[j]);
                vm.revertToState(snapshot);
            }
        }
        vm.assertTrue(landed > count, "some calls land, or nothing is tried here");
    }

    function _interrupt(Intruder.Moment moment, Step memory first, Step memory second)
        private
        returns (uint256)
    {
        (uint256 mine, uint256 others) = (_wealth(), _othersWealth());
        intruder.arm(moment, second.target, second.data);

        vm.prank(first.from);
        (bool success,) = first.target.call(first.data);

        // Of a call that reverted nothing is left, not even this count.
        if (success) vm.assertEq(intruder.struck(), 1, "it called in");
        vm.assertLe(_wealth(), mine, "the intruder's wealth");
        vm.assertEq(_othersWealth(), others, "the others' wealth");
        _assertBooksAreBacked();
        return intruder.landed();
    }

    function _wealth() private view returns (uint256) {
        INodeRegistry.Node memory node = nodes.nodeOf(payee);
        (uint96 maturing, uint96 mature) = channels.pendingOf(payee);
        return token.balanceOf(payer) + _rests() + maturing + mature + node.stake + node.unbonding
            + _openRequests() * _FEE;
    }

    function _othersWealth() private view returns (uint256) {
        IChannels.Channel memory hers = channels.channel(channels.channelId(_ALICE, _BOB, signer));
        return token.balanceOf(_ALICE) + hers.deposit - hers.claimed + token.balanceOf(_BOB)
            + nodes.nodeOf(_BOB).stake;
    }

    function _assertBooksAreBacked() private view {
        IChannels.Account memory account = channels.accountOf(payee);
        (uint96 maturing, uint96 mature) = channels.pendingOf(payee);
        uint256 owed = 7e6 + _rests() + maturing + mature + account.fee - account.burned;
        uint256 held = token.balanceOf(address(channels));
        vm.assertTrue(held == owed || held == owed + _GIFT, "Channels");
        INodeRegistry.Node memory node = nodes.nodeOf(payee);
        owed = uint256(MIN_STAKE) + node.stake + node.unbonding;
        vm.assertEq(token.balanceOf(address(nodes)), owed, "NodeRegistry");
        vm.assertEq(token.balanceOf(address(requests)), _openRequests() * _FEE, "Requests");
    }

    /// @dev What is left in the intruder's channels.
    function _rests() private view returns (uint256 rests) {
        uint256[3] memory keys = [SIGNER_KEY, _LEAVING_KEY, _FRESH_KEY];
        for (uint256 i = 0; i < keys.length; ++i) {
            IChannels.Channel memory its = channels.channel(idOf(payer, vm.addr(keys[i])));
            rests += its.deposit - its.claimed;
        }
    }

    function _openRequests() private view returns (uint256 count) {
        for (uint256 id = 1; id <= requests.requestCount(); ++id) {
            if (requests.openRequest(id) != 0) ++count;
        }
    }

    function _planOuter(
        uint256 stale,
        IRequests.Params memory staleParams,
        uint256 fresh,
        IRequests.Params memory freshParams
    ) private {
        bytes memory data = abi.encodeCall(IRequests.fulfil, (fresh, freshParams, RECEIPT, OUTPUT));
        outer.push(Step(nodeKey, address(requests), data));
        _plan(address(requests), abi.encodeCall(IRequests.cancel, (fresh, freshParams)));
        _plan(address(requests), abi.encodeCall(IRequests.refund, (stale, staleParams)));
        _plan(address(requests), abi.encodeCall(IRequests.request, (_order(0), IDS)));
        data = abi.encodeCall(IRequests.requestByCommitment, (_order(0), "prompt", 3));
        _plan(address(requests), data);
        address leaving = vm.addr(_LEAVING_KEY);
        address fresher = vm.addr(_FRESH_KEY);
        IChannels.Permit memory none;
        _plan(address(channels), abi.encodeCall(IChannels.open, (payee, fresher, 3e6)));
        data = abi.encodeCall(IChannels.openWithPermit, (payee, fresher, 3e6, none));
        _plan(address(channels), data);
        _plan(address(channels), abi.encodeCall(IChannels.topUp, (payee, signer, 2e6)));
        data = abi.encodeCall(IChannels.topUpWithPermit, (payee, signer, 2e6, none));
        _plan(address(channels), data);
        _plan(address(channels), abi.encodeCall(IChannels.withdraw, (payee, leaving)));
        _plan(address(channels), _closing());
        _plan(address(channels), abi.encodeCall(IChannels.release, (payee)));
        _plan(address(channels), abi.encodeCall(IChannels.burn, (payee)));
        _plan(address(nodes), abi.encodeCall(INodeRegistry.stake, (5e6)));
        _plan(address(nodes), abi.encodeCall(INodeRegistry.withdrawUnbonded, ()));
        data = abi.encodeCall(IChannels.forfeit, (payee));
        outer.push(Step(arbiter, address(channels), data));
        data = abi.encodeCall(INodeRegistry.slash, (payee, 60e6));
        outer.push(Step(arbiter, address(nodes), data));
    }

    /// @dev All of the outer calls, though some are refused to the intruder, and what moves no money.
    function _planInner() private {
        for (uint256 i = 0; i < outer.length; ++i) {
            inner.push(outer[i]);
        }
        bytes memory rows = row(payer, SIGNER_KEY, 30e6, 1, "root");
        _also(address(channels), abi.encodeCall(IChannels.claim, (payee, rows)));
        _also(address(channels), abi.encodeCall(IChannels.exit, (payee, signer)));
        _also(address(channels), abi.encodeCall(IChannels.credit, (payee, 1e6)));
        _also(address(nodes), abi.encodeCall(INodeRegistry.unbond, (1e6)));
        _also(address(nodes), abi.encodeCall(INodeRegistry.setRoles, (2)));
        _also(address(nodes), abi.encodeCall(INodeRegistry.jail, (payee, 0)));
        _also(address(nodes), abi.encodeCall(INodeRegistry.revokeServiceKey, (nodeKey)));
        // A gift in the middle of another transfer.
        _also(address(token), abi.encodeCall(token.transfer, (address(channels), _GIFT)));
    }

    function _closing() private returns (bytes memory) {
        address kept = signer;
        signer = vm.addr(_LEAVING_KEY);
        (bytes32 r, bytes32 vs) = consent(NODE_KEY, 0, uint32(START + EXIT_DELAY));
        bytes memory data = abi.encodeCall(IChannels.close, (payer, payee, signer, r, vs));
        signer = kept;
        return data;
    }

    /// @dev A callback can only end a request that itself calls back with much less gas.
    function _order(uint32 callbackGas) private view returns (IRequests.Order memory what) {
        what = order();
        what.callbackGas = callbackGas;
    }

    function _plan(address target, bytes memory data) private {
        outer.push(Step(payer, target, data));
    }

    function _also(address target, bytes memory data) private {
        inner.push(Step(payer, target, data));
    }
}
