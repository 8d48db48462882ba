// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {IReputation} from "../../contracts/interfaces/IReputation.sol";
import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {TypedData} from "../../contracts/libraries/TypedData.sol";
import {Fixture} from "../Fixture.sol";

contract DeploymentTest is Fixture {
    function test_ContractsNameEachOther() public view {
        vm.assertEq(nodes.channels(), address(channels), "nodes.channels");
        vm.assertEq(nodes.token(), address(token), "nodes.token");
        vm.assertEq(nodes.arbiter(), arbiter, "nodes.arbiter");
        vm.assertEq(nodes.minStake(), MIN_STAKE, "minStake");
        vm.assertEq(nodes.unbondingDelay(), UNBONDING, "unbondingDelay");
        vm.assertEq(channels.nodes(), address(nodes), "channels.nodes");
        vm.assertEq(channels.token(), address(token), "channels.token");
        vm.assertEq(channels.requests(), address(requests), "channels.requests");
        vm.assertEq(channels.arbiter(), arbiter, "channels.arbiter");
        vm.assertEq(channels.epochLength(), EPOCH, "epochLength");
        vm.assertEq(channels.exitDelay(), EXIT_DELAY, "exitDelay");
        vm.assertEq(channels.feeBps(), FEE_BPS, "feeBps");
        vm.assertEq(requests.channels(), address(channels), "requests.channels");
        vm.assertEq(requests.nodes(), address(nodes), "requests.nodes");
        vm.assertEq(requests.token(), address(token), "requests.token");
        vm.assertEq(reputation.channels(), address(channels), "reputation.channels");
        vm.assertEq(reputation.tierUnit(), TIER_UNIT, "tierUnit");
        vm.assertEq(token.decimals(), 6, "decimals");
    }

    function test_OneDomain() public {
        vm.assertEq(domain, TypedData.domain(address(channels)), "the library's");
        vm.chainId(12_345);
        vm.assertEq(
            channels.domainSeparator(),
            TypedData.domain(address(channels)),
            "it follows the chain's id"
        );
    }

    function test_NodeRegistry_RevertWhen_BadParameter() public {
        bytes memory zero = abi.encodeWithSelector(INodeRegistry.NodeRegistry_AddressZero.selector);
        _expectNodes(zero, abi.encode(0, channels, arbiter, MIN_STAKE, UNBONDING));
        _expectNodes(zero, abi.encode(token, 0, arbiter, MIN_STAKE, UNBONDING));
        _expectNodes(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_MinStakeZero.selector),
            abi.encode(token, channels, arbiter, 0, UNBONDING)
        );
        _expectNodes(
            abi.encodeWithSelector(
                INodeRegistry.NodeRegistry_UnbondingTooLong.selector, 365 days + 1, 365 days
            ),
            abi.encode(token, channels, arbiter, MIN_STAKE, 365 days + 1)
        );
    }

    function test_Channels_RevertWhen_BadParameter() public {
        bytes memory zero = abi.encodeWithSelector(IChannels.Channels_AddressZero.selector);
        _expectChannels(zero, abi.encode(0, nodes, requests, 0, EPOCH, EXIT_DELAY, FEE_BPS));
        _expectChannels(zero, abi.encode(token, 0, requests, 0, EPOCH, EXIT_DELAY, FEE_BPS));
        _expectChannels(zero, abi.encode(token, nodes, 0, 0, EPOCH, EXIT_DELAY, FEE_BPS));
        _expectChannels(
            abi.encodeWithSelector(IChannels.Channels_EpochZero.selector),
            abi.encode(token, nodes, requests, 0, 0, EXIT_DELAY, FEE_BPS)
        );
        _expectChannels(
            abi.encodeWithSelector(IChannels.Channels_FeeTooHigh.selector, 1001, 1000),
            abi.encode(token, nodes, requests, 0, EPOCH, EXIT_DELAY, 1001)
        );
        _expectChannels(
            abi.encodeWithSelector(IChannels.Channels_BadExitDelay.selector, 0, 30 days),
            abi.encode(token, nodes, requests, 0, EPOCH, 0, FEE_BPS)
        );
        _expectChannels(
            abi.encodeWithSelector(IChannels.Channels_BadExitDelay.selector, 30 days + 1, 30 days),
            abi.encode(token, nodes, requests, 0, EPOCH, 30 days + 1, FEE_BPS)
        );
    }

    function test_Channels_RevertWhen_RegistryNamesOther() public {
        _expectChannels(
            abi.encodeWithSelector(IChannels.Channels_RegistryNamesOther.selector, channels),
            abi.encode(token, nodes, requests, 0, EPOCH, EXIT_DELAY, FEE_BPS)
        );
    }

    function test_Channels_RevertWhen_UnbondingTooShort() public {
        address next = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        address registry = vm.deployCode(
            "NodeRegistry.sol:NodeRegistry", abi.encode(token, next, 0, MIN_STAKE, EPOCH)
        );

        _expectChannels(
            abi.encodeWithSelector(IChannels.Channels_UnbondingTooShort.selector, EPOCH, EPOCH),
            abi.encode(token, registry, requests, 0, EPOCH, EXIT_DELAY, FEE_BPS)
        );
    }

    function test_Requests_RevertWhen_ChannelsNamesOther() public {
        vm.expectRevert(
            abi.encodeWithSelector(IRequests.Requests_ChannelsNamesOther.selector, requests)
        );
        vm.deployCode("Requests.sol:Requests", abi.encode(channels));
    }

    function test_Reputation_RevertWhen_BadParameter() public {
        vm.expectRevert(abi.encodeWithSelector(IReputation.Reputation_AddressZero.selector));
        vm.deployCode("Reputation.sol:Reputation", abi.encode(0, TIER_UNIT));
        vm.expectRevert(abi.encodeWithSelector(IReputation.Reputation_TierUnitZero.selector));
        vm.deployCode("Reputation.sol:Reputation", abi.encode(channels, 0));
    }

    function _expectNodes(bytes memory reason, bytes memory arguments) private {
        vm.expectRevert(reason);
        vm.deployCode("NodeRegistry.sol:NodeRegistry", arguments);
    }

    function _expectChannels(bytes memory reason, bytes memory arguments) private {
        vm.expectRevert(reason);
        vm.deployCode("Channels.sol:Channels", arguments);
    }
}
