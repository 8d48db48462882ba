// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IRequests} from "../../contracts/interfaces/IRequests.sol";

import {PlaitConsumer} from "../../contracts/PlaitConsumer.sol";
import {IAnswerKeeper, KeeperFixture} from "../KeeperFixture.sol";

contract AnswerKeeperRequestRefundedTest is KeeperFixture {
    function test_KeepsThatThereIsNoneAndSaysSo() public {
        (uint256 id, IRequests.Params memory params) = asKeeper();
        vm.warp(DEADLINE + 1);

        vm.expectEmit(address(keeper));
        emit IAnswerKeeper.NotAnswered(id, 1e6);
        vm.prank(stranger);
        requests.refund(id, params);

        vm.assertEq(keeper.answers(id), bytes32(uint256(1)), "what is kept");
        vm.assertEq(token.balanceOf(address(keeper)), RICH, "its tokens");
    }

    function test_RevertWhen_CallerNotRequests() public {
        vm.expectRevert(
            abi.encodeWithSelector(PlaitConsumer.PlaitConsumer_CallerNotRequests.selector, stranger)
        );
        vm.prank(stranger);
        keeper.requestRefunded(1, 1e6);
    }
}
