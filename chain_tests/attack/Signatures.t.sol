// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {Fixture} from "../Fixture.sol";

/// @notice The other forms that a good signature can be bent into count nowhere.
contract SignaturesAttackTest is Fixture {
    uint256 private constant _ORDER =
        0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
    uint256 private constant _PARITY = 1 << 255;

    uint32 private constant _DUE = uint32(START + EXIT_DELAY);

    function setUp() public override {
        super.setUp();
        join(payee, NODE_KEY, MIN_STAKE);
        open(5e6);
    }

    function testFuzz_Voucher_BentFormsEarnNothing(uint96 cumulative) public {
        cumulative = uint96(bound(cumulative, 1, 5e6));
        bytes memory good = row(cumulative);
        (bytes32 r, bytes32 vs) = _signatureOf(good);
        bytes32[2][] memory forms = _bent(r, vs);
        for (uint256 i = 0; i < forms.length; ++i) {
            // Its first byte may happen to be 27 or 28.
            if (forms[i][0] == r && forms[i][1] == vs) continue;
            bytes memory bent = abi.encodePacked(
                payer, cumulative, uint32(1), bytes32(uint256(cumulative)), forms[i][0], forms[i][1]
            );
            vm.assertEq(channels.claim(payee, bent), 0, vm.toString(i));
        }
        vm.assertEq(slot().claimed, 0, "claimed");

        channels.claim(payee, good);
        vm.assertEq(channels.claim(payee, good), 0, "the good form counts once");
        vm.assertEq(slot().claimed, cumulative, "claimed");
    }

    function test_Close_BentFormsAreRefused() public {
        vm.prank(payer);
        channels.exit(payee, signer);
        vm.warp(START + 1);
        (bytes32 r, bytes32 vs) = consent(NODE_KEY, 0, _DUE);
        bytes32[2][] memory forms = _bent(r, vs);
        bytes32 hash = channels.closeDigest(payer, payee, signer, 0, _DUE);
        for (uint256 i = 0; i < forms.length; ++i) {
            (address recovered,,) = ECDSA.tryRecover(hash, forms[i][0], forms[i][1]);
            vm.assertTrue(recovered != nodeKey, "not the key");
            vm.expectRevert(
                abi.encodeWithSelector(
                    IChannels.Channels_BadClose.selector, idOf(payer, signer), 0, _DUE, recovered
                )
            );
            channels.close(payer, payee, signer, forms[i][0], forms[i][1]);
        }
        vm.assertEq(slot().exitAt, _DUE, "the exit goes on");
    }

    function test_KeyProof_BentFormsAreRefused() public {
        address key = vm.addr(OTHER_NODE_KEY);
        (bytes32 r, bytes32 vs) = vm.signCompact(OTHER_NODE_KEY, keyDigest(payee, key));
        bytes32[2][] memory forms = _bent(r, vs);
        for (uint256 i = 0; i < forms.length; ++i) {
            (address recovered,,) =
                ECDSA.tryRecover(keyDigest(payee, key), forms[i][0], forms[i][1]);
            vm.expectRevert(
                abi.encodeWithSelector(
                    INodeRegistry.NodeRegistry_BadKeyProof.selector, key, recovered
                )
            );
            vm.prank(payee);
            nodes.addServiceKey(key, forms[i][0], forms[i][1]);
        }
        (address owner,,) = nodes.serviceKey(key);
        vm.assertEq(owner, address(0), "not bound");
    }

    /// @dev The tokens' signatures have v, r and s; the library they use refuses a high s.
    function test_PermitAndAuthorization_HighSMovesNothing() public {
        uint256 poorKey = 0x900D;
        address poor = vm.addr(poorKey);
        token.mint(poor, RICH);
        IChannels.Permit memory permit = permitFor(poorKey, 5e6);
        (permit.s, permit.v) = (bytes32(_ORDER - uint256(permit.s)), 55 - permit.v);
        vm.expectRevert(
            abi.encodeWithSelector(
                IERC20Errors.ERC20InsufficientAllowance.selector, address(channels), 0, 5e6
            )
        );
        vm.prank(poor);
        channels.openWithPermit(payee, signer, 5e6, permit);

        IChannels.Authorization memory good =
            authorizationFor(poorKey, idOf(poor, signer), 5e6, "salt");
        (good.s, good.v) = (bytes32(_ORDER - uint256(good.s)), 55 - good.v);
        vm.expectRevert(abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureS.selector, good.s));
        channels.openWithAuthorization(poor, payee, signer, 5e6, good);

        vm.assertEq(token.balanceOf(poor), RICH, "the payer has lost nothing");
    }

    /// @dev The other s with the other parity; the other s that keeps the parity; the other parity;
    /// a parity byte of 27 or 28 as in 65-byte signatures; parts that are zero or out of range.
    function _bent(bytes32 r, bytes32 vs) private pure returns (bytes32[2][] memory forms) {
        uint256 parity = uint256(vs) & _PARITY;
        uint256 s = uint256(vs) & ~_PARITY;
        forms = new bytes32[2][](9);
        forms[0] = [r, bytes32((_ORDER - s) | (parity ^ _PARITY))];
        forms[1] = [r, bytes32((_ORDER - s) | parity)];
        forms[2] = [r, bytes32(uint256(vs) ^ _PARITY)];
        forms[3] = [r, bytes32((s & (type(uint256).max >> 8)) | 27 << 248)];
        forms[4] = [r, bytes32((s & (type(uint256).max >> 8)) | 28 << 248)];
        forms[5] = [bytes32(0), bytes32(0)];
        forms[6] = [bytes32(0), vs];
        forms[7] = [r, bytes32(parity)];
        forms[8] = [bytes32(_ORDER), vs];
    }

    function _signatureOf(bytes memory rows) private pure returns (bytes32 r, bytes32 vs) {
        assembly ("memory-safe") {
            r := mload(add(rows, 100))
            vs := mload(add(rows, 132))
        }
    }
}
