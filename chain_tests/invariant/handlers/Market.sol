// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../../contracts/interfaces/IChannels.sol";
import {INodeRegistry} from "../../../contracts/interfaces/INodeRegistry.sol";
import {IReputation} from "../../../contracts/interfaces/IReputation.sol";
import {IRequests} from "../../../contracts/interfaces/IRequests.sol";
import {Fixture, ITestToken} from "../../Fixture.sol";
import {Book} from "../stores/Book.sol";

/// @notice Plays everybody: 2 payers, 2 nodes, 2 session keys each, so 8 channels.
contract Market is Fixture, Book {
    uint256[2] private _payerKeys = [0xAA01, 0xAA02];
    address[2] private _payers = [vm.addr(0xAA01), vm.addr(0xAA02)];
    address[2] private _payees = [address(0xBB01), address(0xBB02)];
    uint96 private constant _MAX = 1_000e6;
    uint256 private _salt;
    bytes32 private _publicSalt;

    constructor() {
        setUp();
        _publicSalt = requests.PUBLIC_PROMPT_SALT();
        for (uint256 i = 0; i < 2; ++i) {
            fund(_payers[i]);
            fund(_payees[i]);
            join(_payees[i], _nodeKey(i), MIN_STAKE);
        }
        for (uint256 i = 0; i < 8; ++i) {
            _lines.push();
            _lines[i].payer = _payers[i & 1];
            _lines[i].payerKey = _payerKeys[i & 1];
            _lines[i].payee = _payees[(i >> 1) & 1];
            _lines[i].key = 0x5160 + (i >> 2);
            _lines[i].signer = vm.addr(_lines[i].key);
            (payee, signer) = (_lines[i].payee, _lines[i].signer);
            _lines[i].id = idOf(_lines[i].payer, signer);
        }
        _did("start");
    }

    // ---- channels

    /// @dev By allowance, by permit, or by an authorization that a stranger carries.
    function openOrTopUp(uint256 which, uint96 amount, uint8 how) external {
        Line storage one = _pick(which);
        IChannels.Channel memory kept = slot();
        if (kept.exitAt != 0) return;
        amount = uint96(bound(amount, 1, _MAX));

        bool fresh = kept.deposit == kept.claimed;
        if (how % 4 == 0) _putWithPermit(one.payerKey, amount, fresh);
        else if (how % 4 == 1) _putWithAuthorization(one, amount, fresh);
        else _put(amount, fresh);

        one.putIn += amount;
        _did("put");
    }

    function _put(uint96 amount, bool fresh) private {
        vm.prank(payer);
        if (fresh) channels.open(payee, signer, amount);
        else channels.topUp(payee, signer, amount);
    }

    function _putWithPermit(uint256 key, uint96 amount, bool fresh) private {
        IChannels.Permit memory permit = permitFor(key, amount);
        vm.prank(payer);
        if (fresh) channels.openWithPermit(payee, signer, amount, permit);
        else channels.topUpWithPermit(payee, signer, amount, permit);
        // A permit replaces the allowance that was there.
        vm.prank(payer);
        token.approve(address(channels), type(uint256).max);
    }

    function _putWithAuthorization(Line storage one, uint96 amount, bool fresh) private {
        IChannels.Authorization memory authorization =
            authorizationFor(one.payerKey, one.id, amount, bytes32(++_salt));
        if (fresh) channels.openWithAuthorization(payer, payee, signer, amount, authorization);
        else channels.topUpWithAuthorization(payer, payee, signer, amount, authorization);
    }

    /// @dev Vouchers above the deposit are made too: they must wait until it suffices.
    function claimNew(uint256 which, uint96 cumulative) external {
        Line storage one = _pick(which);
        IChannels.Channel memory kept = slot();
        cumulative = uint96(bound(cumulative, 0, uint256(kept.deposit) * 9 / 8 + 1));
        bytes memory voucher = row(one.payer, one.key, cumulative, 1, keccak256("root"));
        if (one.rows.length < 16) one.rows.push(voucher);

        uint96 earned = channels.claim(payee, voucher);

        bool lands = cumulative > one.best && cumulative <= kept.deposit;
        uint256 expected = lands ? cumulative - one.best : 0;
        if (earned != expected) ++replayed;
        if (lands) one.best = cumulative;
        _did("claim");
    }

    /// @dev All vouchers ever signed on one channel again, newest first, in one batch.
    function replay(uint256 which) external {
        Line storage one = _pick(which);
        uint256 count = one.rows.length;
        if (count == 0) return;
        bytes memory rows = "";
        uint256 best = one.best;
        IChannels.Channel memory kept = slot();
        for (uint256 i = count; i > 0; --i) {
            rows = bytes.concat(rows, one.rows[i - 1]);
            uint256 cumulative = _cumulative(one.rows[i - 1]);
            // A voucher that was above the deposit is owed once the deposit suffices.
            if (cumulative > best && cumulative <= kept.deposit) best = cumulative;
        }

        uint96 earned = channels.claim(payee, rows);

        if (earned != best - one.best) ++replayed;
        one.best = best;
        if (channels.claim(payee, rows) != 0) ++replayed;
        _did("replay");
    }

    /// @dev A good voucher between rows of noise: it lands, whatever lies around it.
    function claimAmongNoise(uint256 which, uint96 step, uint256 noise) external {
        Line storage one = _pick(which);
        IChannels.Channel memory kept = slot();
        if (kept.deposit == kept.claimed) return;
        uint96 cumulative = kept.claimed + uint96(bound(step, 1, kept.deposit - kept.claimed));
        bytes memory voucher = row(one.payer, one.key, cumulative, 1, keccak256("root"));
        if (one.rows.length < 16) one.rows.push(voucher);
        bytes memory before = "";
        for (uint256 i = 0; i < 132; i += 32) {
            before = bytes.concat(before, keccak256(abi.encode(noise, i)));
        }
        bytes memory bent = bytes.concat(voucher);
        bent[noise % 132] ^= bytes1(uint8(1 << (noise >> 8) % 8));

        uint96 earned =
            channels.claim(payee, bytes.concat(_row(before), bent, voucher, _row(before)));

        if (earned != cumulative - one.best) ++blocked;
        one.best = cumulative;
        _did("noise");
    }

    function exit(uint256 which) external {
        _pick(which);
        IChannels.Channel memory kept = slot();
        if (kept.exitAt != 0 || kept.deposit == kept.claimed) return;

        vm.prank(payer);
        channels.exit(payee, signer);
        _did("exit");
    }

    function withdraw(uint256 which) external {
        Line storage one = _pick(which);
        IChannels.Channel memory kept = slot();
        if (kept.exitAt == 0 || block.timestamp < kept.exitAt) return;

        vm.prank(payer);
        channels.withdraw(payee, signer);

        one.cameBack += kept.deposit - kept.claimed;
        one.seen.exitAt = 0;
        _did("withdraw");
    }

    function close(uint256 which) external {
        Line storage one = _pick(which);
        IChannels.Channel memory kept = slot();
        if (kept.exitAt == 0 || block.timestamp + EXIT_DELAY == kept.exitAt) return;
        uint256 index = payee == _payees[0] ? 0 : 1;
        (bytes32 r, bytes32 vs) = consent(_nodeKey(index), kept.claimed, kept.exitAt);

        channels.close(payer, payee, signer, r, vs);

        one.cameBack += kept.deposit - kept.claimed;
        one.seen.exitAt = 0;
        _did("close");
    }

    // ---- what payees earned

    function release(uint256 which) external {
        address owner = _payees[which & 1];
        (, uint96 mature) = channels.pendingOf(owner);
        (uint96 held, uint64 jailedUntil) = nodes.bondOf(owner);
        uint256 epoch = block.timestamp / EPOCH;
        if (mature == 0 || block.timestamp < jailedUntil) return;
        if (held / 2 <= paidIn[owner][epoch]) return;

        paidIn[owner][epoch] += channels.release(owner);
        _did("release");
    }

    function burn(uint256 which) external {
        address owner = _payees[which & 1];
        IChannels.Account memory account = channels.accountOf(owner);
        if (account.fee == account.burned) return;

        channels.burn(owner);
        _did("burn");
    }

    function forfeit(uint256 which, uint8 dice) external {
        address owner = _payees[which & 1];
        (uint96 maturing, uint96 mature) = channels.pendingOf(owner);
        // Rarely, or payees never keep anything.
        if (dice % 8 != 0 || maturing + mature == 0) return;

        vm.prank(arbiter);
        channels.forfeit(owner);
        _did("forfeit");
    }

    // ---- stake

    function stake(uint256 which, uint96 amount) external {
        amount = uint96(bound(amount, 1, _MAX));
        vm.prank(_payees[which & 1]);
        nodes.stake(amount);
        _did("stake");
    }

    function unbond(uint256 which, uint96 amount) external {
        address owner = _payees[which & 1];
        (uint96 held,) = nodes.bondOf(owner);
        if (held == 0) return;
        amount = uint96(bound(amount, 1, held));

        vm.prank(owner);
        nodes.unbond(amount);
        _did("unbond");
    }

    function withdrawUnbonded(uint256 which) external {
        address owner = _payees[which & 1];
        INodeRegistry.Node memory node = nodes.nodeOf(owner);
        if (node.unbonding == 0 || block.timestamp < node.unbondedAt) return;
        if (block.timestamp < node.jailedUntil) return;

        vm.prank(owner);
        nodes.withdrawUnbonded();
        _did("withdrawUnbonded");
    }

    function punish(uint256 which, uint96 amount, uint16 duration) external {
        address owner = _payees[which & 1];
        INodeRegistry.Node memory node = nodes.nodeOf(owner);
        vm.startPrank(arbiter);
        nodes.jail(owner, uint64(block.timestamp + duration % EPOCH));
        if (node.stake + node.unbonding != 0) {
            nodes.slash(owner, uint96(bound(amount, 1, MIN_STAKE / 4)));
        }
        vm.stopPrank();
        _did("punish");
    }

    // ---- on-chain requests

    function request(uint256 which, uint96 fee, uint16 life) external {
        address owner = _payees[which & 1];
        address asker = _payers[(which >> 1) & 1];
        payee = owner;
        IRequests.Order memory what = order();
        what.fee = uint96(bound(fee, 1, _MAX));
        what.exclusiveUntil = uint64(block.timestamp + bound(life, 60, 3600));
        what.deadline = uint64(bound(life, what.exclusiveUntil, block.timestamp + 3600));
        // Payers have no code: a call back to them does nothing, successfully.
        what.callbackGas = life % 2 == 0 ? 0 : 50_000;
        bytes32 prompt = keccak256("prompt");
        bool open_ = life % 3 == 0;
        if (open_) prompt = keccak256(abi.encodePacked(_publicSalt, hex"00000001"));
        vm.prank(asker);
        uint256 id = open_
            ? requests.request(what, hex"00000001")
            : requests.requestByCommitment(what, prompt, 1);

        _asks.push(Ask({id: id, params: paramsOf(asker, what, prompt, 1)}));
        _did("request");
    }

    function settle(uint256 which, uint256 dice) external {
        if (_asks.length == 0) return;
        which %= _asks.length;
        Ask memory one = _asks[which];
        address owner = one.params.gateway;
        bytes32 end = _endOf(one.params, dice);
        if (end == 0) return;

        if (end == "refund") {
            requests.refund(one.id, one.params);
        } else if (end == "cancel") {
            vm.prank(one.params.payer);
            requests.cancel(one.id, one.params);
        } else {
            vm.prank(vm.addr(_nodeKey(owner == _payees[0] ? 0 : 1)));
            requests.fulfil(one.id, one.params, keccak256("receipt"), hex"00000002");
            credited[owner] += one.params.fee;
        }

        settled.push(one.id);
        _asks[which] = _asks[_asks.length - 1];
        _asks.pop();
        _did(end);
    }

    /// @dev How a request ends now; zero while nobody can end it.
    function _endOf(IRequests.Params memory params, uint256 dice) private view returns (bytes32) {
        if (block.timestamp > params.deadline) {
            return dice % 2 == 0 ? bytes32("refund") : bytes32("cancel");
        }
        if (block.timestamp > params.exclusiveUntil && dice % 2 == 0) return "cancel";
        return nodes.serves(params.gateway, 1) ? bytes32("fulfil") : bytes32(0);
    }

    // ---- the world

    function donate(uint256 which, uint96 amount) external {
        address[3] memory places = [address(channels), address(nodes), address(requests)];
        amount = uint96(bound(amount, 1, _MAX));
        token.mint(places[which % 3], amount);
        donated[places[which % 3]] += amount;
        _did("donate");
    }

    function wait(uint16 duration) external {
        vm.warp(block.timestamp + bound(duration, 1, 2 * EPOCH));
        _did("wait");
    }

    // ---- the end

    /// @dev Everybody leaves, by the doors that anyone has. What then remains is surplus.
    function everybodyLeaves() external {
        vm.warp(block.timestamp + 2 hours);
        for (uint256 i = 0; i < _asks.length; ++i) {
            requests.refund(_asks[i].id, _asks[i].params);
        }
        delete _asks;
        for (uint256 i = 0; i < _lines.length; ++i) {
            _pick(i);
            IChannels.Channel memory kept = slot();
            if (kept.exitAt != 0 || kept.deposit == kept.claimed) continue;
            vm.prank(payer);
            channels.exit(payee, signer);
        }
        // Longer than any exit, jail, or two epochs.
        vm.warp(block.timestamp + 2 * UNBONDING);
        for (uint256 i = 0; i < _lines.length; ++i) {
            _pick(i);
            if (slot().exitAt == 0) continue;
            vm.prank(payer);
            channels.withdraw(payee, signer);
        }
        for (uint256 i = 0; i < 2; ++i) {
            _nodeLeaves(_payees[i]);
        }
    }

    /// @dev With stake enough all that is mature leaves in one epoch; then the stake leaves.
    function _nodeLeaves(address owner) private {
        vm.prank(owner);
        nodes.stake(RICH / 2);
        (, uint96 mature) = channels.pendingOf(owner);
        if (mature != 0) channels.release(owner);
        IChannels.Account memory account = channels.accountOf(owner);
        if (account.fee != account.burned) channels.burn(owner);
        (uint96 held,) = nodes.bondOf(owner);
        vm.prank(owner);
        nodes.unbond(held);
        vm.warp(block.timestamp + UNBONDING);
        vm.prank(owner);
        nodes.withdrawUnbonded();
    }

    // ---- for the invariants

    function world()
        external
        view
        returns (ITestToken, INodeRegistry, IChannels, IRequests, IReputation)
    {
        return (token, nodes, channels, requests, reputation);
    }

    function payees() external view returns (address[2] memory) {
        return _payees;
    }

    function slotOf(uint256 i) public view returns (IChannels.Channel memory) {
        return channels.channel(_lines[i].id);
    }

    mapping(address payee => IChannels.Account) private _accounts;

    /// @dev Compares every channel and account with how it was after the last action.
    function _did(bytes32 action) private {
        ++done[action];
        for (uint256 i = 0; i < _lines.length; ++i) {
            IChannels.Channel memory before = _lines[i].seen;
            IChannels.Channel memory now_ = slotOf(i);
            if (now_.claimed < before.claimed || now_.claimed > now_.deposit) ++fallenTotals;
            if (before.exitAt != 0 && now_.exitAt != before.exitAt) ++movedExits;
            _lines[i].seen = now_;
        }
        for (uint256 i = 0; i < 2; ++i) {
            address owner = _payees[i];
            IChannels.Account memory before = _accounts[owner];
            IChannels.Account memory now_ = channels.accountOf(owner);
            bool fell = now_.earned < before.earned || now_.fee < before.fee
                || now_.released < before.released || now_.forfeited < before.forfeited
                || now_.burned < before.burned || now_.rows < before.rows;
            if (fell) ++fallenTotals;
            _accounts[owner] = now_;
            _seeStake(owner);
        }
    }

    function _seeStake(address owner) private {
        (uint96 held,) = nodes.bondOf(owner);
        uint256 epoch = block.timestamp / EPOCH;
        if (held > highestStakeIn[owner][epoch]) highestStakeIn[owner][epoch] = held;
    }

    function _pick(uint256 which) private returns (Line storage one) {
        one = _lines[which % _lines.length];
        (payer, payee, signer) = (one.payer, one.payee, one.signer);
    }

    function _nodeKey(uint256 index) private pure returns (uint256) {
        return 0x0DE0 + index;
    }

    function _row(bytes memory noise) private pure returns (bytes memory some) {
        some = new bytes(132);
        for (uint256 i = 0; i < 132; ++i) {
            some[i] = noise[i];
        }
    }

    function _cumulative(bytes memory voucher) private pure returns (uint256 value) {
        for (uint256 i = 20; i < 32; ++i) {
            value = value << 8 | uint8(voucher[i]);
        }
    }
}
