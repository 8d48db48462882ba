// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {TypedData} from "../../contracts/libraries/TypedData.sol";
import {Fixture} from "../Fixture.sol";

contract ChannelsConstructorTest is Fixture {
    function test_KeepsItsParameters() public view {
        vm.assertEq(channels.token(), address(token), "token");
        vm.assertEq(channels.nodes(), address(nodes), "nodes");
        vm.assertEq(channels.requests(), address(requests), "requests");
        vm.assertEq(channels.arbiter(), arbiter, "arbiter");
        vm.assertEq(channels.epochLength(), EPOCH, "epochLength");
        vm.assertEq(channels.exitDelay(), EXIT_DELAY, "exitDelay");
        vm.assertEq(channels.feeBps(), FEE_BPS, "feeBps");
        vm.assertEq(channels.epochNow(), START / EPOCH, "epochNow");
    }

    function test_SignsUnderOneDomainOfThisChain() public {
        vm.assertEq(domain, TypedData.domain(address(channels)), "the library's");
        vm.assertEq(
            channels.voucherDigest(payer, payee, 1, 2, "root"),
            digest(TypedData.voucher(payer, payee, 1, 2, "root")),
            "voucher"
        );
        vm.assertEq(
            channels.closeDigest(payer, payee, signer, 1, 2),
            digest(TypedData.close(payer, payee, signer, 1, 2)),
            "close"
        );
        vm.chainId(12_345);
        vm.assertEq(
            channels.domainSeparator(),
            TypedData.domain(address(channels)),
            "it follows the chain's id"
        );
    }

    function test_RevertWhen_AddressZero() public {
        bytes memory zero = abi.encodeWithSelector(IChannels.Channels_AddressZero.selector);
        _expect(zero, abi.encode(0, nodes, requests, 0, EPOCH, EXIT_DELAY, FEE_BPS));
        _expect(zero, abi.encode(token, 0, requests, 0, EPOCH, EXIT_DELAY, FEE_BPS));
        _expect(zero, abi.encode(token, nodes, 0, 0, EPOCH, EXIT_DELAY, FEE_BPS));
    }

    function test_RevertWhen_EpochZero() public {
        _expect(
            abi.encodeWithSelector(IChannels.Channels_EpochZero.selector),
            abi.encode(token, nodes, requests, 0, 0, EXIT_DELAY, FEE_BPS)
        );
    }

    function test_RevertWhen_FeeTooHigh() public {
        _expect(
            abi.encodeWithSelector(IChannels.Channels_FeeTooHigh.selector, 1001, 1000),
            abi.encode(token, nodes, requests, 0, EPOCH, EXIT_DELAY, 1001)
        );
    }

    function test_RevertWhen_ExitDelayOutOfBounds() public {
        _expect(
            abi.encodeWithSelector(IChannels.Channels_BadExitDelay.selector, 0, 30 days),
            abi.encode(token, nodes, requests, 0, EPOCH, 0, FEE_BPS)
        );
        _expect(
            abi.encodeWithSelector(IChannels.Channels_BadExitDelay.selector, 30 days + 1, 30 days),
            abi.encode(token, nodes, requests, 0, EPOCH, 30 days + 1, FEE_BPS)
        );
    }

    function test_RevertWhen_RegistryNamesOther() public {
        _expect(
            abi.encodeWithSelector(IChannels.Channels_RegistryNamesOther.selector, channels),
            abi.encode(token, nodes, requests, 0, EPOCH, EXIT_DELAY, FEE_BPS)
        );
    }

    function test_RevertWhen_UnbondingTooShort() public {
        address next = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        address registry = vm.deployCode(
            "NodeRegistry.sol:NodeRegistry", abi.encode(token, next, 0, MIN_STAKE, 2 * EPOCH - 1)
        );

        _expect(
            abi.encodeWithSelector(
                IChannels.Channels_UnbondingTooShort.selector, 2 * EPOCH - 1, EPOCH
            ),
            abi.encode(token, registry, requests, 0, EPOCH, EXIT_DELAY, FEE_BPS)
        );
    }

    function test_RevertWhen_RegistryHasAnotherArbiter() public {
        address registry = _registry(address(token), arbiter);

        _expect(
            abi.encodeWithSelector(IChannels.Channels_RegistryDiffers.selector, token, arbiter),
            abi.encode(token, registry, requests, stranger, EPOCH, EXIT_DELAY, FEE_BPS)
        );
    }

    function test_RevertWhen_RegistryHasAnotherToken() public {
        address registry = _registry(stranger, arbiter);

        _expect(
            abi.encodeWithSelector(IChannels.Channels_RegistryDiffers.selector, stranger, arbiter),
            abi.encode(token, registry, requests, arbiter, EPOCH, EXIT_DELAY, FEE_BPS)
        );
    }

    /// @dev A registry that names the contract deployed next.
    function _registry(address staked, address judge) private returns (address) {
        address next = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        return vm.deployCode(
            "NodeRegistry.sol:NodeRegistry", abi.encode(staked, next, judge, MIN_STAKE, UNBONDING)
        );
    }

    function _expect(bytes memory reason, bytes memory arguments) private {
        vm.expectRevert(reason);
        vm.deployCode("Channels.sol:Channels", arguments);
    }
}
