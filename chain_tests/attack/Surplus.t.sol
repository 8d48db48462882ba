// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {RequestsFixture} from "../RequestsFixture.sol";

/// @notice A stranger sends a base unit to every contract: a surplus is information, nothing else.
contract SurplusAttackTest is RequestsFixture {
    function setUp() public override {
        super.setUp();
        token.mint(stranger, 6);
        vm.startPrank(stranger);
        token.transfer(address(channels), 1);
        token.transfer(address(requests), 1);
        token.transfer(address(nodes), 1);
        token.transfer(address(models), 1);
        token.transfer(address(reputation), 1);
        token.transfer(BURN, 1);
        vm.stopPrank();
    }

    function test_SurplusIsNobodys() public {
        open(5e6);
        claim(2e6);
        (uint256 id, IRequests.Params memory params) = ask();
        (uint256 late, IRequests.Params memory lateParams) = ask();
        fulfil(nodeKey, id, params);
        vm.prank(payer);
        channels.exit(payee, signer);
        vm.prank(payee);
        nodes.unbond(MIN_STAKE / 2);
        nextEpoch();
        nextEpoch();
        vm.warp(block.timestamp + UNBONDING);

        requests.refund(late, lateParams);
        channels.release(payee);
        channels.burn(payee);
        vm.prank(payer);
        channels.withdraw(payee, signer);
        vm.startPrank(payee);
        nodes.withdrawUnbonded();
        nodes.unbond(MIN_STAKE / 2);
        vm.warp(block.timestamp + UNBONDING);
        nodes.withdrawUnbonded();
        vm.stopPrank();

        vm.assertEq(token.balanceOf(address(channels)), 1, "Channels");
        vm.assertEq(token.balanceOf(address(requests)), 1, "Requests");
        vm.assertEq(token.balanceOf(address(nodes)), 1, "NodeRegistry");
        vm.assertEq(token.balanceOf(payer), RICH - 3e6, "payer");
        vm.assertEq(token.balanceOf(payee), RICH + 2_970_000, "payee");
        vm.assertEq(token.balanceOf(BURN), 30_001, "burned");
    }

    function test_SurplusBuysNoScoreAndCreditsNobody() public {
        vm.assertEq(reputation.scoreOf(payee), 0, "score");
        (uint96 maturing, uint96 mature) = channels.pendingOf(payee);
        vm.assertEq(maturing + mature, 0, "pending");
        vm.expectRevert(abi.encodeWithSelector(IChannels.Channels_NothingPending.selector, payee));
        vm.prank(arbiter);
        channels.forfeit(payee);
        vm.expectRevert(abi.encodeWithSelector(IChannels.Channels_NothingToBurn.selector, payee));
        channels.burn(payee);
    }

    function test_SurplusDoesNotPayForAnything() public {
        vm.prank(payer);
        token.approve(address(channels), 0);

        vm.prank(payer);
        (bool success,) = address(channels).call(abi.encodeCall(IChannels.open, (payee, signer, 1)));

        vm.assertFalse(success, "the unit that is there is not the payer's");
        vm.assertEq(slot().deposit, 0, "nothing opened");
    }

    function test_CoinsAreNotTaken() public {
        address[5] memory all = [
            address(channels),
            address(requests),
            address(nodes),
            address(models),
            address(reputation)
        ];
        vm.deal(address(this), 5);
        for (uint256 i = 0; i < all.length; ++i) {
            (bool success,) = all[i].call{value: 1}("");
            vm.assertFalse(success, "refused");
        }
    }
}
