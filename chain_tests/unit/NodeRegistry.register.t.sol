// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../Fixture.sol";

contract NodeRegistryRegisterTest is Fixture {
    bytes32 private constant _DHT = keccak256("dht");

    function test_Register_KeepsTheNodeAndSaysSo() public {
        vm.expectEmit(address(nodes));
        emit INodeRegistry.NodeRegistered(payee, 5, "http://node:1", _DHT);
        _register(5, "http://node:1");

        INodeRegistry.Node memory node = nodes.nodeOf(payee);
        vm.assertEq(node.owner, payee, "owner");
        vm.assertEq(node.roles, 5, "roles");
        vm.assertEq(node.endpoint, "http://node:1", "endpoint");
        vm.assertEq(node.dhtKey, _DHT, "dhtKey");
        vm.assertEq(node.registeredAt, START, "registeredAt");
        vm.assertFalse(node.active, "not active without stake");
        vm.assertEq(nodes.nodeCount(), 0, "not listed without stake");
    }

    function test_RevertGiven_AlreadyRegistered() public {
        _register(1, "");

        vm.expectRevert(_err(INodeRegistry.NodeRegistry_AlreadyRegistered.selector, payee));
        _register(1, "");
    }

    function test_RevertWhen_BadRoles() public {
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_BadRoles.selector, uint8(0))
        );
        _register(0, "");
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_BadRoles.selector, uint8(16))
        );
        _register(16, "");
    }

    function test_RevertWhen_EndpointTooLong() public {
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_EndpointTooLong.selector, 257, 256)
        );
        _register(1, string(new bytes(257)));
    }

    function test_Setters_ReplaceAndSaySo() public {
        _register(1, "");
        vm.startPrank(payee);

        vm.expectEmit(address(nodes));
        emit INodeRegistry.RolesSet(payee, 15);
        nodes.setRoles(15);
        vm.expectEmit(address(nodes));
        emit INodeRegistry.EndpointSet(payee, "elsewhere");
        nodes.setEndpoint("elsewhere");
        vm.expectEmit(address(nodes));
        emit INodeRegistry.DhtKeySet(payee, _DHT);
        nodes.setDhtKey(_DHT);

        INodeRegistry.Node memory node = nodes.nodeOf(payee);
        vm.assertEq(node.roles, 15, "roles");
        vm.assertEq(node.endpoint, "elsewhere", "endpoint");
        vm.assertEq(node.dhtKey, _DHT, "dhtKey");
    }

    function test_Setters_RevertGiven_UnknownNode() public {
        bytes memory unknown = _err(INodeRegistry.NodeRegistry_UnknownNode.selector, stranger);
        vm.startPrank(stranger);
        vm.expectRevert(unknown);
        nodes.setRoles(1);
        vm.expectRevert(unknown);
        nodes.setEndpoint("");
        vm.expectRevert(unknown);
        nodes.setDhtKey(0);
        vm.expectRevert(unknown);
        nodes.addServiceKey(nodeKey, 0, 0);
        vm.expectRevert(unknown);
        nodes.stake(1);
    }

    function test_Setters_RevertWhen_ValueBad() public {
        _register(1, "");
        vm.startPrank(payee);
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_BadRoles.selector, uint8(0))
        );
        nodes.setRoles(0);
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_EndpointTooLong.selector, 257, 256)
        );
        nodes.setEndpoint(string(new bytes(257)));
    }

    function test_AddServiceKey_BindsTheKeyAndSaysSo() public {
        _register(1, "");

        vm.expectEmit(address(nodes));
        emit INodeRegistry.ServiceKeyAdded(payee, nodeKey, uint48(START));
        addKey(payee, NODE_KEY);

        (address owner, uint48 validFrom, uint48 revokedAt) = nodes.serviceKey(nodeKey);
        vm.assertEq(owner, payee, "owner");
        vm.assertEq(validFrom, START, "validFrom");
        vm.assertEq(revokedAt, 0, "revokedAt");
        vm.assertEq(nodes.nodeOf(payee).serviceKey, nodeKey, "the node's key");
        vm.assertEq(nodes.serviceKeysOf(payee).length, 1, "keys ever");
    }

    function test_AddServiceKey_RevertGiven_Taken() public {
        _register(1, "");
        addKey(payee, NODE_KEY);
        (bytes32 r, bytes32 vs) = vm.signCompact(NODE_KEY, keyDigest(stranger, nodeKey));
        vm.startPrank(stranger);
        nodes.register(1, "", 0);

        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_KeyTaken.selector, nodeKey, payee)
        );
        nodes.addServiceKey(nodeKey, r, vs);
    }

    function test_AddServiceKey_RevertGiven_OwnAndRevoked() public {
        _register(1, "");
        addKey(payee, NODE_KEY);
        (bytes32 r, bytes32 vs) = vm.signCompact(NODE_KEY, keyDigest(payee, nodeKey));
        vm.startPrank(payee);
        nodes.revokeServiceKey(nodeKey);

        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_KeyTaken.selector, nodeKey, payee)
        );
        nodes.addServiceKey(nodeKey, r, vs);
    }

    function test_AddServiceKey_RevertWhen_ProofByOtherKey() public {
        _register(1, "");
        (bytes32 r, bytes32 vs) = vm.signCompact(OTHER_NODE_KEY, keyDigest(payee, nodeKey));

        _expectBadProof(nodeKey, vm.addr(OTHER_NODE_KEY));
        vm.prank(payee);
        nodes.addServiceKey(nodeKey, r, vs);
    }

    function test_AddServiceKey_RevertWhen_ProofForOtherOwner() public {
        _register(1, "");
        (bytes32 r, bytes32 vs) = vm.signCompact(NODE_KEY, keyDigest(stranger, nodeKey));

        vm.expectRevert();
        vm.prank(payee);
        nodes.addServiceKey(nodeKey, r, vs);
        (address owner,,) = nodes.serviceKey(nodeKey);
        vm.assertEq(owner, address(0), "not bound");
    }

    function test_AddServiceKey_RevertWhen_ZeroKey() public {
        _register(1, "");

        _expectBadProof(address(0), address(0));
        vm.prank(payee);
        nodes.addServiceKey(address(0), 0, 0);
    }

    function test_RevokeServiceKey_KeepsTheOwnerAndSaysSo() public {
        _register(1, "");
        addKey(payee, OTHER_NODE_KEY);
        addKey(payee, NODE_KEY);
        vm.warp(START + 5);

        vm.expectEmit(address(nodes));
        emit INodeRegistry.ServiceKeyRevoked(payee, nodeKey, uint48(START + 5));
        vm.prank(payee);
        nodes.revokeServiceKey(nodeKey);

        (address owner, uint48 validFrom, uint48 revokedAt) = nodes.serviceKey(nodeKey);
        vm.assertEq(owner, payee, "owner");
        vm.assertEq(validFrom, START, "validFrom");
        vm.assertEq(revokedAt, START + 5, "revokedAt");
        vm.assertEq(nodes.nodeOf(payee).serviceKey, address(0), "no key is shown");
        vm.assertEq(nodes.serviceKeysOf(payee).length, 2, "keys ever");
    }

    function test_RevokeServiceKey_RevertWhen_NotOwned() public {
        _register(1, "");
        addKey(payee, NODE_KEY);

        vm.expectRevert(
            abi.encodeWithSelector(
                INodeRegistry.NodeRegistry_KeyNotOwned.selector, nodeKey, stranger
            )
        );
        vm.prank(stranger);
        nodes.revokeServiceKey(nodeKey);
    }

    function test_RevokeServiceKey_RevertGiven_Revoked() public {
        _register(1, "");
        addKey(payee, NODE_KEY);
        vm.startPrank(payee);
        nodes.revokeServiceKey(nodeKey);

        vm.expectRevert(
            abi.encodeWithSelector(
                INodeRegistry.NodeRegistry_KeyRevoked.selector, nodeKey, uint48(START)
            )
        );
        nodes.revokeServiceKey(nodeKey);
    }

    function _register(uint8 roles, string memory endpoint) private {
        vm.prank(payee);
        nodes.register(roles, endpoint, _DHT);
    }

    function _expectBadProof(address key, address recovered) private {
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_BadKeyProof.selector, key, recovered)
        );
    }

    function _err(bytes4 selector, address who) private pure returns (bytes memory) {
        return abi.encodeWithSelector(selector, who);
    }
}
