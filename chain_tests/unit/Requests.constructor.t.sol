// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {RequestsFixture} from "../RequestsFixture.sol";

contract RequestsConstructorTest is RequestsFixture {
    function test_TakesTheRestFromChannels() public view {
        vm.assertEq(requests.channels(), address(channels), "channels");
        vm.assertEq(requests.nodes(), address(nodes), "nodes");
        vm.assertEq(requests.token(), address(token), "token");
        vm.assertEq(requests.requestCount(), 0, "requestCount");
        vm.assertEq(requests.MIN_EXCLUSIVE(), 60, "MIN_EXCLUSIVE");
        vm.assertEq(requests.MAX_CALLBACK_GAS(), 1_000_000, "MAX_CALLBACK_GAS");
    }

    function test_NamesRequestsUnderTheChainsId() public {
        (uint256 id, IRequests.Params memory params) = ask();
        bytes32 here = requests.digestOf(id, params);
        bytes32 seed = requests.seedOf(id);

        vm.chainId(12_345);

        vm.assertTrue(requests.digestOf(id, params) != here, "another name after a fork");
        vm.assertTrue(requests.seedOf(id) != seed, "another seed after a fork");
    }

    function test_RevertWhen_ChannelsNamesOther() public {
        vm.expectRevert(
            abi.encodeWithSelector(IRequests.Requests_ChannelsNamesOther.selector, requests)
        );
        vm.deployCode("Requests.sol:Requests", abi.encode(channels));
    }
}
