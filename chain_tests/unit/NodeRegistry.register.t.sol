// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../Fixture.sol";

contract NodeRegistryRegisterTest is Fixture {
    bytes32 private constant _DHT = keccak256("dht");

    function test_KeepsTheNodeAndSaysSo() public {
        vm.expectEmit(address(nodes));
        emit INodeRegistry.NodeRegistered(payee, 5, "http://node:1", _DHT);
        _register(5, "http://node:1");

        INodeRegistry.Node memory node = nodes.nodeOf(payee);
        vm.assertEq(node.owner, payee, "owner");
        vm.assertEq(node.serviceKey, address(0), "serviceKey");
        vm.assertEq(node.roles, 5, "roles");
        vm.assertEq(node.endpoint, "http://node:1", "endpoint");
        vm.assertEq(node.dhtKey, _DHT, "dhtKey");
        vm.assertEq(node.registeredAt, START, "registeredAt");
        vm.assertFalse(node.active, "not active without stake");
        vm.assertEq(nodes.nodeCount(), 0, "not listed without stake");
    }

    function test_TakesTheLongestEndpointAndAllRoles() public {
        string memory longest = string(new bytes(256));

        _register(15, longest);

        vm.assertEq(nodes.nodeOf(payee).roles, 15, "roles");
        vm.assertEq(nodes.nodeOf(payee).endpoint, longest, "endpoint");
    }

    function test_RevertGiven_AlreadyRegistered() public {
        _register(1, "");

        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_AlreadyRegistered.selector, payee)
        );
        _register(1, "");
    }

    function test_RevertWhen_BadRoles() public {
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_BadRoles.selector, 0));
        _register(0, "");
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_BadRoles.selector, 16));
        _register(16, "");
    }

    function test_RevertWhen_EndpointTooLong() public {
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_EndpointTooLong.selector, 257, 256)
        );
        _register(1, string(new bytes(257)));
    }

    function _register(uint8 roles, string memory endpoint) private {
        vm.prank(payee);
        nodes.register(roles, endpoint, _DHT);
    }
}
