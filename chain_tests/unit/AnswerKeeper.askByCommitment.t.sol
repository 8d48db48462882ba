// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IRequests} from "../../contracts/interfaces/IRequests.sol";

import {KeeperFixture} from "../KeeperFixture.sol";

contract AnswerKeeperAskByCommitmentTest is KeeperFixture {
    bytes32 private constant _PROMPT = keccak256("prompt");

    function test_PaysFromItsOwnTokens() public {
        IRequests.Order memory what = order();

        uint256 id = keeper.askByCommitment(what, _PROMPT, 32);

        bytes32 kept = keccak256(abi.encode(paramsOf(address(keeper), what, _PROMPT, 32)));
        vm.assertEq(requests.openRequest(id), kept, "open");
        vm.assertEq(token.balanceOf(address(keeper)), RICH - 1e6, "its tokens");
    }

    function test_RevertWhen_CallerNotOwner() public {
        IRequests.Order memory what = order();

        vm.expectRevert(notOwner());
        vm.prank(stranger);
        keeper.askByCommitment(what, _PROMPT, 32);
    }
}
