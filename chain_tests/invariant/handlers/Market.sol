// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../../contracts/interfaces/IChannels.sol";
import {INodeRegistry} from "../../../contracts/interfaces/INodeRegistry.sol";
import {IReputation} from "../../../contracts/interfaces/IReputation.sol";
import {IRequests} from "../../../contracts/interfaces/IRequests.sol";
import {ModelId} from "../../../contracts/types/Ids.sol";
import {Fixture, ITestToken} from "../../Fixture.sol";
import {Book} from "../stores/Book.sol";

/// @notice Plays everybody: 2 payers, 2 nodes, 2 session keys each, so 8 channels.
contract Market is Fixture, Book {
    address[2] private _payers = [address(0xAA01), address(0xAA02)];
    address[2] private _payees = [address(0xBB01), address(0xBB02)];
    uint96 private constant _MAX = 1_000e6;

    constructor() {
        setUp();
        for (uint256 i = 0; i < 2; ++i) {
            fund(_payers[i]);
            fund(_payees[i]);
            join(_payees[i], _nodeKey(i), MIN_STAKE);
        }
        for (uint256 i = 0; i < 8; ++i) {
            _lines.push();
            _lines[i].payer = _payers[i & 1];
            _lines[i].payee = _payees[(i >> 1) & 1];
            _lines[i].key = 0x5160 + (i >> 2);
            _lines[i].signer = vm.addr(_lines[i].key);
            (payee, signer) = (_lines[i].payee, _lines[i].signer);
            _lines[i].id = idOf(_lines[i].payer, signer);
        }
        _see();
    }

    // ---- channels

    function openOrTopUp(uint256 which, uint96 amount) external {
        Line storage one = _pick(which);
        IChannels.Channel memory kept = slot();
        if (kept.exitAt != 0) return;
        amount = uint96(bound(amount, 1, _MAX));

        vm.prank(payer);
        if (kept.deposit == kept.claimed) channels.open(payee, signer, amount);
        else channels.topUp(payee, signer, amount);

        one.putIn += amount;
        _did("put");
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
        if (kept.exitAt == 0) return;
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
        IRequests.Order memory order = IRequests.Order({
            gateway: owner,
            model: ModelId.wrap(keccak256("model")),
            profile: keccak256("profile"),
            sampling: IRequests.Sampling(0, 1_000_000, 0, 0),
            maxTokens: 1,
            fee: uint96(bound(fee, 1, _MAX)),
            deadline: uint64(block.timestamp + bound(life, 1, 3600))
        });
        vm.prank(asker);
        uint256 id = requests.request(order, hex"00000001");

        _asks.push(Ask({id: id, params: _paramsOf(asker, order)}));
        _did("request");
    }

    function settle(uint256 which) external {
        if (_asks.length == 0) return;
        which %= _asks.length;
        Ask memory one = _asks[which];
        address owner = one.params.gateway;
        bool late = block.timestamp > one.params.deadline;
        if (!late && !nodes.serves(owner, 1)) return;

        if (late) {
            requests.refund(one.id, one.params);
        } else {
            vm.prank(vm.addr(_nodeKey(owner == _payees[0] ? 0 : 1)));
            requests.fulfil(one.id, one.params, keccak256("receipt"), hex"00000002");
            credited[owner] += one.params.fee;
        }

        settled.push(one.id);
        _asks[which] = _asks[_asks.length - 1];
        _asks.pop();
        _did(late ? bytes32("refund") : bytes32("fulfil"));
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
        }
        for (uint256 i = 0; i < 2; ++i) {
            IChannels.Account memory before = _accounts[_payees[i]];
            IChannels.Account memory now_ = channels.accountOf(_payees[i]);
            bool fell = now_.earned < before.earned || now_.fee < before.fee
                || now_.released < before.released || now_.forfeited < before.forfeited
                || now_.burned < before.burned || now_.rows < before.rows;
            if (fell) ++fallenTotals;
        }
        _see();
    }

    function _see() private {
        for (uint256 i = 0; i < _lines.length; ++i) {
            _lines[i].seen = slotOf(i);
        }
        for (uint256 i = 0; i < 2; ++i) {
            address owner = _payees[i];
            _accounts[owner] = channels.accountOf(owner);
            (uint96 held,) = nodes.bondOf(owner);
            uint256 epoch = block.timestamp / EPOCH;
            if (held > highestStakeIn[owner][epoch]) highestStakeIn[owner][epoch] = held;
        }
    }

    function _pick(uint256 which) private returns (Line storage one) {
        one = _lines[which % _lines.length];
        (payer, payee, signer) = (one.payer, one.payee, one.signer);
    }

    function _nodeKey(uint256 index) private pure returns (uint256) {
        return 0x0DE0 + index;
    }

    function _cumulative(bytes memory voucher) private pure returns (uint256 value) {
        for (uint256 i = 20; i < 32; ++i) {
            value = value << 8 | uint8(voucher[i]);
        }
    }

    function _paramsOf(address asker, IRequests.Order memory order)
        private
        view
        returns (IRequests.Params memory)
    {
        return IRequests.Params({
            payer: asker,
            gateway: order.gateway,
            model: order.model,
            profile: order.profile,
            prompt: keccak256(abi.encodePacked(requests.PUBLIC_PROMPT_SALT(), hex"00000001")),
            sampling: order.sampling,
            inputTokens: 1,
            maxTokens: order.maxTokens,
            fee: order.fee,
            deadline: order.deadline
        });
    }
}
