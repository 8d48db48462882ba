// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {ReferenceChannels} from "../reference/ReferenceChannels.sol";
import {Symbolic} from "./Symbolic.sol";

/// @notice A claim of one to three rows, in any state, compared with the reference.
contract ClaimSymbolic is Symbolic {
    struct Line {
        bytes32 id;
        uint256 deposit;
        uint256 claimed;
        uint256 cumulative;
    }

    ReferenceChannels private _reference;

    function setUp() public override {
        super.setUp();
        _reference = new ReferenceChannels(0);
        svm.enableSymbolicStorage(address(_reference));
    }

    /// @dev The rule as used below is the reference's.
    function check_Rule_IsTheReferences(bytes32 id, uint96 cumulative) external {
        uint256 deposit = _reference.deposit(id);
        uint256 claimed = _reference.claimed(id);
        uint256 next = _rule(deposit, claimed, cumulative);
        uint256 increase = _reference.take(id, cumulative);
        unchecked {
            hold(increase == next - claimed, "increase");
        }
        hold(_reference.claimed(id) == next, "claimed");
    }

    /// @dev Any signature at all, and no assumption on the channel.
    function check_OneRow(address payee, Row memory row, uint32 time) external {
        moveTo(time);
        ChannelId id = idOf(payee, row);
        IChannels.Channel memory expected = channels.channel(id);
        uint256 next = _rule(expected.deposit, expected.claimed, row.cumulative);
        uint256 increase;
        unchecked {
            increase = next - expected.claimed;
        }

        uint256 earned = channels.claim(payee, pack(row));

        expected.jobs = uint32(pick(increase != 0, row.jobs, expected.jobs));
        expected.claimed = uint96(next);
        bool same = _same(channels.channel(id), expected);
        hold(both(earned == increase, same), "the row and its channel");
    }

    function check_OneRow_LeavesOthers(address payee, Row memory row, uint32 time, ChannelId other)
        external
    {
        moveTo(time);
        vm.assume(ChannelId.unwrap(idOf(payee, row)) != ChannelId.unwrap(other));
        IChannels.Channel memory before = channels.channel(other);

        channels.claim(payee, pack(row));

        hold(_same(channels.channel(other), before), "another channel");
    }

    /// @dev As long as what one payee ever earns fits 96 bits.
    function check_OneRow_NeverReverts(address payee, Row memory row, uint32 time) external {
        moveTo(time);
        assumeLow(row);
        IChannels.Channel memory slot = channels.channel(idOf(payee, row));
        unchecked {
            uint256 next = _rule(slot.deposit, slot.claimed, row.cumulative);
            _assumeAccount(payee, next - slot.claimed);
        }

        (bool done,) = address(channels).call(abi.encodeCall(IChannels.claim, (payee, pack(row))));

        hold(done, "done");
    }

    function check_ThreeRows_OfOneChannel(address payee, Row[3] memory rows, uint32 time) external {
        moveTo(time);
        _assumeOneBucket(payee);
        Line memory line = _line(payee, rows[0]);
        uint256 best = line.claimed;
        for (uint256 i = 0; i < 3; ++i) {
            vm.assume(line.id == _line(payee, rows[i]).id);
            uint256 cumulative = rows[i].cumulative;
            best = pick(both(cumulative <= line.deposit, cumulative > best), cumulative, best);
        }

        uint256 earned =
            channels.claim(payee, bytes.concat(pack(rows[0]), pack(rows[1]), pack(rows[2])));

        uint256 claimed = channels.channel(ChannelId.wrap(line.id)).claimed;
        unchecked {
            hold(both(claimed == best, earned == best - line.claimed), "the highest, once");
        }
    }

    /// @dev Which bucket the sum goes to is for Account; one spares two thirds of the paths.
    function _assumeOneBucket(address payee) private view {
        vm.assume(channels.accountOf(payee).epoch == epochNow());
    }

    function _assumeAccount(address payee, uint256 sum) private view {
        IChannels.Account memory account = channels.accountOf(payee);
        vm.assume(isSound(account));
        assumeRoom(account, sum);
    }

    function _line(address payee, Row memory row) private view returns (Line memory line) {
        assumeLow(row);
        address signer = signerOf(payee, row);
        vm.assume(signer != address(0));
        ChannelId id = channels.channelId(row.payer, payee, signer);
        IChannels.Channel memory slot = channels.channel(id);
        line = Line(ChannelId.unwrap(id), slot.deposit, slot.claimed, row.cumulative);
    }

    function _rule(uint256 deposit, uint256 claimed, uint256 cumulative)
        private
        pure
        returns (uint256)
    {
        return pick(both(cumulative > claimed, cumulative <= deposit), cumulative, claimed);
    }

    function _same(IChannels.Channel memory a, IChannels.Channel memory b)
        private
        pure
        returns (bool)
    {
        return both(
            both(a.deposit == b.deposit, a.claimed == b.claimed),
            both(a.exitAt == b.exitAt, a.jobs == b.jobs)
        );
    }
}
