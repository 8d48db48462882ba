// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {ReferenceChannels} from "../reference/ReferenceChannels.sol";
import {Symbolic} from "./Symbolic.sol";

/// @notice What one payee earned and where it is, under any fee, from any sound state.
contract AccountSymbolic is Symbolic {
    struct Due {
        uint256 stake;
        uint256 jailedUntil;
        uint256 mature;
        uint256 used;
        uint256 amount;
    }

    struct Purse {
        address owner;
        uint256 kept;
        uint256 held;
    }

    function terms() internal override returns (uint32, uint256) {
        uint256 fee = svm.createUint(16, "feeBps");
        vm.assume(fee <= 1000);
        return (512, fee);
    }

    /// @dev earned = fee + released + forfeited + maturing + mature, whenever one looks.
    function check_Pending(address payee, uint32 time) external {
        moveTo(time);
        IChannels.Account memory account = _any(payee, 0);

        (bool done, bytes memory answer) =
            address(channels).call(abi.encodeCall(IChannels.pendingOf, (payee)));

        hold(done, "seen without a revert");
        (uint256 early, uint256 ripe) = abi.decode(answer, (uint256, uint256));
        unchecked {
            bool split = both(early == maturing(account), ripe == unreleased(account) - early);
            hold(both(split, early <= unreleased(account)), "all that is not paid is pending");
        }
    }

    /// @dev Time alone moves money from maturing to mature and does nothing else.
    function check_Time(address payee, uint32 time, uint32 later) external {
        moveTo(time);
        IChannels.Account memory account = _any(payee, 0);
        uint256 early = maturing(account);
        moveTo(later);

        hold(both(isSound(account), maturing(account) <= early), "one way");
    }

    function check_Credit(address payee, uint96 amount, uint32 time) external {
        moveTo(time);
        IChannels.Account memory before = _any(payee, amount);
        vm.assume(amount != 0);
        knowTheFee(amount);

        vm.prank(REQUESTS);
        channels.credit(payee, amount);

        _assertBooked(payee, before, amount, 1);
    }

    function check_Claim_OneRow(address payee, Row memory row, uint32 time) external {
        moveTo(time);
        IChannels.Account memory before = channels.accountOf(payee);
        vm.assume(isSound(before));
        assumeLow(row);

        uint256 sum = channels.claim(payee, pack(row));

        knowTheFee(sum);
        _assertBooked(payee, before, sum, pick(sum == 0, 0, 1));
    }

    function check_Claim_TwoRows(address payee, Row[2] memory rows, uint32 time) external {
        moveTo(time);
        IChannels.Account memory before = channels.accountOf(payee);
        vm.assume(isSound(before));
        vm.assume(before.epoch == epochNow());
        for (uint256 i = 0; i < 2; ++i) {
            assumeLow(rows[i]);
            vm.assume(signerOf(payee, rows[i]) != address(0));
        }

        uint256 sum = channels.claim(payee, bytes.concat(pack(rows[0]), pack(rows[1])));

        knowTheFee(sum);
        unchecked {
            uint64 count = channels.accountOf(payee).rows - before.rows;
            vm.assume(count <= 2);
            _assertBooked(payee, before, sum, count);
        }
    }

    function check_Burn(address payee, uint32 time) external {
        moveTo(time);
        IChannels.Account memory account = _any(payee, 0);
        Purse memory purse = _purse(BURN);

        uint256 amount = channels.burn(payee);

        unchecked {
            hold(amount == account.fee - account.burned, "amount");
        }
        account.burned = account.fee;
        hold(both(_isAccount(payee, account), isSound(account)), "account");
        hold(_moved(purse, amount), "token");
    }

    function check_Forfeit(address payee, uint32 time) external {
        moveTo(time);
        IChannels.Account memory account = _any(payee, 0);
        Purse memory purse = _purse(ARBITER);

        vm.prank(ARBITER);
        uint256 amount = channels.forfeit(payee);

        hold(amount == unreleased(account), "amount");
        unchecked {
            account.forfeited += uint96(amount);
        }
        (account.previous, account.current) = (0, 0);
        hold(both(_isAccount(payee, account), isSound(account)), "account");
        hold(_moved(purse, amount), "token");
    }

    /// @dev The lesser of what is mature and what half of the stake leaves in this epoch.
    function check_Release(address payee, uint32 time) external {
        moveTo(time);
        IChannels.Account memory account = _any(payee, 0);
        (uint256 stake, uint256 jailedUntil) = nodes.bondOf(payee);
        (, uint256 mature) = channels.pendingOf(payee);
        Purse memory purse = _purse(payee);

        uint256 amount = channels.release(payee);

        bool fits = both(amount != 0, time >= jailedUntil);
        unchecked {
            uint256 used = pick(account.releaseEpoch == epochNow(), account.releasedNow, 0);
            uint256 left = stake / 2 - used;
            fits = both(fits, both(used <= stake / 2, both(amount <= mature, amount <= left)));
            fits = both(fits, either(amount == mature, amount == left));
            account.released += uint96(amount);
            account.releasedNow = uint96(used + amount);
        }
        account.releaseEpoch = uint32(epochNow());
        hold(fits, "as much as is allowed");
        hold(both(_isAccount(payee, account), _moved(purse, amount)), "paid");
    }

    /// @dev Money is never stuck: what is due is paid.
    function check_Release_PaysWhatIsDue(address payee, uint32 time) external {
        moveTo(time);
        Due memory due = _due(payee, _any(payee, 0));
        Purse memory purse = _purse(payee);
        vm.assume(both(due.amount != 0, time >= due.jailedUntil));
        vm.assume(purse.held >= due.amount);

        hold(_call(abi.encodeCall(IChannels.release, (payee))), "done");
    }

    // ---- what every check does

    function _any(address payee, uint256 sum)
        private
        view
        returns (IChannels.Account memory account)
    {
        account = channels.accountOf(payee);
        vm.assume(isSound(account));
        assumeRoom(account, sum);
        vm.assume(both(payee != address(channels), payee != address(0)));
    }

    function _call(bytes memory data) private returns (bool done) {
        (done,) = address(channels).call(data);
    }

    /// @dev What `release` has to pay: what is mature, as far as half of the stake allows.
    function _due(address payee, IChannels.Account memory account)
        private
        view
        returns (Due memory due)
    {
        (due.stake, due.jailedUntil) = nodes.bondOf(payee);
        due.used = pick(account.releaseEpoch == epochNow(), account.releasedNow, 0);
        unchecked {
            due.mature = unreleased(account) - maturing(account);
            uint256 left = pick(due.stake / 2 > due.used, due.stake / 2 - due.used, 0);
            due.amount = pick(due.mature < left, due.mature, left);
        }
    }

    /// @dev No balance of a token overflows.
    function _purse(address owner) private view returns (Purse memory purse) {
        purse = Purse(owner, token.balanceOf(owner), token.balanceOf(address(channels)));
        vm.assume(purse.kept <= type(uint128).max);
    }

    function _moved(Purse memory purse, uint256 amount) private view returns (bool) {
        unchecked {
            return both(
                token.balanceOf(purse.owner) == purse.kept + amount,
                token.balanceOf(address(channels)) == purse.held - amount
            );
        }
    }

    /// @dev The fee is the least number of base units that is not below the rate; the rest is new in
    /// the running epoch's bucket.
    function _assertBooked(
        address payee,
        IChannels.Account memory account,
        uint256 sum,
        uint256 count
    ) private view {
        bool fair;
        unchecked {
            uint256 fee = channels.accountOf(payee).fee - account.fee;
            fair = isFee(fee, sum);
            uint256 early = maturing(account);
            uint256 current = pick(account.epoch == epochNow(), account.current, 0);
            account.previous = uint96(pick(sum == 0, account.previous, early - current));
            account.current = uint96(pick(sum == 0, account.current, current + (sum - fee)));
            account.epoch = uint32(pick(sum == 0, account.epoch, epochNow()));
            account.earned += uint96(sum);
            account.fee += uint96(fee);
            account.rows += uint64(count);
        }
        hold(both(fair, _isAccount(payee, account)), "booked");
    }

    function _isAccount(address payee, IChannels.Account memory a)
        private
        view
        returns (bool same)
    {
        IChannels.Account memory b = channels.accountOf(payee);
        same = both(a.previous == b.previous, a.current == b.current);
        same = both(same, both(a.epoch == b.epoch, a.earned == b.earned));
        same = both(same, both(a.fee == b.fee, a.burned == b.burned));
        same = both(same, both(a.rows == b.rows, a.forfeited == b.forfeited));
        same = both(same, both(a.released == b.released, a.releasedNow == b.releasedNow));
        same = both(same, a.releaseEpoch == b.releaseEpoch);
    }
}

