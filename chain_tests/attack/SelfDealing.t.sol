// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {RequestsFixture} from "../RequestsFixture.sol";

/// @notice A node pays itself to look busy: each point of its score costs a base unit of burned fee.
contract SelfDealingAttackTest is RequestsFixture {
    uint96 private constant _SPENT = 100e6;

    function test_TenThousandJobsInOneVoucher_BuyWhatTheirFeeBurned() public {
        open(_SPENT);
        channels.claim(payee, row(payer, SIGNER_KEY, _SPENT, 10_000, "root"));

        vm.assertEq(slot().jobs, 10_000, "the jobs are claimed");
        vm.assertEq(reputation.scoreOf(payee), 1e6, "the score is the fee");
        _assertCost(1e6);
    }

    function test_OneJobOrTenThousand_AreWorthTheSame() public {
        open(_SPENT);
        uint256 snapshot = vm.snapshotState();
        channels.claim(payee, row(payer, SIGNER_KEY, _SPENT, 1, "root"));
        uint96 one = reputation.scoreOf(payee);
        vm.revertToState(snapshot);
        channels.claim(payee, row(payer, SIGNER_KEY, _SPENT, 10_000, "root"));

        vm.assertEq(reputation.scoreOf(payee), one, "score");
    }

    function test_AHundredClaims_BuyWhatTheirFeeBurned() public {
        open(_SPENT);
        for (uint32 i = 1; i <= 100; ++i) {
            channels.claim(payee, row(payer, SIGNER_KEY, uint96(i) * 1e6 - i % 7, i * 100, "root"));
        }
        channels.claim(payee, row(payer, SIGNER_KEY, _SPENT, 10_000, "root"));

        uint96 score = reputation.scoreOf(payee);
        vm.assertTrue(score > 1e6, "split claims are rounded up");
        _assertCost(score);
    }

    function testFuzz_ManyPayers_BuyWhatTheirFeeBurned(uint96[5] memory amounts) public {
        bytes memory rows = "";
        uint96 total = 0;
        for (uint256 i = 0; i < amounts.length; ++i) {
            uint96 amount = uint96(bound(amounts[i], 1, _SPENT));
            total += amount;
            address from = address(uint160(0x10_0000 + i));
            fund(from);
            vm.prank(from);
            channels.open(payee, signer, amount);
            rows = bytes.concat(rows, row(from, SIGNER_KEY, amount, 10_000, "root"));
        }
        channels.claim(payee, rows);

        vm.assertEq(reputation.scoreOf(payee), feeUp(total), "score");
        channels.burn(payee);
        vm.assertEq(token.balanceOf(BURN), feeUp(total), "burned");
    }

    /// @dev Two identities that pay each other in a circle burn for each score on its own.
    function test_ManyPayees_ShareNoScore() public {
        fund(stranger);
        address owner = payee;
        open(_SPENT);
        claim(_SPENT);
        payee = stranger;
        join(stranger, OTHER_NODE_KEY, MIN_STAKE);
        open(_SPENT);
        claim(_SPENT);

        vm.assertEq(reputation.scoreOf(owner), 1e6, "one");
        vm.assertEq(reputation.scoreOf(stranger), 1e6, "the other");
        channels.burn(owner);
        channels.burn(stranger);
        vm.assertEq(token.balanceOf(BURN), 2e6, "each was paid for");
    }

    function test_OwnRequests_BuyWhatTheirFeeBurned() public {
        IRequests.Order memory what = order();
        what.fee = _SPENT;
        (uint256 id, IRequests.Params memory params) = ask(payer, what);
        fulfil(nodeKey, id, params);

        vm.assertEq(reputation.scoreOf(payee), 1e6, "score");
        _assertCost(1e6);
    }

    function test_AfterAVerdict_APointCostsTwice() public {
        open(2 * _SPENT);
        claim(_SPENT);
        vm.prank(arbiter);
        nodes.slash(payee, 1);
        claim(2 * _SPENT);

        vm.assertEq(reputation.scoreOf(payee), 1e6, "two fees, one score");
    }

    /// @dev All the rest comes back, an epoch or two later; what is missing is what was burned.
    function _assertCost(uint96 burned) private {
        nextEpoch();
        nextEpoch();
        while (true) {
            (, uint96 mature) = channels.pendingOf(payee);
            if (mature == 0) break;
            channels.release(payee);
            nextEpoch();
        }
        channels.burn(payee);
        uint256 owned = token.balanceOf(payer) + token.balanceOf(payee) + MIN_STAKE;
        vm.assertEq(2 * uint256(RICH) - owned, burned, "what both together have lost");
        vm.assertEq(token.balanceOf(BURN), burned, "burned");
        vm.assertLe(reputation.scoreOf(payee), burned, "no point was cheaper");
    }
}
