// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {IReputation} from "../../contracts/interfaces/IReputation.sol";
import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {ITestToken} from "../Fixture.sol";
import {Vm} from "../Vm.sol";
import {Market} from "./handlers/Market.sol";
import {Book} from "./stores/Book.sol";

/// @notice The list of README.md; numbers are its.
contract MarketInvariants {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint256 private constant _FEE_BPS = 100;
    uint256 private constant _EPOCH = 600;

    Market private _market;
    ITestToken private _token;
    INodeRegistry private _nodes;
    IChannels private _channels;
    IRequests private _requests;
    IReputation private _reputation;

    function setUp() public {
        _market = new Market();
        (_token, _nodes, _channels, _requests, _reputation) = _market.world();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_market);
    }

    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector({addr: address(_market), selectors: _actions()});
    }

    /// @dev One function, so that one campaign serves all rules.
    function invariant_AllRulesHold() public view {
        _channelsHoldsWhatItOwes();
        _nodeRegistryHoldsAllStake();
        _requestsHoldsOpenFees();
        _noVoucherPaysTwice();
        _noRowBlocksABatch();
        _nothingMovesBack();
    }

    /// @dev 14: at the end of every run everybody can leave with all that is theirs.
    function afterInvariant() external {
        _market.everybodyLeaves();
        _onlySurplusRemains();
    }

    /// @dev Every action succeeds somewhere in one long life, and the book balances after each.
    function test_EveryActionHappens() public {
        bytes4[] memory all = _actions();
        bytes32 dice = keccak256("every action");
        for (uint256 i = 0; i < 600; ++i) {
            dice = keccak256(abi.encode(dice));
            bytes4 action = all[uint256(dice) % all.length];
            (bool ok,) = address(_market)
                .call(
                    abi.encodePacked(
                        action, _below(dice, 1, 65_536), _below(dice, 2, 256), _below(dice, 3, 256)
                    )
                );
            vm.assertTrue(ok, "an action reverted");
        }
        invariant_AllRulesHold();
        string[20] memory names = [
            "put",
            "claim",
            "replay",
            "noise",
            "exit",
            "withdraw",
            "close",
            "release",
            "burn",
            "forfeit",
            "stake",
            "unbond",
            "withdrawUnbonded",
            "punish",
            "request",
            "fulfil",
            "refund",
            "cancel",
            "donate",
            "wait"
        ];
        for (uint256 i = 0; i < names.length; ++i) {
            vm.assertTrue(_market.done(bytes32(bytes(names[i]))) != 0, names[i]);
        }
        _market.everybodyLeaves();
        _onlySurplusRemains();
    }

    function _below(bytes32 dice, uint256 salt, uint256 end) private pure returns (uint256) {
        return uint256(keccak256(abi.encode(dice, salt))) % end;
    }

    /// @dev 1, 4, 5.
    function _channelsHoldsWhatItOwes() private view {
        uint256 owed = 0;
        uint256 claimed = 0;
        for (uint256 i = 0; i < _market.lineCount(); ++i) {
            IChannels.Channel memory slot = _market.slotOf(i);
            (uint256 putIn, uint256 cameBack,) = _market.line(i);
            owed += slot.deposit - slot.claimed;
            claimed += slot.claimed;
            vm.assertEq(putIn, slot.deposit + cameBack, "4: put in");
        }
        uint256 earned = 0;
        uint256 credited = 0;
        address[2] memory payees = _market.payees();
        for (uint256 i = 0; i < 2; ++i) {
            IChannels.Account memory account = _channels.accountOf(payees[i]);
            (uint96 maturing, uint96 mature) = _channels.pendingOf(payees[i]);
            uint256 unpaid = account.earned - account.fee - account.released - account.forfeited;
            vm.assertEq(uint256(maturing) + mature, unpaid, "1: pending is what was not paid");
            vm.assertGe(account.fee * 10_000, account.earned * _FEE_BPS, "5: fee's lower bound");
            vm.assertLe(account.fee, account.earned, "5: fee's upper bound");
            vm.assertLe(_reputation.scoreOf(payees[i]), account.fee, "5: score");
            owed += unpaid + account.fee - account.burned;
            earned += account.earned;
            credited += _market.credited(payees[i]);
        }
        vm.assertEq(earned, claimed + credited, "5: earned");
        uint256 surplus = _token.balanceOf(address(_channels)) - owed;
        vm.assertEq(surplus, _market.donated(address(_channels)), "1: surplus");
    }

    /// @dev 2, 11.
    function _nodeRegistryHoldsAllStake() private view {
        uint256 owed = 0;
        uint256 listed = 0;
        address[2] memory payees = _market.payees();
        for (uint256 i = 0; i < 2; ++i) {
            INodeRegistry.Node memory node = _nodes.nodeOf(payees[i]);
            owed += uint256(node.stake) + node.unbonding;
            if (node.stake >= _nodes.minStake()) ++listed;
        }
        vm.assertEq(_nodes.nodeCount(), listed, "11: listed");
        for (uint256 i = 0; i < listed; ++i) {
            (uint96 stake,) = _nodes.bondOf(_nodes.nodeAt(i));
            vm.assertGe(stake, _nodes.minStake(), "11: a listed node's stake");
        }
        uint256 surplus = _token.balanceOf(address(_nodes)) - owed;
        vm.assertEq(surplus, _market.donated(address(_nodes)), "2: surplus");
    }

    /// @dev 3, 12.
    function _requestsHoldsOpenFees() private view {
        uint256 owed = 0;
        for (uint256 i = 0; i < _market.askCount(); ++i) {
            Book.Ask memory ask = _market.ask(i);
            owed += ask.params.fee;
            bytes32 hash = keccak256(abi.encode(ask.params));
            vm.assertEq(_requests.openRequest(ask.id), hash, "12: open");
        }
        for (uint256 i = 0; i < _market.settledCount(); ++i) {
            vm.assertEq(_requests.openRequest(_market.settled(i)), 0, "12: settled");
        }
        uint256 surplus = _token.balanceOf(address(_requests)) - owed;
        vm.assertEq(surplus, _market.donated(address(_requests)), "3: surplus");
    }

    /// @dev 6.
    function _noVoucherPaysTwice() private view {
        vm.assertEq(_market.replayed(), 0, "6: a claim paid what it should not");
        for (uint256 i = 0; i < _market.lineCount(); ++i) {
            (,, uint256 best) = _market.line(i);
            vm.assertEq(_market.slotOf(i).claimed, best, "6: claimed");
        }
    }

    /// @dev 13.
    function _noRowBlocksABatch() private view {
        vm.assertEq(_market.blocked(), 0, "13: a row kept another from landing");
    }

    /// @dev 14.
    function _onlySurplusRemains() private view {
        address[3] memory places = [address(_channels), address(_nodes), address(_requests)];
        for (uint256 i = 0; i < 3; ++i) {
            vm.assertEq(
                _token.balanceOf(places[i]), _market.donated(places[i]), "14: money is stuck"
            );
        }
    }

    /// @dev 7 to 10.
    function _nothingMovesBack() private view {
        vm.assertEq(_market.fallenTotals(), 0, "7, 9: a total fell");
        vm.assertEq(_market.movedExits(), 0, "8: an exit moved");
        address[2] memory payees = _market.payees();
        uint256 epoch = block.timestamp / _EPOCH;
        for (uint256 i = 0; i < 2; ++i) {
            vm.assertLe(
                _market.paidIn(payees[i], epoch),
                _market.highestStakeIn(payees[i], epoch) / 2,
                "10: paid in this epoch"
            );
        }
    }

    /// @dev What makes money move, and time, more often than the rest.
    function _actions() private pure returns (bytes4[] memory all) {
        bytes4[18] memory actions = [
            Market.openOrTopUp.selector,
            Market.openOrTopUp.selector,
            Market.claimNew.selector,
            Market.claimNew.selector,
            Market.claimNew.selector,
            Market.replay.selector,
            Market.claimAmongNoise.selector,
            Market.exit.selector,
            Market.withdraw.selector,
            Market.close.selector,
            Market.release.selector,
            Market.burn.selector,
            Market.forfeit.selector,
            Market.request.selector,
            Market.settle.selector,
            Market.donate.selector,
            Market.wait.selector,
            Market.wait.selector
        ];
        bytes4[4] memory stakes = [
            Market.stake.selector,
            Market.unbond.selector,
            Market.withdrawUnbonded.selector,
            Market.punish.selector
        ];
        all = new bytes4[](actions.length + stakes.length);
        for (uint256 i = 0; i < all.length; ++i) {
            all[i] = i < actions.length ? actions[i] : stakes[i - actions.length];
        }
    }
}
