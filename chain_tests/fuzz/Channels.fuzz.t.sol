// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {ClaimRow} from "../../contracts/libraries/ClaimRow.sol";
import {ReceiptsTree} from "../../contracts/libraries/ReceiptsTree.sol";
import {RequestParams} from "../../contracts/libraries/RequestParams.sol";
import {TypedData} from "../../contracts/libraries/TypedData.sol";
import {ChannelId, ModelId} from "../../contracts/types/Ids.sol";
import {Fixture} from "../Fixture.sol";
import {ReferenceChannels} from "../reference/ReferenceChannels.sol";

contract ChannelsFuzzTest is Fixture {
    uint96 private constant _MAX_AMOUNT = 1e15;
    uint256 private constant _PAYERS = 3;

    struct Step {
        uint32 wait;
        uint96[3] cumulative;
        bool[3] forge;
        bool release;
        bool goes;
        uint8 forfeit;
    }

    function testFuzz_Claim_PaysTheDifference(uint96 deposit, uint96 first, uint96 second) public {
        deposit = uint96(bound(deposit, 1, _MAX_AMOUNT));
        first = uint96(bound(first, 1, deposit));
        second = uint96(bound(second, 0, 2 * uint256(deposit)));
        open(deposit);

        claim(first);
        uint96 earned = channels.claim(payee, row(second));

        bool lands = second > first && second <= deposit;
        vm.assertEq(earned, lands ? second - first : 0, "earned");
        uint96 total = lands ? second : first;
        vm.assertEq(slot().claimed, total, "claimed");
        IChannels.Account memory account = channels.accountOf(payee);
        vm.assertEq(account.earned, total, "all that was earned");
        uint256 fee = feeUp(first) + (lands ? feeUp(second - first) : 0);
        vm.assertEq(account.fee, fee, "fee");
    }

    function testFuzz_Exit_SplitsTheDepositExactly(uint96 deposit, uint96 paid) public {
        deposit = uint96(bound(deposit, 1, _MAX_AMOUNT));
        paid = uint96(bound(paid, 0, deposit - 1));
        open(deposit);
        if (paid != 0) claim(paid);
        vm.prank(payer);
        channels.exit(payee, signer);
        vm.warp(START + EXIT_DELAY);
        vm.prank(payer);
        channels.withdraw(payee, signer);

        vm.assertEq(token.balanceOf(payer), RICH - paid, "payer");
        vm.assertEq(token.balanceOf(address(channels)), paid, "contract");
    }

    /// @dev Whole lives of three channels of one payee, compared with the reference after each step.
    function testFuzz_Life_EqualsTheReference(
        uint96[3] memory deposits,
        uint96 stake,
        Step[5] memory steps
    ) public {
        ReferenceChannels expected = new ReferenceChannels(FEE_BPS);
        stake = uint96(bound(stake, 1, _MAX_AMOUNT));
        join(payee, NODE_KEY, stake);
        for (uint256 i = 0; i < _PAYERS; ++i) {
            deposits[i] = uint96(bound(deposits[i], 1, _MAX_AMOUNT));
            _join(i, deposits[i], expected);
        }
        for (uint256 i = 0; i < steps.length; ++i) {
            vm.warp(block.timestamp + bound(steps[i].wait, 0, 3 * EPOCH));
            _claimStep(steps[i], deposits, expected);
            if (steps[i].release) _releaseStep(stake, expected);
            if (steps[i].goes) _leaveStep(deposits, expected);
            // Rarely, or a payee never keeps anything.
            if (steps[i].forfeit < 32) _forfeitStep(expected);
            _assertEqual(expected);
        }
    }

    function testFuzz_ClaimRow_EqualsTheReference(
        address from,
        address to,
        address key,
        uint96 cumulative,
        uint32 jobs,
        bytes32 root,
        bytes32 separator
    ) public pure {
        vm.assertEq(
            ClaimRow.digest(separator, from, to, cumulative, jobs, root),
            TypedData.digest(separator, TypedData.voucher(from, to, cumulative, jobs, root)),
            "digest"
        );
        vm.assertEq(
            ClaimRow.channel(from, to, key), keccak256(abi.encode(from, to, key)), "channel"
        );
    }

    function testFuzz_ClaimRow_ReadsWhatWasPacked(
        address from,
        uint96 cumulative,
        uint32 jobs,
        bytes32[3] memory words,
        uint8 before
    ) public view {
        before = uint8(before % 4);
        bytes memory packed = abi.encodePacked(from, cumulative, jobs, words[0], words[1], words[2]);
        bytes memory rows = bytes.concat(new bytes(uint256(before) * 132), packed);

        this.checkRead(rows, before, packed);
    }

    function checkRead(bytes calldata rows, uint256 index, bytes calldata packed) external pure {
        (address from, uint96 cumulative, uint32 jobs, bytes32 root, bytes32 r, bytes32 vs) =
            ClaimRow.read(rows, index);
        vm.assertEq(
            keccak256(abi.encodePacked(from, cumulative, jobs, root, r, vs)),
            keccak256(packed),
            "fields"
        );
    }

    /// @dev The plain EIP-712 encoding, one array of words at a time.
    function testFuzz_Request_EqualsThePlainEncoding(IRequests.Params memory params, bytes32 seed)
        public
        pure
    {
        bytes32 sampling = keccak256(
            abi.encode(
                TypedData.SAMPLING_TYPEHASH,
                params.temperature,
                params.topP,
                params.topK,
                bytes32(0)
            )
        );
        bytes memory head = abi.encode(
            TypedData.REQUEST_TYPEHASH,
            params.payer,
            params.gateway,
            bytes32(0),
            ModelId.unwrap(params.model),
            keccak256(abi.encodePacked(params.profile)),
            params.prompt
        );
        bytes memory tail = abi.encode(
            sampling, params.inputTokens, params.maxTokens, params.fee, seed, seed, params.deadline
        );
        vm.assertEq(
            TypedData.request(params, seed), keccak256(bytes.concat(head, tail)), "struct hash"
        );
    }

    function testFuzz_RequestParams_HashIsThatOfTheAbiEncoding(IRequests.Params memory params)
        public
        view
    {
        vm.assertEq(RequestParams.hash(params), keccak256(abi.encode(params)), "in memory");
        vm.assertEq(this.hashOf(params), keccak256(abi.encode(params)), "in calldata");
    }

    function hashOf(IRequests.Params calldata params) external pure returns (bytes32) {
        return RequestParams.hashCalldata(params);
    }

    /// @dev The tree is built here by RFC 9162's recursive definition.
    function testFuzz_Tree_ContainsExactlyItsLeaves(uint8 size, uint8 index, bytes32 salt)
        public
        view
    {
        size = uint8(bound(size, 1, 40));
        index = uint8(bound(index, 0, size - 1));
        bytes32[] memory leaves = new bytes32[](size);
        for (uint256 i = 0; i < size; ++i) {
            leaves[i] = keccak256(abi.encode(salt, i));
        }
        bytes32 root = _root(leaves, 0, size);
        bytes32[] memory proof = _path(leaves, 0, size, index);

        vm.assertTrue(this.contains(root, size, index, leaves[index], proof), "its leaf");
        vm.assertFalse(this.contains(root, size, index, keccak256("no"), proof), "another leaf");
        uint256 other = (uint256(index) + 1) % size;
        if (size > 1) {
            vm.assertFalse(this.contains(root, size, other, leaves[index], proof), "another place");
        }
        bytes32[] memory longer = new bytes32[](proof.length + 1);
        for (uint256 i = 0; i < proof.length; ++i) {
            longer[i] = proof[i];
        }
        vm.assertFalse(this.contains(root, size, index, leaves[index], longer), "a longer path");
    }

    function contains(
        bytes32 root,
        uint256 size,
        uint256 index,
        bytes32 hash,
        bytes32[] calldata proof
    ) external pure returns (bool) {
        return ReceiptsTree.contains(root, size, index, hash, proof);
    }

    // ---- one life

    function _who(uint256 i) private pure returns (address) {
        return address(uint160(0x50_0000 + i));
    }

    function _join(uint256 i, uint96 amount, ReferenceChannels expected) private {
        fund(_who(i));
        vm.prank(_who(i));
        channels.open(payee, vm.addr(i + 1), amount);
        expected.put(_id(i), amount);
    }

    function _id(uint256 i) private view returns (bytes32) {
        return ChannelId.unwrap(idOf(_who(i), vm.addr(i + 1)));
    }

    function _claimStep(Step memory step, uint96[3] memory deposits, ReferenceChannels expected)
        private
    {
        bytes memory rows = "";
        uint256 sum = 0;
        for (uint256 i = 0; i < _PAYERS; ++i) {
            uint96 cumulative =
                uint96(bound(step.cumulative[i], 0, uint256(deposits[i]) * 5 / 4 + 1));
            uint256 key = step.forge[i] ? 0xBAD : i + 1;
            rows = bytes.concat(rows, row(_who(i), key, cumulative, 1, keccak256("root")));
            if (!step.forge[i]) sum += expected.take(_id(i), cumulative);
        }
        expected.book(block.timestamp / EPOCH, sum);

        vm.assertEq(channels.claim(payee, rows), sum, "earned");
    }

    function _releaseStep(uint96 stake, ReferenceChannels expected) private {
        uint256 amount = expected.pay(block.timestamp / EPOCH, stake);
        if (amount == 0) vm.expectRevert();
        uint96 paid = channels.release(payee);
        if (amount != 0) vm.assertEq(paid, amount, "paid");
    }

    /// @dev The first payer takes out what is left, and puts half of it in again.
    function _leaveStep(uint96[3] memory deposits, ReferenceChannels expected) private {
        uint256 rest = expected.takeOut(_id(0));
        if (rest == 0) return;
        address key = vm.addr(1);
        vm.prank(_who(0));
        channels.exit(payee, key);
        vm.warp(block.timestamp + EXIT_DELAY);
        uint256 before = token.balanceOf(_who(0));
        vm.prank(_who(0));
        channels.withdraw(payee, key);
        vm.assertEq(token.balanceOf(_who(0)) - before, rest, "what came back");

        uint96 again = uint96(rest / 2);
        if (again != 0) {
            vm.prank(_who(0));
            channels.open(payee, key, again);
            expected.put(_id(0), again);
        }
        deposits[0] = uint96(expected.deposit(_id(0)));
    }

    function _forfeitStep(ReferenceChannels expected) private {
        uint256 amount = expected.forfeit();
        if (amount == 0) return;
        vm.prank(arbiter);
        vm.assertEq(channels.forfeit(payee), amount, "forfeited");
    }

    function _assertEqual(ReferenceChannels expected) private view {
        IChannels.Account memory account = channels.accountOf(payee);
        uint256 epoch = block.timestamp / EPOCH;
        vm.assertEq(account.earned, expected.earned(), "earned");
        vm.assertEq(account.fee, expected.fee(), "fee");
        vm.assertEq(account.released, expected.released(), "released");
        vm.assertEq(account.forfeited, expected.forfeited(), "forfeited");
        (uint96 maturing, uint96 mature) = channels.pendingOf(payee);
        vm.assertEq(maturing, expected.maturing(epoch), "maturing");
        vm.assertEq(mature, expected.mature(epoch), "mature");
        for (uint256 i = 0; i < _PAYERS; ++i) {
            IChannels.Channel memory kept = channels.channel(ChannelId.wrap(_id(i)));
            vm.assertEq(kept.claimed, expected.claimed(_id(i)), "claimed");
            vm.assertEq(kept.deposit, expected.deposit(_id(i)), "deposit");
        }
    }

    // ---- RFC 9162, section 2.1

    function _root(bytes32[] memory leaves, uint256 from, uint256 to)
        private
        pure
        returns (bytes32)
    {
        if (to - from == 1) return leaves[from];
        uint256 split = from + _split(to - from);
        return keccak256(
            abi.encodePacked(bytes1(0x01), _root(leaves, from, split), _root(leaves, split, to))
        );
    }

    function _path(bytes32[] memory leaves, uint256 from, uint256 to, uint256 index)
        private
        pure
        returns (bytes32[] memory path)
    {
        if (to - from == 1) return path;
        uint256 split = from + _split(to - from);
        bool left = index < split;
        bytes32[] memory below =
            left ? _path(leaves, from, split, index) : _path(leaves, split, to, index);
        path = new bytes32[](below.length + 1);
        for (uint256 i = 0; i < below.length; ++i) {
            path[i] = below[i];
        }
        path[below.length] = left ? _root(leaves, split, to) : _root(leaves, from, split);
    }

    /// @dev The largest power of two below `n`.
    function _split(uint256 n) private pure returns (uint256 k) {
        k = 1;
        while (k * 2 < n) k *= 2;
    }
}
