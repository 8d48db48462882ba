// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC721Receiver} from "@openzeppelin/contracts/token/ERC721/IERC721Receiver.sol";

import {IAgentExport} from "../../contracts/interfaces/IAgentExport.sol";
import {AgentFixture} from "../AgentFixture.sol";
import {Agents} from "../mocks/Agents.sol";

contract AgentExportOnERC721ReceivedTest is AgentFixture {
    function test_TakesTheAgentBeingRegistered() public {
        vm.prank(address(agents));
        bytes4 answer = IERC721Receiver(address(agentExport))
            .onERC721Received(address(agentExport), address(0), 0, "");
        vm.assertTrue(answer == IERC721Receiver.onERC721Received.selector, "answer");

        // The registry mints with this hook.
        vm.prank(payee);
        agentExport.register("agent://node");
        vm.assertEq(agents.ownerOf(0), payee, "not kept");
    }

    function test_RevertWhen_CallerNotIdentityRegistry() public {
        Agents others = new Agents();
        vm.startPrank(payee);
        others.register("agent://elsewhere");

        expectUnexpected(address(others), 0);
        others.safeTransferFrom(payee, address(agentExport), 0);

        expectUnexpected(payee, 7);
        IERC721Receiver(address(agentExport))
            .onERC721Received(address(agentExport), address(0), 7, "");
    }

    function test_RevertWhen_SomebodySendsAnAgent() public {
        uint256 agentId = agentOf(payee);

        expectUnexpected(address(agents), agentId);
        vm.prank(payee);
        agents.safeTransferFrom(payee, address(agentExport), agentId);
    }

    function expectUnexpected(address sender, uint256 tokenId) private {
        vm.expectRevert(
            abi.encodeWithSelector(
                IAgentExport.AgentExport_UnexpectedToken.selector, sender, tokenId
            )
        );
    }
}
