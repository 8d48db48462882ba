// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../Fixture.sol";

contract NodeRegistryServingOwnerTest is Fixture {
    function setUp() public override {
        super.setUp();
        join(payee, NODE_KEY, MIN_STAKE);
    }

    function test_AsksForAllRoles() public view {
        _assert(nodeKey, 1, payee, true);
        _assert(nodeKey, 7, payee, true);
        _assert(nodeKey, 8, payee, false);
        _assert(nodeKey, 9, payee, false);
        vm.assertTrue(nodes.serves(payee, 7), "all its roles");
        vm.assertFalse(nodes.serves(payee, 9), "one of two");
        vm.assertFalse(nodes.serves(stranger, 1), "no node");
    }

    function test_NamesTheOwnerOfAnInactiveNode() public {
        vm.prank(payee);
        nodes.unbond(1);

        _assert(nodeKey, 1, payee, false);
        vm.assertFalse(nodes.serves(payee, 1), "serves");
    }

    function test_NamesTheOwnerOfAJailedNode() public {
        vm.prank(arbiter);
        nodes.jail(payee, uint64(START + 1));

        _assert(nodeKey, 1, payee, false);
    }

    function test_NamesNobodyForARevokedKey() public {
        vm.prank(payee);
        nodes.revokeServiceKey(nodeKey);

        _assert(nodeKey, 1, address(0), false);
    }

    function test_NamesNobodyForAnUnknownKey() public view {
        _assert(stranger, 1, address(0), false);
        _assert(payee, 1, address(0), false);
        _assert(address(0), 0, address(0), false);
    }

    function _assert(address key, uint8 roles, address owner, bool serving) private view {
        (address who, bool serves) = nodes.servingOwner(key, roles);
        vm.assertEq(who, owner, "owner");
        vm.assertEq(serves, serving, "serving");
    }
}
