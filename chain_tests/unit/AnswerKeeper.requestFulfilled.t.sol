// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IRequests} from "../../contracts/interfaces/IRequests.sol";

import {PlaitConsumer} from "../../contracts/PlaitConsumer.sol";
import {IAnswerKeeper, KeeperFixture} from "../KeeperFixture.sol";

contract AnswerKeeperRequestFulfilledTest is KeeperFixture {
    function test_KeepsTheAnswersHashAndSaysSo() public {
        (uint256 id, IRequests.Params memory params) = asKeeper();

        vm.expectEmit(address(keeper));
        emit IAnswerKeeper.Answered(id, keccak256(OUTPUT));
        fulfil(nodeKey, id, params);

        vm.assertEq(keeper.answers(id), keccak256(OUTPUT), "what is kept");
    }

    function test_IsNotCalledWithoutCallbackGas() public {
        IRequests.Order memory what = order();
        IRequests.Params memory params = askedBy(address(keeper), what);
        uint256 id = keeper.ask(what, IDS);

        fulfil(nodeKey, id, params);

        vm.assertEq(keeper.answers(id), 0, "nothing is kept");
        vm.assertEq(requests.openRequest(id), 0, "but it is over");
    }

    function test_RevertWhen_CallerNotRequests() public {
        vm.expectRevert(
            abi.encodeWithSelector(PlaitConsumer.PlaitConsumer_CallerNotRequests.selector, stranger)
        );
        vm.prank(stranger);
        keeper.requestFulfilled(1, RECEIPT, OUTPUT);
    }
}
