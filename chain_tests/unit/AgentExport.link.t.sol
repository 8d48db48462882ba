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

    function test_ChangesTheAgent() public {
        uint256 first = agentOf(payee);
        uint256 second = agentOf(payee);
        link(payee, first);

        link(payee, second);

        assertLinked(payee, second);
        sell(payee, other, first);
        link(other, first);
        assertLinked(payee, second);
        assertLinked(other, first);
    }

    function test_TakesTheSameAgentAgain() public {
        uint256 agentId = agentOf(payee);
        link(payee, agentId);
        link(payee, agentId);

        assertLinked(payee, agentId);
        sell(payee, other, agentId);
        link(other, agentId);
        assertNotLinked(payee);
    }

    function test_UnlinksTheSeller() public {
        uint256 agentId = agentOf(payee);
        link(payee, agentId);
        sell(payee, other, agentId);

        link(other, agentId);

        assertLinked(other, agentId);
        assertNotLinked(payee);
    }

    function test_LeavesTheBuyerAloneWhenTheSellerChanges() public {
        uint256 sold = agentOf(payee);
        link(payee, sold);
        sell(payee, other, sold);
        link(other, sold);

        uint256 fresh = agentOf(payee);
        link(payee, fresh);

        assertLinked(payee, fresh);
        assertLinked(other, sold);
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
