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
        assertOneLive(agentId, type(uint96).max);
    }

    function test_LeavesOneFeedbackAfterManyExports() public {
        for (uint96 i = 1; i <= 10; ++i) {
            claim(i * 1e6);

            vm.assertEq(agentExport.exportScore(payee), i * 10_000, "score");

            assertOneLive(agentId, i * 10_000);
        }
        vm.assertEq(feedback.getLastIndex(agentId, address(agentExport)), 10, "given");
    }

    function test_ReplacesTheScoreThatFell() public {
        claim(10e6);
        agentExport.exportScore(payee);
        vm.prank(arbiter);
        nodes.slash(payee, 1);
        agentExport.exportScore(payee);
        assertOneLive(agentId, 50_000);
        vm.prank(arbiter);
        channels.forfeit(payee);

        agentExport.exportScore(payee);

        assertOneLive(agentId, 0);
    }

    /// @dev The fee that a node burned speaks for one agent, whatever the node owns, sells or buys.
    function test_ScoresOneAgentForOneFee() public {
        uint256 second = agentOf(payee);
        claim(10e6);
        agentExport.exportScore(payee);
        sell(payee, other, agentId);

        expectAlreadyLinked(payee, agentId);
        link(payee, second);
        expectAgentTaken(agentId, payee);
        link(other, agentId);

        assertNoneLive(second);
        assertOneLive(agentId, 100_000);
        expectMoved();
        agentExport.exportScore(payee);
        vm.expectRevert(abi.encodeWithSelector(IAgentExport.AgentExport_NotLinked.selector, other));
        agentExport.exportScore(other);
    }

    function test_GoesOnWhenTheNodeOwnsTheAgentAgain() public {
        claim(10e6);
        agentExport.exportScore(payee);
        sell(payee, stranger, agentId);
        claim(20e6);
        expectMoved();
        agentExport.exportScore(payee);
        sell(stranger, payee, agentId);

        agentExport.exportScore(payee);

        assertOneLive(agentId, 200_000);
    }

    /// @dev Strangers must not be able to drag the average down, or to fill the registry.
    function test_RevertGiven_Unchanged() public {
        claim(10e6);
        agentExport.exportScore(payee);
        for (uint256 i = 0; i < 5; ++i) {
            expectUnchanged(100_000);
            vm.prank(stranger);
            agentExport.exportScore(payee);
        }
        assertOneLive(agentId, 100_000);

        vm.prank(arbiter);
        channels.forfeit(payee);
        agentExport.exportScore(payee);
        for (uint256 i = 0; i < 5; ++i) {
            expectUnchanged(0);
            vm.prank(stranger);
            agentExport.exportScore(payee);
        }
        assertOneLive(agentId, 0);
        vm.assertEq(feedback.getLastIndex(agentId, address(agentExport)), 2, "given");
    }

    function test_RevertGiven_ZeroAndNoneExported() public {
        for (uint256 i = 0; i < 5; ++i) {
            expectUnchanged(0);
            vm.prank(stranger);
            agentExport.exportScore(payee);
        }
        assertNoneLive(agentId);

        claim(10e6);
        agentExport.exportScore(payee);
        assertOneLive(agentId, 100_000);
    }

    function test_RevertGiven_NotLinked() public {
        vm.expectRevert(abi.encodeWithSelector(IAgentExport.AgentExport_NotLinked.selector, other));
        agentExport.exportScore(other);
    }

    /// @dev What was exported stays up, which the interface warns of.
    function test_RevertGiven_AgentMoved() public {
        claim(10e6);
        agentExport.exportScore(payee);
        vm.prank(arbiter);
        nodes.slash(payee, 1);
        sell(payee, stranger, agentId);

        expectMoved();
        agentExport.exportScore(payee);

        assertOneLive(agentId, 100_000);
    }

    /// @dev What was exported stays up, which the interface warns of.
    function test_RevertGiven_TheNodeMadeItAnOperator() public {
        claim(10e6);
        agentExport.exportScore(payee);
        vm.prank(arbiter);
        nodes.slash(payee, 1);

        vm.prank(payee);
        agents.setApprovalForAll(address(agentExport), true);
        vm.expectRevert(abi.encodeWithSelector(Feedback.SelfFeedback.selector));
        agentExport.exportScore(payee);

        vm.startPrank(payee);
        agents.setApprovalForAll(address(agentExport), false);
        agents.approve(address(agentExport), agentId);
        vm.stopPrank();
        vm.expectRevert(abi.encodeWithSelector(Feedback.SelfFeedback.selector));
        agentExport.exportScore(payee);

        assertOneLive(agentId, 100_000);
    }

    function expectMoved() private {
        vm.expectRevert(
            abi.encodeWithSelector(IAgentExport.AgentExport_AgentMoved.selector, agentId, payee)
        );
    }

    function expectUnchanged(uint96 score) private {
        vm.expectRevert(
            abi.encodeWithSelector(IAgentExport.AgentExport_Unchanged.selector, payee, score)
        );
    }
}
