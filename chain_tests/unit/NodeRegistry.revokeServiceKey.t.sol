// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../Fixture.sol";

contract NodeRegistryRevokeServiceKeyTest is Fixture {
    function setUp() public override {
        super.setUp();
        join(payee, OTHER_NODE_KEY, MIN_STAKE);
        addKey(payee, NODE_KEY);
    }

    function test_KeepsTheOwnerAndSaysSo() public {
        vm.warp(START + 5);

        vm.expectEmit(address(nodes));
        emit INodeRegistry.ServiceKeyRevoked(payee, nodeKey, uint48(START + 5));
        _revoke(payee, nodeKey);

        (address owner, uint48 validFrom, uint48 revokedAt) = nodes.serviceKey(nodeKey);
        vm.assertEq(owner, payee, "owner");
        vm.assertEq(validFrom, START, "validFrom");
        vm.assertEq(revokedAt, START + 5, "revokedAt");
        vm.assertEq(nodes.nodeOf(payee).serviceKey, address(0), "no key is shown");
        vm.assertEq(nodes.serviceKeysOf(payee).length, 2, "keys ever");
        (address serving,) = nodes.servingOwner(nodeKey, 1);
        vm.assertEq(serving, address(0), "it serves for nobody");
    }

    function test_LeavesTheNewerKeyShown() public {
        _revoke(payee, vm.addr(OTHER_NODE_KEY));

        vm.assertEq(nodes.nodeOf(payee).serviceKey, nodeKey, "the newer");
    }

    function test_RevertWhen_KeyNotOwned() public {
        _expectNotOwned(nodeKey, stranger);
        _revoke(stranger, nodeKey);
        _expectNotOwned(stranger, payee);
        _revoke(payee, stranger);
    }

    function test_RevertWhen_KeyZero() public {
        _expectNotOwned(address(0), address(0));
        _revoke(address(0), address(0));
        _expectNotOwned(address(0), payee);
        _revoke(payee, address(0));
    }

    function test_RevertGiven_Revoked() public {
        _revoke(payee, nodeKey);
        vm.warp(START + 5);

        vm.expectRevert(
            abi.encodeWithSelector(
                INodeRegistry.NodeRegistry_KeyRevoked.selector, nodeKey, uint48(START)
            )
        );
        _revoke(payee, nodeKey);
    }

    function _revoke(address from, address key) private {
        vm.prank(from);
        nodes.revokeServiceKey(key);
    }

    function _expectNotOwned(address key, address caller) private {
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_KeyNotOwned.selector, key, caller)
        );
    }
}
