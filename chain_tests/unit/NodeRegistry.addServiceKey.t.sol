// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../Fixture.sol";

contract NodeRegistryAddServiceKeyTest is Fixture {
    function setUp() public override {
        super.setUp();
        _register(payee);
    }

    function test_BindsTheKeyAndSaysSo() public {
        vm.expectEmit(address(nodes));
        emit INodeRegistry.ServiceKeyAdded(payee, nodeKey, uint48(START));
        addKey(payee, NODE_KEY);

        (address owner, uint48 validFrom, uint48 revokedAt) = nodes.serviceKey(nodeKey);
        vm.assertEq(owner, payee, "owner");
        vm.assertEq(validFrom, START, "validFrom");
        vm.assertEq(revokedAt, 0, "revokedAt");
        vm.assertEq(nodes.nodeOf(payee).serviceKey, nodeKey, "the node's key");
        vm.assertEq(nodes.serviceKeysOf(payee).length, 1, "keys ever");
        vm.assertEq(nodes.serviceKeysOf(payee)[0], nodeKey, "the first key");
    }

    function testFuzz_BindsAnyKeyWithItsProof(uint256 key) public {
        key = bound(key, 1, type(uint128).max);

        addKey(payee, key);

        (address owner,,) = nodes.serviceKey(vm.addr(key));
        vm.assertEq(owner, payee, "owner");
    }

    function test_ShowsTheKeyAddedLast() public {
        addKey(payee, NODE_KEY);
        addKey(payee, OTHER_NODE_KEY);

        vm.assertEq(nodes.nodeOf(payee).serviceKey, vm.addr(OTHER_NODE_KEY), "the newer");
        vm.assertEq(nodes.serviceKeysOf(payee).length, 2, "keys ever");
        (address owner,) = nodes.servingOwner(nodeKey, 1);
        vm.assertEq(owner, payee, "the older is still valid");
    }

    function test_RevertGiven_UnknownNode() public {
        (bytes32 r, bytes32 vs) = vm.signCompact(NODE_KEY, keyDigest(stranger, nodeKey));

        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_UnknownNode.selector, stranger)
        );
        vm.prank(stranger);
        nodes.addServiceKey(nodeKey, r, vs);
    }

    function test_RevertGiven_Taken() public {
        addKey(payee, NODE_KEY);
        _register(stranger);
        (bytes32 r, bytes32 vs) = vm.signCompact(NODE_KEY, keyDigest(stranger, nodeKey));

        _expectTaken();
        vm.prank(stranger);
        nodes.addServiceKey(nodeKey, r, vs);
    }

    function test_RevertGiven_OwnAndRevoked() public {
        addKey(payee, NODE_KEY);
        (bytes32 r, bytes32 vs) = vm.signCompact(NODE_KEY, keyDigest(payee, nodeKey));
        vm.startPrank(payee);
        nodes.revokeServiceKey(nodeKey);

        _expectTaken();
        nodes.addServiceKey(nodeKey, r, vs);
    }

    function test_RevertWhen_ProofByOtherKey() public {
        (bytes32 r, bytes32 vs) = vm.signCompact(OTHER_NODE_KEY, keyDigest(payee, nodeKey));

        _expectBadProof(nodeKey, vm.addr(OTHER_NODE_KEY));
        vm.prank(payee);
        nodes.addServiceKey(nodeKey, r, vs);
    }

    function test_RevertWhen_ProofForOtherOwner() public {
        (bytes32 r, bytes32 vs) = vm.signCompact(NODE_KEY, keyDigest(stranger, nodeKey));
        (address recovered,,) = ECDSA.tryRecover(keyDigest(payee, nodeKey), r, vs);

        _expectBadProof(nodeKey, recovered);
        vm.prank(payee);
        nodes.addServiceKey(nodeKey, r, vs);
    }

    function test_RevertWhen_KeyZero() public {
        _expectBadProof(address(0), address(0));
        vm.prank(payee);
        nodes.addServiceKey(address(0), 0, 0);
    }

    function _register(address owner) private {
        vm.prank(owner);
        nodes.register(1, "", 0);
    }

    function _expectTaken() private {
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_KeyTaken.selector, nodeKey, payee)
        );
    }

    function _expectBadProof(address key, address recovered) private {
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_BadKeyProof.selector, key, recovered)
        );
    }
}
