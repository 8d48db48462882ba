// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {Symbolic} from "./Symbolic.sol";

/// @notice A channel is opened, left, closed and opened again, from any state of it.
contract LifeSymbolic is Symbolic {
    struct Party {
        address payer;
        address payee;
        address signer;
    }

    function check_Open(Party memory who, uint96 amount) external {
        (ChannelId id, IChannels.Channel memory expected) = _any(who);
        uint256 held = _held();

        vm.prank(who.payer);
        channels.open(who.payee, who.signer, amount);

        hold(expected.deposit == expected.claimed && expected.exitAt == 0, "nothing was left");
        unchecked {
            expected.deposit += amount;
        }
        hold(both(amount != 0, expected.deposit > expected.claimed), "no overflow");
        hold(both(_is(id, expected), _heldNow(held + amount)), "deposit");
    }

    function check_TopUp(Party memory who, uint96 amount) external {
        (ChannelId id, IChannels.Channel memory expected) = _any(who);
        uint256 held = _held();

        vm.prank(who.payer);
        channels.topUp(who.payee, who.signer, amount);

        hold(expected.deposit != 0 && expected.exitAt == 0, "open, and no exit runs");
        unchecked {
            expected.deposit += amount;
        }
        hold(both(amount != 0, expected.deposit > amount), "no overflow");
        hold(both(_is(id, expected), _heldNow(held + amount)), "deposit");
    }

    function check_Exit(Party memory who, uint32 time) external {
        moveTo(time);
        (ChannelId id, IChannels.Channel memory expected) = _any(who);

        vm.prank(who.payer);
        channels.exit(who.payee, who.signer);

        hold(both(expected.exitAt == 0, expected.deposit != expected.claimed), "something is left");
        unchecked {
            expected.exitAt = time + EXIT_DELAY;
        }
        hold(both(_is(id, expected), expected.exitAt > time), "the clock runs");
    }

    function check_Withdraw(Party memory who, uint32 time) external {
        moveTo(time);
        (ChannelId id, IChannels.Channel memory expected) = _any(who);
        uint256 rest = expected.deposit - expected.claimed;
        (uint256 kept, uint256 held) = _purse(who.payer);

        vm.prank(who.payer);
        channels.withdraw(who.payee, who.signer);

        hold(both(expected.exitAt != 0, time >= expected.exitAt), "due");
        (expected.deposit, expected.exitAt) = (expected.claimed, 0);
        hold(both(_is(id, expected), _paid(who.payer, kept, held, rest)), "the rest");
    }

    /// @dev Exit, a claim while it runs, withdrawal: claimed and paid back add up to the deposit.
    function check_Exit_ClaimStillCounts(address payee, Row memory row, uint32[3] memory times)
        external
    {
        moveTo(times[0]);
        assumeLow(row);
        Party memory who = Party(row.payer, payee, signerOf(payee, row));
        (ChannelId id, IChannels.Channel memory before) = _any(who);
        vm.prank(who.payer);
        channels.exit(payee, who.signer);
        moveTo(times[1]);
        uint256 earned = channels.claim(payee, pack(row));
        moveTo(times[2]);
        (uint256 kept, uint256 held) = _purse(who.payer);

        vm.prank(who.payer);
        channels.withdraw(payee, who.signer);

        IChannels.Channel memory slot = channels.channel(id);
        bool ended = both(slot.deposit == slot.claimed, slot.exitAt == 0);
        unchecked {
            ended = both(ended, earned == slot.claimed - before.claimed);
            ended = both(ended, times[2] >= uint256(times[0]) + EXIT_DELAY);
            uint256 rest = before.deposit - slot.claimed;
            hold(both(ended, _paid(who.payer, kept, held, rest)), "the rest");
        }
    }

    function check_Close(Party memory who, bytes32 r, bytes32 vs) external {
        (ChannelId id, IChannels.Channel memory expected) = _any(who);
        uint256 rest = expected.deposit - expected.claimed;
        (uint256 kept, uint256 held) = _purse(who.payer);
        bool agreed = _agreed(who, expected, r, vs);

        channels.close(who.payer, who.payee, who.signer, r, vs);

        hold(both(expected.exitAt != 0, agreed), "the payee signed this very state");
        (expected.deposit, expected.exitAt) = (expected.claimed, 0);
        hold(both(_is(id, expected), _paid(who.payer, kept, held, rest)), "the rest");
    }

    /// @dev A voucher that was paid pays nothing after the channel ended and was opened again.
    function check_Reopen_OldVoucherPaysNothing(
        address payee,
        Row memory row,
        uint32[2] memory times,
        uint96 amount
    ) external {
        moveTo(times[0]);
        assumeLow(row);
        address signer = signerOf(payee, row);
        uint256 earned = channels.claim(payee, pack(row));
        vm.assume(earned != 0);
        moveTo(times[1]);
        vm.prank(row.payer);
        channels.withdraw(payee, signer);
        vm.prank(row.payer);
        channels.open(payee, signer, amount);

        hold(channels.claim(payee, pack(row)) == 0, "again");
    }

    // ---- what every check does

    function _any(Party memory who)
        private
        view
        returns (ChannelId id, IChannels.Channel memory slot)
    {
        id = channels.channelId(who.payer, who.payee, who.signer);
        slot = channels.channel(id);
        vm.assume(isSound(slot));
        vm.assume(both(who.payer != address(channels), who.payer != address(0)));
    }

    function _is(ChannelId id, IChannels.Channel memory a) private view returns (bool) {
        IChannels.Channel memory b = channels.channel(id);
        return both(
            both(a.deposit == b.deposit, a.claimed == b.claimed),
            both(a.exitAt == b.exitAt, a.jobs == b.jobs)
        );
    }

    function _agreed(Party memory who, IChannels.Channel memory slot, bytes32 r, bytes32 vs)
        private
        view
        returns (bool)
    {
        bytes32 digest = channels.closeDigest(
            who.payer, who.payee, who.signer, slot.claimed, slot.exitAt
        );
        (address owner,, uint48 revokedAt) = nodes.serviceKey(recover(digest, r, vs));
        return both(owner == who.payee, revokedAt == 0);
    }

    function _held() private view returns (uint256 held) {
        held = token.balanceOf(address(channels));
        vm.assume(held <= type(uint128).max);
    }

    function _heldNow(uint256 held) private view returns (bool) {
        return token.balanceOf(address(channels)) == held;
    }

    /// @dev No balance of a token overflows.
    function _purse(address owner) private view returns (uint256 kept, uint256 held) {
        (kept, held) = (token.balanceOf(owner), token.balanceOf(address(channels)));
        vm.assume(kept <= type(uint128).max);
    }

    function _paid(address to, uint256 kept, uint256 held, uint256 amount)
        private
        view
        returns (bool)
    {
        unchecked {
            return both(token.balanceOf(to) == kept + amount, _heldNow(held - amount));
        }
    }
}
