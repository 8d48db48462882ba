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

    function test_RevertGiven_AlreadyLinked() public {
        uint256 first = _register(payee);

        expectAlreadyLinked(payee, first);
        _register(payee);

        sell(payee, other, first);
        expectAlreadyLinked(payee, first);
        _register(payee);
        vm.assertEq(agents.count(), 1, "no second agent");
    }

    /// @dev ERC-8004's registry gives no number twice; this holds if one ever does.
    function test_RevertGiven_AgentTaken() public {
        uint256 agentId = _register(payee);
        bytes memory callData = abi.encodeCall(agents.register, ("agent://node"));
        vm.mockCall(address(agents), callData, abi.encode(agentId));

        expectAgentTaken(agentId, payee);
        _register(other);
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