/// @notice The two buckets against the reference's list of all that came in, for any epoch length.
contract MaturitySymbolic is Symbolic {
    ReferenceChannels private _reference;

    function terms() internal override returns (uint32 epochLength, uint256) {
        epochLength = uint32(svm.createUint(32, "epochLength"));
        vm.assume(epochLength != 0);
        return (epochLength, 0);
    }

    function setUp() public override {
        super.setUp();
        _reference = new ReferenceChannels(0);
    }

    function check_ThreeInflows(address payee, uint96[3] memory amounts, uint32[4] memory times)
        external
    {
        IChannels.Account memory account = channels.accountOf(payee);
        vm.assume(isSound(account));
        vm.assume(account.earned == 0);
        for (uint256 i = 0; i < 3; ++i) {
            moveTo(times[i]);
            vm.assume(amounts[i] != 0 && amounts[i] <= type(uint96).max / 4);
            vm.prank(REQUESTS);
            channels.credit(payee, amounts[i]);
            _reference.book(epochNow(), amounts[i]);
        }
        moveTo(times[3]);

        (uint256 early, uint256 ripe) = channels.pendingOf(payee);

        uint256 expected = _reference.maturing(epochNow());
        unchecked {
            hold(early == expected, "maturing");
            hold(ripe == uint256(amounts[0]) + amounts[1] + amounts[2] - expected, "mature");
        }
    }
}
