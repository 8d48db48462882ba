// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../Fixture.sol";

contract NodeRegistrySetEndpointTest is Fixture {
    function test_ReplacesItAndSaysSo() public {
        join(payee, NODE_KEY, 0);

        vm.expectEmit(address(nodes));
        emit INodeRegistry.EndpointSet(payee, "elsewhere");
        vm.prank(payee);
        nodes.setEndpoint("elsewhere");

        vm.assertEq(nodes.nodeOf(payee).endpoint, "elsewhere", "endpoint");
    }

    function test_RevertGiven_UnknownNode() public {
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_UnknownNode.selector, stranger)
        );
        vm.prank(stranger);
        nodes.setEndpoint("elsewhere");
    }

    function test_RevertWhen_EndpointTooLong() public {
        join(payee, NODE_KEY, 0);

        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_EndpointTooLong.selector, 257, 256)
        );
        vm.prank(payee);
        nodes.setEndpoint(string(new bytes(257)));
    }
}
