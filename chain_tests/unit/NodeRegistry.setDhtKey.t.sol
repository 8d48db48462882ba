// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../Fixture.sol";

contract NodeRegistrySetDhtKeyTest is Fixture {
    function test_ReplacesItAndSaysSo() public {
        join(payee, NODE_KEY, 0);

        vm.expectEmit(address(nodes));
        emit INodeRegistry.DhtKeySet(payee, keccak256("dht"));
        vm.prank(payee);
        nodes.setDhtKey(keccak256("dht"));

        vm.assertEq(nodes.nodeOf(payee).dhtKey, keccak256("dht"), "dhtKey");
    }

    function test_RevertGiven_UnknownNode() public {
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_UnknownNode.selector, stranger)
        );
        vm.prank(stranger);
        nodes.setDhtKey(keccak256("dht"));
    }
}
