// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC721Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {IAgentExport} from "../../contracts/interfaces/IAgentExport.sol";
import {AgentFixture} from "../AgentFixture.sol";

contract AgentExportLinkTest is AgentFixture {
    function test_LinksTheAgentAndSaysSo() public {
        uint256 agentId = agentOf(payee);

        vm.expectEmit(address(agentExport));
        emit IAgentExport.AgentLinked(payee, agentId);
        link(payee, agentId);

        assertLinked(payee, agentId);
    }

    function test_KeepsTheAgentThatWasSold() public {
        uint256 agentId = agentOf(payee);
        link(payee, agentId);

        sell(payee, stranger, agentId);

        assertLinked(payee, agentId);
    }

    /// @dev Else the fee that a node burned once would give its score to any number of agents.
    function test_RevertGiven_AlreadyLinked() public {
        uint256 first = agentOf(payee);
        uint256 second = agentOf(payee);
        link(payee, first);

        expectAlreadyLinked(payee, first);
        link(payee, second);

        sell(payee, other, first);
        expectAlreadyLinked(payee, first);
        link(payee, second);
        assertLinked(payee, first);
        link(other, agentOf(other));
    }

    function test_RevertWhen_TheSameAgentAgain() public {
        uint256 agentId = agentOf(payee);
        link(payee, agentId);

        expectAlreadyLinked(payee, agentId);
        link(payee, agentId);
    }

    /// @dev Else an agent would carry the feedback of two nodes.
    function test_RevertGiven_AgentTaken() public {
        uint256 agentId = agentOf(payee);
        link(payee, agentId);
        sell(payee, other, agentId);

        expectAgentTaken(agentId, payee);
        link(other, agentId);

        assertLinked(payee, agentId);
        assertNotLinked(other);
    }

    function test_RevertWhen_CallerNotAgentOwner() public {
        uint256 agentId = agentOf(payee);

        vm.expectRevert(
            abi.encodeWithSelector(
                IAgentExport.AgentExport_CallerNotAgentOwner.selector, agentId, other
            )
        );
        link(other, agentId);
    }

    function test_RevertWhen_NoSuchAgent() public {
        vm.expectRevert(abi.encodeWithSelector(IERC721Errors.ERC721NonexistentToken.selector, 7));
        link(payee, 7);
    }

    function test_RevertGiven_UnknownNode() public {
        uint256 agentId = agentOf(stranger);

        vm.expectRevert(
            abi.encodeWithSelector(IAgentExport.AgentExport_UnknownNode.selector, stranger)
        );
        link(stranger, agentId);
    }
}
