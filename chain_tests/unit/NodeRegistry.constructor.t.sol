// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../Fixture.sol";

contract NodeRegistryConstructorTest is Fixture {
    function test_KeepsItsParameters() public view {
        vm.assertEq(nodes.channels(), address(channels), "channels");
        vm.assertEq(nodes.token(), address(token), "token");
        vm.assertEq(nodes.arbiter(), arbiter, "arbiter");
        vm.assertEq(nodes.minStake(), MIN_STAKE, "minStake");
        vm.assertEq(nodes.unbondingDelay(), UNBONDING, "unbondingDelay");
    }

    function test_RevertWhen_AddressZero() public {
        bytes memory zero = abi.encodeWithSelector(INodeRegistry.NodeRegistry_AddressZero.selector);
        _expect(zero, abi.encode(0, channels, arbiter, MIN_STAKE, UNBONDING));
        _expect(zero, abi.encode(token, 0, arbiter, MIN_STAKE, UNBONDING));
    }

    function test_RevertWhen_MinStakeZero() public {
        _expect(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_MinStakeZero.selector),
            abi.encode(token, channels, arbiter, 0, UNBONDING)
        );
    }

    function test_RevertWhen_UnbondingTooLong() public {
        _expect(
            abi.encodeWithSelector(
                INodeRegistry.NodeRegistry_UnbondingTooLong.selector, 365 days + 1, 365 days
            ),
            abi.encode(token, channels, arbiter, MIN_STAKE, 365 days + 1)
        );
    }

    function _expect(bytes memory reason, bytes memory arguments) private {
        vm.expectRevert(reason);
        vm.deployCode("NodeRegistry.sol:NodeRegistry", arguments);
    }
}
