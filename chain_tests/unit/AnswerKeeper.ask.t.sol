// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IRequests} from "../../contracts/interfaces/IRequests.sol";

import {KeeperFixture} from "../KeeperFixture.sol";

contract AnswerKeeperAskTest is KeeperFixture {
    function test_PaysFromItsOwnTokens() public {
        (uint256 id, IRequests.Params memory params) = asKeeper();

        vm.assertEq(requests.openRequest(id), keccak256(abi.encode(params)), "open");
        vm.assertEq(token.balanceOf(address(keeper)), RICH - 1e6, "its tokens");
        vm.assertEq(keeper.requests(), address(requests), "where it asks");
        vm.assertEq(keeper.answers(id), 0, "it waits");
    }

    function test_RevertWhen_CallerNotOwner() public {
        IRequests.Order memory what = order();

        vm.expectRevert(notOwner());
        vm.prank(stranger);
        keeper.ask(what, IDS);
    }
}
