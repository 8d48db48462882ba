// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../Fixture.sol";

contract NodeRegistrySetRolesTest is Fixture {
    function test_ReplacesItAndSaysSo() public {
        join(payee, NODE_KEY, 0);

        vm.expectEmit(address(nodes));
        emit INodeRegistry.RolesSet(payee, 15);
        vm.prank(payee);
        nodes.setRoles(15);

        vm.assertEq(nodes.nodeOf(payee).roles, 15, "roles");
    }

    function test_RevertGiven_UnknownNode() public {
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_UnknownNode.selector, stranger)
        );
        vm.prank(stranger);
        nodes.setRoles(15);
    }

    function test_StopsServingInADroppedRole() public {
        join(payee, NODE_KEY, MIN_STAKE);
        vm.assertTrue(nodes.serves(payee, 1), "a gateway");

        vm.prank(payee);
        nodes.setRoles(2);

        vm.assertFalse(nodes.serves(payee, 1), "no gateway");
        vm.assertTrue(nodes.serves(payee, 2), "a worker");
    }

    function test_RevertWhen_BadRoles() public {
        join(payee, NODE_KEY, 0);
        vm.startPrank(payee);

        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_BadRoles.selector, 0));
        nodes.setRoles(0);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_BadRoles.selector, 16));
        nodes.setRoles(16);
    }
}
