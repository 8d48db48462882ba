// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {RequestsFixture} from "../RequestsFixture.sol";

/// @notice What was signed for one chain, deployment or channel counts in no other, and what was paid in
/// one life of a channel is not paid again in the next.
contract ReplayAttackTest is RequestsFixture {
    uint256 private constant _POOR_KEY = 0x900D;
    uint32 private constant _DUE = uint32(START + EXIT_DELAY);

    function setUp() public override {
        super.setUp();
        open(5e6);
    }

    // ---- another chain, another deployment

    function test_Voucher_OnAnotherChain_EarnsNothing() public {
        bytes memory rows = row(2e6);
        vm.chainId(12_345);

        vm.assertEq(channels.claim(payee, rows), 0, "earned");

        vm.assertEq(slot().claimed, 0, "the payer is whole");
    }

    function test_Voucher_OfAnotherDeployment_EarnsNothing() public {
        bytes memory rows = row(2e6);
        _deployAnother();
        open(5e6);

        vm.assertEq(channels.claim(payee, rows), 0, "earned");

        vm.assertEq(slot().claimed, 0, "the payer is whole");
    }

    function test_Close_OnAnotherChain_IsRefused() public {
        _exit();
        (bytes32 r, bytes32 vs) = consent(NODE_KEY, 0, _DUE);
        vm.chainId(12_345);

        _expectBadClose(r, vs);
        channels.close(payer, payee, signer, r, vs);
    }

    function test_Close_OfAnotherDeployment_IsRefused() public {
        (bytes32 r, bytes32 vs) = consent(NODE_KEY, 0, _DUE);
        _deployAnother();
        join(payee, NODE_KEY, MIN_STAKE);
        open(5e6);
        _exit();

        _expectBadClose(r, vs);
        channels.close(payer, payee, signer, r, vs);
    }

    function test_KeyProof_OnAnotherChain_IsRefused() public {
        address key = vm.addr(OTHER_NODE_KEY);
        (bytes32 r, bytes32 vs) = vm.signCompact(OTHER_NODE_KEY, keyDigest(payee, key));
        vm.chainId(12_345);

        _expectBadKeyProof(key, r, vs);
        vm.prank(payee);
        nodes.addServiceKey(key, r, vs);
    }

    function test_KeyProof_OfAnotherDeployment_IsRefused() public {
        address key = vm.addr(OTHER_NODE_KEY);
        (bytes32 r, bytes32 vs) = vm.signCompact(OTHER_NODE_KEY, keyDigest(payee, key));
        _deployAnother();
        vm.prank(payee);
        nodes.register(1, "", 0);

        _expectBadKeyProof(key, r, vs);
        vm.prank(payee);
        nodes.addServiceKey(key, r, vs);
    }

    function test_Request_OfAnotherDeployment_HasAnotherName() public {
        (uint256 id, IRequests.Params memory params) = ask();
        bytes32 name = requests.digestOf(id, params);
        _deployAnother();
        (uint256 other, IRequests.Params memory same) = ask();

        vm.assertEq(other, id, "the same number");
        vm.assertEq(keccak256(abi.encode(same)), keccak256(abi.encode(params)), "the same order");
        vm.assertTrue(requests.digestOf(other, same) != name, "another name, so another receipt");
    }

    // ---- another channel

    function test_Voucher_OfAnotherPayer_EarnsNothing() public {
        fund(stranger);
        vm.prank(stranger);
        channels.open(payee, signer, 5e6);
        bytes memory rows = row(stranger, SIGNER_KEY, 2e6, 1, "root");
        bytes20 from = bytes20(payer);
        for (uint256 i = 0; i < 20; ++i) {
            rows[i] = from[i];
        }

        vm.assertEq(channels.claim(payee, rows), 0, "one session key, two payers");

        vm.assertEq(slot().claimed, 0, "the payer is whole");
    }

    function test_Authorization_ForAnotherChannel_IsRefused() public {
        address poor = vm.addr(_POOR_KEY);
        token.mint(poor, RICH);
        IChannels.Authorization memory authorization =
            authorizationFor(_POOR_KEY, idOf(poor, signer), 5e6, "salt");
        bytes memory refused = abi.encodeWithSelector(ERC3009.ERC3009InvalidSignature.selector);
        vm.startPrank(stranger);

        vm.expectRevert(refused);
        channels.openWithAuthorization(poor, stranger, signer, 5e6, authorization);
        vm.expectRevert(refused);
        channels.openWithAuthorization(poor, payee, stranger, 5e6, authorization);
        vm.expectRevert(refused);
        channels.openWithAuthorization(stranger, payee, signer, 5e6, authorization);

        vm.assertEq(token.balanceOf(poor), RICH, "the signer has lost nothing");
        channels.openWithAuthorization(poor, payee, signer, 5e6, authorization);
        vm.assertEq(channels.channel(idOf(poor, signer)).deposit, 5e6, "its own channel");
    }

    function test_Authorization_OfAnotherDeployment_IsRefused() public {
        address poor = vm.addr(_POOR_KEY);
        token.mint(poor, RICH);
        IChannels.Authorization memory authorization =
            authorizationFor(_POOR_KEY, idOf(poor, signer), 5e6, "salt");
        _deployAnother();

        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009InvalidSignature.selector));
        channels.openWithAuthorization(poor, payee, signer, 5e6, authorization);
    }

    function test_Permit_OfAnotherDeploymentOrAccount_IsRefused() public {
        address poor = vm.addr(_POOR_KEY);
        token.mint(poor, RICH);
        token.mint(stranger, RICH);
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 5e6);

        _expectNoAllowance();
        vm.prank(stranger);
        channels.openWithPermit(payee, signer, 5e6, permit);
        _deployAnother();
        _expectNoAllowance();
        vm.prank(poor);
        channels.openWithPermit(payee, signer, 5e6, permit);

        vm.assertEq(token.balanceOf(poor), RICH, "the signer has lost nothing");
    }

    // ---- another life of the channel

    function test_OldVouchers_AfterAClose_EarnNothing() public {
        bytes memory old = row(2e6);
        bytes memory older = row(1e6);
        channels.claim(payee, old);
        _exit();
        (bytes32 r, bytes32 vs) = consent(NODE_KEY, 2e6, _DUE);
        channels.close(payer, payee, signer, r, vs);
        open(5e6);

        vm.assertEq(channels.claim(payee, bytes.concat(old, older)), 0, "earned");

        vm.assertEq(slot().claimed, 2e6, "claimed");
        vm.assertEq(slot().deposit, 7e6, "the new deposit is whole");
    }

    function test_OldVouchers_AfterManyLives_EarnNothing() public {
        bytes memory all = "";
        uint96 total = 0;
        for (uint96 life = 0; life < 5; ++life) {
            if (life != 0) open(5e6);
            total += 3e6;
            all = bytes.concat(all, row(total));
            claim(total);
            _exit();
            vm.warp(block.timestamp + EXIT_DELAY);
            vm.prank(payer);
            channels.withdraw(payee, signer);
        }
        open(5e6);

        vm.assertEq(channels.claim(payee, all), 0, "earned");

        vm.assertEq(token.balanceOf(payer), RICH - total - 5e6, "paid for work once");
    }

    function test_OldConsent_ForANewExit_IsRefused() public {
        _exit();
        (bytes32 r, bytes32 vs) = consent(NODE_KEY, 0, _DUE);
        channels.close(payer, payee, signer, r, vs);
        open(5e6);
        _exit();

        bytes32 hash = channels.closeDigest(payer, payee, signer, 0, _DUE + 1);
        (address recovered,,) = ECDSA.tryRecover(hash, r, vs);
        vm.expectRevert(
            abi.encodeWithSelector(
                IChannels.Channels_BadClose.selector, idOf(payer, signer), 0, _DUE + 1, recovered
            )
        );
        channels.close(payer, payee, signer, r, vs);
    }

    function _deployAnother() private {
        deployOver(token);
        vm.startPrank(payer);
        token.approve(address(channels), type(uint256).max);
        token.approve(address(requests), type(uint256).max);
        vm.stopPrank();
        vm.prank(payee);
        token.approve(address(nodes), type(uint256).max);
    }

    function _exit() private {
        vm.prank(payer);
        channels.exit(payee, signer);
        vm.warp(block.timestamp + 1);
    }

    function _expectBadClose(bytes32 r, bytes32 vs) private {
        bytes32 hash = channels.closeDigest(payer, payee, signer, 0, _DUE);
        (address recovered,,) = ECDSA.tryRecover(hash, r, vs);
        vm.assertTrue(recovered != nodeKey, "the domain is another");
        vm.expectRevert(
            abi.encodeWithSelector(
                IChannels.Channels_BadClose.selector, idOf(payer, signer), 0, _DUE, recovered
            )
        );
    }

    function _expectBadKeyProof(address key, bytes32 r, bytes32 vs) private {
        domain = channels.domainSeparator();
        (address recovered,,) = ECDSA.tryRecover(keyDigest(payee, key), r, vs);
        vm.assertTrue(recovered != key, "the domain is another");
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_BadKeyProof.selector, key, recovered)
        );
    }

    function _expectNoAllowance() private {
        vm.expectRevert(
            abi.encodeWithSelector(
                IERC20Errors.ERC20InsufficientAllowance.selector, address(channels), 0, 5e6
            )
        );
    }
}
