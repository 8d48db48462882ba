// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IAgentExport} from "../../contracts/interfaces/IAgentExport.sol";
import {AgentFixture} from "../AgentFixture.sol";

contract AgentExportConstructorTest is AgentFixture {
    function test_LinksNobody() public view {
        assertNotLinked(payee);
    }

    function test_TakesAsManyDecimalsAsERC8004() public {
        tokenHas(18);

        vm.deployCode("AgentExport.sol:AgentExport", abi.encode(reputation, feedback));
    }

    function test_RevertGiven_TooManyDecimals() public {
        tokenHas(19);

        vm.expectRevert(
            abi.encodeWithSelector(IAgentExport.AgentExport_TooManyDecimals.selector, 19, 18)
        );
        vm.deployCode("AgentExport.sol:AgentExport", abi.encode(reputation, feedback));
    }

    function tokenHas(uint8 decimals) private {
        vm.mockCall(address(token), abi.encodeCall(token.decimals, ()), abi.encode(decimals));
    }

    function test_RevertWhen_AddressZero() public {
        bytes memory zero = abi.encodeWithSelector(IAgentExport.AgentExport_AddressZero.selector);
        vm.expectRevert(zero);
        vm.deployCode("AgentExport.sol:AgentExport", abi.encode(0, feedback));
        vm.expectRevert(zero);
        vm.deployCode("AgentExport.sol:AgentExport", abi.encode(reputation, 0));
    }
}
