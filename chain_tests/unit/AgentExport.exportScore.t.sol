// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IAgentExport} from "../../contracts/interfaces/IAgentExport.sol";
import {AgentFixture} from "../AgentFixture.sol";
import {Feedback} from "../mocks/Agents.sol";

contract AgentExportExportScoreTest is AgentFixture {
    uint256 private agentId;

    function setUp() public override {
        super.setUp();
        // Agent 0 is somebody else's.
        agentOf(stranger);
        agentId = agentOf(payee);
        link(payee, agentId);
    }

    function test_GivesTheScoreAsFeedbackAndSaysSo() public {
        claim(10e6);

        vm.expectEmit(address(agentExport));
        emit IAgentExport.ScoreExported(payee, agentId, 100_000);
        vm.prank(stranger);
        uint96 score = agentExport.exportScore(payee);

        vm.assertEq(score, 100_000, "score");
        Feedback.Entry memory given = feedback.last();
        vm.assertEq(given.client, address(agentExport), "client");
        vm.assertEq(given.agentId, agentId, "agentId");
        vm.assertEq(given.decimals, 6, "decimals");
        vm.assertEq(given.tag1, "plait", "tag1");
        vm.assertEq(given.tag2, "burned-fee", "tag2");
        vm.assertEq(given.endpoint, "", "endpoint");
        vm.assertEq(given.uri, "", "uri");
        vm.assertEq(
            given.hash,
            keccak256(abi.encode(block.chainid, reputation, payee, uint96(100_000), block.number)),
            "hash"
        );
    }

    function testFuzz_GivesAnyScore(uint96 earned) public {
        earned = uint96(bound(earned, 1, 500e6));
        claim(earned);

        vm.assertEq(agentExport.exportScore(payee), feeUp(earned), "score");

        vm.assertTrue(feedback.last().value == int128(uint128(feeUp(earned))), "value");
    }

    /// @dev No deployment has so large a score; the cast must hold all the same.
    function test_GivesTheLargestScore() public {
        vm.mockCall(
            address(reputation),
            abi.encodeCall(reputation.scoreOf, (payee)),
            abi.encode(type(uint96).max)
        );

        agentExport.exportScore(payee);

        vm.assertTrue(feedback.last().value == int128(uint128(type(uint96).max)), "value");
    }

    function test_GivesItToTheBuyersNode() public {
        claim(10e6);
        sell(payee, other, agentId);
        link(other, agentId);

        vm.assertEq(agentExport.exportScore(other), 0, "the buyer's own score");
        vm.expectRevert(abi.encodeWithSelector(IAgentExport.AgentExport_NotLinked.selector, payee));
        agentExport.exportScore(payee);
    }

    function test_RevertGiven_NotLinked() public {
        vm.expectRevert(abi.encodeWithSelector(IAgentExport.AgentExport_NotLinked.selector, other));
        agentExport.exportScore(other);
    }

    function test_RevertGiven_AgentMoved() public {
        sell(payee, stranger, agentId);

        vm.expectRevert(
            abi.encodeWithSelector(IAgentExport.AgentExport_AgentMoved.selector, agentId, payee)
        );
        agentExport.exportScore(payee);
    }

    function test_RevertGiven_TheNodeMadeItAnOperator() public {
        vm.prank(payee);
        agents.setApprovalForAll(address(agentExport), true);

        vm.expectRevert(abi.encodeWithSelector(Feedback.SelfFeedback.selector));
        agentExport.exportScore(payee);
    }
}
