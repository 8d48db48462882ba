// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../Fixture.sol";

contract NodeRegistryNodesTest is Fixture {
    address[3] private owners = [payee, address(0xA1), address(0xA2)];

    function setUp() public override {
        super.setUp();
        for (uint256 i = 0; i < 3; ++i) {
            if (i != 0) fund(owners[i]);
            join(owners[i], 0xF000 + i, MIN_STAKE);
        }
    }

    function test_PagesTheListedOnes() public view {
        vm.assertEq(nodes.nodes(0, 10).length, 3, "all");
        INodeRegistry.Node[] memory page = nodes.nodes(1, 1);
        vm.assertEq(page.length, 1, "one");
        vm.assertEq(page[0].owner, owners[1], "the second");
        vm.assertTrue(page[0].active, "active");
    }

    function test_IsEmptyPastTheEnd() public view {
        vm.assertEq(nodes.nodes(3, 5).length, 0, "past the end");
        vm.assertEq(nodes.nodes(type(uint256).max, type(uint256).max).length, 0, "far past");
        vm.assertEq(nodes.nodes(0, 0).length, 0, "no limit");
    }

    function testFuzz_PagesAnyPart(uint256 offset, uint256 limit) public view {
        uint256 expected = 0;
        if (offset < 3) expected = limit < 3 - offset ? limit : 3 - offset;

        INodeRegistry.Node[] memory page = nodes.nodes(offset, limit);

        vm.assertEq(page.length, expected, "length");
        for (uint256 i = 0; i < expected; ++i) {
            vm.assertEq(page[i].owner, nodes.nodeAt(offset + i), "owner");
        }
    }

    function test_MovesTheLastIntoAGap() public {
        vm.prank(owners[0]);
        nodes.unbond(1);

        INodeRegistry.Node[] memory page = nodes.nodes(0, 10);
        vm.assertEq(page.length, 2, "length");
        vm.assertEq(page[0].owner, owners[2], "the last moved up");
        vm.assertEq(page[1].owner, owners[1], "the other");
    }
}
