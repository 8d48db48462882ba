// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsClaimTest is Fixture {
    uint256 private constant _OTHER_KEY = 0xCAFE;
    uint256 private constant _ORDER =
        0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
    bytes32 private constant _ROOT = keccak256("root");

    function setUp() public override {
        super.setUp();
        open(5e6);
    }

    function test_GrowsClaimedAndSaysSo() public {
        bytes memory rows = row(payer, SIGNER_KEY, 1_000_001, 3, _ROOT);

        vm.expectEmit(address(channels));
        emit IChannels.VoucherClaimed(idOf(payer, signer), payee, 1_000_001, 3, _ROOT);
        vm.expectEmit(address(channels));
        emit IChannels.Accrued(payee, uint32(START / EPOCH), 1_000_001, 10_001, 1);
        vm.prank(stranger);
        vm.recordLogs();
        uint96 earned = channels.claim(payee, rows);

        vm.assertEq(vm.getRecordedLogs().length, 2, "no row is called bad");
        vm.assertEq(earned, 1_000_001, "earned");
        vm.assertEq(slot().claimed, 1_000_001, "claimed");
        vm.assertEq(slot().jobs, 3, "jobs");
        vm.assertEq(slot().deposit, 5e6, "deposit");
        IChannels.Account memory account = channels.accountOf(payee);
        vm.assertEq(account.current, 1_000_001 - 10_001, "current");
        vm.assertEq(account.previous, 0, "previous");
        vm.assertEq(account.fee, 10_001, "fee is rounded up");
        vm.assertEq(account.rows, 1, "rows");
        vm.assertEq(token.balanceOf(address(channels)), 5e6, "no token moves");
    }

    function test_PaysTheDifferenceAndKeepsEpochsApart() public {
        claim(1e6);
        nextEpoch();
        claim(3e6);

        IChannels.Account memory account = channels.accountOf(payee);
        vm.assertEq(account.previous, 990_000, "previous");
        vm.assertEq(account.current, 1_980_000, "current");
        vm.assertEq(account.earned, 3e6, "earned");

        nextEpoch();
        nextEpoch();
        claim(4e6);

        account = channels.accountOf(payee);
        vm.assertEq(account.previous, 0, "previous, two epochs later");
        vm.assertEq(account.current, 990_000, "current, two epochs later");
        (uint96 maturing, uint96 mature) = channels.pendingOf(payee);
        vm.assertEq(maturing, 990_000, "maturing");
        vm.assertEq(mature, 2_970_000, "mature");
    }

    function test_RoundsTheFeeUpOncePerCall() public {
        fund(stranger);
        vm.prank(stranger);
        channels.open(payee, signer, 100);

        channels.claim(payee, bytes.concat(row(1), row(stranger, SIGNER_KEY, 1, 1, _ROOT)));

        vm.assertEq(channels.accountOf(payee).fee, 1, "one unit over both rows");
    }

    function testFuzz_PaysTheDifference(uint96 deposit, uint96[3] memory totals) public {
        deposit = uint96(bound(deposit, 1, RICH - 5e6));
        vm.prank(payer);
        channels.topUp(payee, signer, deposit);
        uint96 claimed = 0;
        uint256 fee = 0;
        for (uint256 i = 0; i < totals.length; ++i) {
            uint96 total = uint96(bound(totals[i], 0, 2 * uint256(deposit)));
            bool lands = total > claimed && total <= deposit + 5e6;

            uint96 earned = channels.claim(payee, row(total));

            vm.assertEq(earned, lands ? total - claimed : 0, "earned");
            fee += feeUp(earned);
            if (lands) claimed = total;
            vm.assertEq(slot().claimed, claimed, "claimed");
        }
        vm.assertEq(channels.accountOf(payee).earned, claimed, "all that was earned");
        vm.assertEq(channels.accountOf(payee).fee, fee, "fee");
    }

    function test_SkipsAnUnknownChannel() public {
        _assertSkipped(row(stranger, SIGNER_KEY, 1, 1, _ROOT));
    }

    function test_SkipsAnotherKey() public {
        _assertSkipped(row(payer, _OTHER_KEY, 1, 1, _ROOT));
    }

    function test_SkipsAnyPartChanged() public {
        // One bit in each field: payer, cumulative, jobs, receiptsRoot, r, vs.
        uint8[6] memory places = [0, 31, 35, 40, 70, 131];
        for (uint256 i = 0; i < places.length; ++i) {
            bytes memory forged = row(2e6);
            forged[places[i]] ^= 0x01;
            _assertSkipped(forged);
        }
    }

    function test_SkipsAMalformedSignature() public {
        bytes memory zero =
            abi.encodePacked(payer, uint96(1), uint32(1), _ROOT, bytes32(0), bytes32(0));
        _assertSkipped(zero);
    }

    function test_SkipsAHighS() public {
        bytes memory rows = row(1e6);
        (bytes32 r, bytes32 vs) = (_word(rows, 68), _word(rows, 100));
        uint256 s = uint256(vs) & (type(uint256).max >> 1);
        uint256 parity = 1 - (uint256(vs) >> 255);
        // The other valid signature; its s has bit 255 set or reads as another parity.
        bytes32 high = bytes32((_ORDER - s) | (parity << 255));
        _assertSkipped(
            abi.encodePacked(payer, uint96(1e6), uint32(1), bytes32(uint256(1e6)), r, high)
        );
    }

    function test_SkipsAVoucherOfAnotherPayee() public {
        bytes memory rows = row(1e6);
        vm.prank(payer);
        channels.open(stranger, signer, 5e6);

        vm.expectEmit(address(channels));
        emit IChannels.RowsSkipped(stranger, 1);
        uint96 earned = channels.claim(stranger, rows);

        vm.assertEq(earned, 0, "a voucher names its payee");
    }

    function test_SkipsAStaleVoucher() public {
        claim(2e6);

        _assertSkipped(row(2e6));
        _assertSkipped(row(1e6));
    }

    function test_SkipsAVoucherAboveTheDeposit() public {
        _assertSkipped(row(5e6 + 1));
    }

    function test_LetsTheOthersLand() public {
        bytes memory rows =
            bytes.concat(row(5e6 + 1), row(1e6), row(payer, _OTHER_KEY, 2, 1, _ROOT), row(2e6));

        vm.expectEmit(address(channels));
        emit IChannels.RowsSkipped(payee, 5);
        uint96 earned = channels.claim(payee, rows);

        vm.assertEq(earned, 2e6, "earned");
        vm.assertEq(channels.accountOf(payee).rows, 2, "rows");
    }

    function test_CountsTheHigherOnce() public {
        channels.claim(payee, bytes.concat(row(2e6), row(1e6)));

        vm.assertEq(slot().claimed, 2e6, "claimed");
        vm.assertEq(channels.accountOf(payee).earned, 2e6, "earned");
    }

    function test_SkipsAllOnceWithdrawn() public {
        vm.prank(payer);
        channels.exit(payee, signer);
        vm.warp(START + EXIT_DELAY);
        vm.prank(payer);
        channels.withdraw(payee, signer);

        _assertSkipped(row(1e6));
    }

    function test_CountsDuringAnExit() public {
        vm.prank(payer);
        channels.exit(payee, signer);
        vm.warp(START + EXIT_DELAY + 1);

        claim(1e6);

        vm.assertEq(slot().claimed, 1e6, "claimed");
        vm.assertEq(slot().exitAt, START + EXIT_DELAY, "exitAt does not move");
    }

    function test_Takes256Rows() public {
        bytes memory rows = "";
        bytes memory bad = row(5e6 + 1);
        for (uint256 i = 0; i < 255; ++i) {
            rows = bytes.concat(rows, bad);
        }

        vm.expectEmit(address(channels));
        emit IChannels.RowsSkipped(payee, type(uint256).max >> 1);
        channels.claim(payee, bytes.concat(rows, row(1e6)));

        vm.assertEq(slot().claimed, 1e6, "the last row lands");
    }

    function test_RevertWhen_NoRows() public {
        _expectBadRows(0);
        channels.claim(payee, "");
    }

    function test_RevertWhen_CutShort() public {
        bytes memory rows = abi.encodePacked(row(1e6), hex"00");

        _expectBadRows(133);
        channels.claim(payee, rows);
    }

    function test_RevertWhen_TooManyRows() public {
        _expectBadRows(257 * 132);
        channels.claim(payee, new bytes(257 * 132));
    }

    function _expectBadRows(uint256 length) private {
        vm.expectRevert(abi.encodeWithSelector(IChannels.Channels_BadRows.selector, length, 256));
    }

    function _assertSkipped(bytes memory bad) private {
        IChannels.Channel memory before = slot();

        vm.expectEmit(address(channels));
        emit IChannels.RowsSkipped(payee, 1);
        vm.recordLogs();
        uint96 earned = channels.claim(payee, bad);

        vm.assertEq(vm.getRecordedLogs().length, 1, "nothing else is said");
        vm.assertEq(earned, 0, "earned");
        vm.assertEq(keccak256(abi.encode(slot())), keccak256(abi.encode(before)), "slot");
    }

    function _word(bytes memory data, uint256 offset) private pure returns (bytes32 word) {
        for (uint256 i = 0; i < 32; ++i) {
            word |= bytes32(data[offset + i]) >> (8 * i);
        }
    }
}
