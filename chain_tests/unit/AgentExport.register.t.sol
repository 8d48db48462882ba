// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IAgentExport} from "../../contracts/interfaces/IAgentExport.sol";
import {AgentFixture} from "../AgentFixture.sol";

contract AgentExportRegisterTest is AgentFixture {
    function test_GivesTheAgentToTheNodeAndSaysSo() public {
        // Agent 0 is somebody else's.
        agentOf(stranger);

        vm.expectEmit(address(agentExport));
        emit IAgentExport.AgentLinked(payee, 1);
        uint256 agentId = _register(payee);

        vm.assertEq(agentId, 1, "agent");
        vm.assertEq(agents.ownerOf(1), payee, "its owner");
        vm.assertEq(agents.uris(1), "agent://node", "its location");
        assertLinked(payee, 1);
    }

    function test_LinksAgentZero() public {
        vm.assertEq(_register(payee), 0, "agent");

        assertLinked(payee, 0);
    }

    function test_LinksTheNewerAgent() public {
        uint256 first = _register(payee);
        uint256 second = _register(payee);

        assertLinked(payee, second);
        vm.assertEq(agents.ownerOf(first), payee, "the older is kept");
    }

    function test_RevertGiven_UnknownNode() public {
        vm.expectRevert(
            abi.encodeWithSelector(IAgentExport.AgentExport_UnknownNode.selector, stranger)
        );
        _register(stranger);

        vm.assertEq(agents.count(), 0, "no agent");
    }

    function _register(address owner) private returns (uint256) {
        vm.prank(owner);
        return agentExport.register("agent://node");
    }
}
