// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IAgentExport} from "../contracts/interfaces/IAgentExport.sol";
import {Fixture} from "./Fixture.sol";
import {Agents, Feedback} from "./mocks/Agents.sol";

/// @notice A deployment beside the registries of ERC-8004, with two nodes.
abstract contract AgentFixture is Fixture {
    Agents internal agents;
    Feedback internal feedback;
    IAgentExport internal agentExport;
    address internal other = address(0xA1);

    function setUp() public virtual override {
        super.setUp();
        agents = new Agents();
        feedback = new Feedback(agents);
        agentExport = IAgentExport(
            vm.deployCode("AgentExport.sol:AgentExport", abi.encode(reputation, feedback))
        );
        join(payee, NODE_KEY, MIN_STAKE);
        join(other, OTHER_NODE_KEY, 0);
        open(500e6);
    }

    function agentOf(address owner) internal returns (uint256 agentId) {
        vm.prank(owner);
        return agents.register("agent://elsewhere");
    }

    function link(address owner, uint256 agentId) internal {
        vm.prank(owner);
        agentExport.link(agentId);
    }

    function sell(address seller, address buyer, uint256 agentId) internal {
        vm.prank(seller);
        agents.transferFrom(seller, buyer, agentId);
    }

    function assertLinked(address owner, uint256 agentId) internal view {
        (uint256 linkedTo, bool linked) = agentExport.agentOf(owner);
        vm.assertTrue(linked, "linked");
        vm.assertEq(linkedTo, agentId, "the agent");
    }

    /// @dev Of feedback in the contract's name, just this one stands for the agent.
    function assertOneLive(uint256 agentId, uint96 score) internal view {
        (uint64 live, int128 average) = feedback.summary(agentId, address(agentExport));
        vm.assertEq(live, 1, "live feedback");
        vm.assertTrue(average == int128(uint128(score)), "the average is the score");
    }

    function assertNoneLive(uint256 agentId) internal view {
        (uint64 live,) = feedback.summary(agentId, address(agentExport));
        vm.assertEq(live, 0, "no live feedback");
    }

    function expectAlreadyLinked(address owner, uint256 agentId) internal {
        vm.expectRevert(
            abi.encodeWithSelector(IAgentExport.AgentExport_AlreadyLinked.selector, owner, agentId)
        );
    }

    function expectAgentTaken(uint256 agentId, address owner) internal {
        vm.expectRevert(
            abi.encodeWithSelector(IAgentExport.AgentExport_AgentTaken.selector, agentId, owner)
        );
    }

    function assertNotLinked(address owner) internal view {
        (uint256 linkedTo, bool linked) = agentExport.agentOf(owner);
        vm.assertFalse(linked, "not linked");
        vm.assertEq(linkedTo, 0, "no agent");
    }
}
