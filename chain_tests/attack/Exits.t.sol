// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {Fixture} from "../Fixture.sol";

/// @notice A payer who leaves with its oldest voucher, and a payee who would not let it go.
contract ExitsAttackTest is Fixture {
    uint32 private constant _DUE = uint32(START + EXIT_DELAY);

    function setUp() public override {
        super.setUp();
        join(payee, NODE_KEY, MIN_STAKE);
        open(10e6);
    }

    function test_PayerSubmitsItsOldestVoucher_PayeeStillGetsTheNewest() public {
        bytes memory oldest = row(1e6);
        bytes memory newest = row(9e6);
        vm.startPrank(payer);
        channels.exit(payee, signer);
        channels.claim(payee, oldest);
        vm.stopPrank();
        vm.warp(_DUE - 1);

        vm.prank(payee);
        channels.claim(payee, newest);
        vm.warp(_DUE);
        vm.prank(payer);
        channels.withdraw(payee, signer);

        vm.assertEq(channels.accountOf(payee).earned, 9e6, "the payee has all it was signed");
        vm.assertEq(token.balanceOf(payer), RICH - 9e6, "the payer has the rest, no more");
    }

    /// @dev Up to the very withdrawal; who comes after it comes too late.
    function test_PayerSubmitsItsOldestVoucher_PayeeCanComeUntilTheWithdrawal() public {
        bytes memory newest = row(9e6);
        vm.prank(payer);
        channels.exit(payee, signer);
        vm.warp(_DUE + 30 days);
        vm.assertEq(channels.claim(payee, newest), 9e6, "late, but before the payer");

        vm.prank(payer);
        channels.withdraw(payee, signer);

        vm.assertEq(token.balanceOf(payer), RICH - 9e6, "the payer has the rest");
        vm.assertEq(channels.claim(payee, row(10e6)), 0, "too late");
    }

    function test_PayeeDripsOldVouchers_PayerLeavesOnTime() public {
        vm.prank(payer);
        channels.exit(payee, signer);
        for (uint96 paid = 1e6; paid <= 7e6; paid += 1e6) {
            vm.warp(START + uint256(paid) / 1e6 * EXIT_DELAY / 8);
            claim(paid);
            vm.assertEq(slot().exitAt, _DUE, "the exit's time stays");
        }
        vm.warp(_DUE);

        vm.prank(payer);
        channels.withdraw(payee, signer);

        vm.assertEq(token.balanceOf(payer), RICH - 7e6, "the payer has the rest");
        vm.assertEq(channels.accountOf(payee).earned, 7e6, "the payee what it was signed");
    }

    function test_PayeeHoldsBackItsConsent_PayerLeavesOnTime() public {
        vm.prank(payer);
        channels.exit(payee, signer);
        vm.prank(payee);
        nodes.revokeServiceKey(nodeKey);
        vm.warp(_DUE);

        vm.prank(payer);
        channels.withdraw(payee, signer);

        vm.assertEq(token.balanceOf(payer), RICH, "the payer has all");
    }

    function test_StrangerExitsAndTopsUpForThePayer_ChangesNothing() public {
        bytes32 id = keccak256(abi.encode(stranger, payee, signer));
        vm.startPrank(stranger);
        vm.expectRevert(abi.encodeWithSelector(IChannels.Channels_UnknownChannel.selector, id));
        channels.exit(payee, signer);
        vm.expectRevert(abi.encodeWithSelector(IChannels.Channels_NotExiting.selector, id));
        channels.withdraw(payee, signer);

        vm.assertEq(slot().exitAt, 0, "no exit");
        vm.assertEq(slot().deposit, 10e6, "deposit");
    }
}
