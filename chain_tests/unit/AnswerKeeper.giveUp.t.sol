// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IRequests} from "../../contracts/interfaces/IRequests.sol";

import {IAnswerKeeper, KeeperFixture} from "../KeeperFixture.sol";

contract AnswerKeeperGiveUpTest is KeeperFixture {
    function test_EndsTheRequestAndSaysSo() public {
        (uint256 id, IRequests.Params memory params) = asKeeper();
        vm.warp(EXCLUSIVE_UNTIL + 1);

        vm.expectEmit(address(keeper));
        emit IAnswerKeeper.NotAnswered(id, 1e6);
        keeper.giveUp(id, params);

        vm.assertEq(token.balanceOf(address(keeper)), RICH, "its tokens");
        vm.assertEq(keeper.answers(id), keeper.REFUNDED(), "what is kept");
    }

    function test_RevertWhen_StillExclusive() public {
        (uint256 id, IRequests.Params memory params) = asKeeper();

        vm.expectRevert(
            abi.encodeWithSelector(IRequests.Requests_StillExclusive.selector, id, EXCLUSIVE_UNTIL)
        );
        keeper.giveUp(id, params);
    }

    function test_RevertWhen_CallerNotOwner() public {
        (uint256 id, IRequests.Params memory params) = asKeeper();
        vm.warp(EXCLUSIVE_UNTIL + 1);

        vm.expectRevert(notOwner());
        vm.prank(stranger);
        keeper.giveUp(id, params);
    }
}
