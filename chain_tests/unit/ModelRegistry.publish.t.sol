// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IModelRegistry} from "../../contracts/interfaces/IModelRegistry.sol";
import {ModelId} from "../../contracts/types/Ids.sol";
import {Fixture} from "../Fixture.sol";

contract ModelRegistryPublishTest is Fixture {
    ModelId private constant _MODEL = ModelId.wrap(keccak256("model"));
    bytes32 private constant _P1 = keccak256("profile 1");
    bytes32 private constant _P2 = keccak256("profile 2");

    function test_KeepsTheModelAndSaysSo() public {
        vm.expectEmit(address(models));
        emit IModelRegistry.ModelPublished(_MODEL, payee, 30, _two(), "http://m");
        _publish(payee, 30, _two(), "http://m");

        IModelRegistry.Model memory model = models.modelOf(_MODEL);
        vm.assertEq(model.publisher, payee, "publisher");
        vm.assertEq(model.blocks, 30, "blocks");
        vm.assertEq(model.publishedAt, START, "publishedAt");
        vm.assertEq(model.profiles.length, 2, "profiles");
        vm.assertEq(model.uri, "http://m", "uri");
        vm.assertTrue(models.hasProfile(_MODEL, _P2), "profile");
        vm.assertFalse(models.hasProfile(_MODEL, 0), "no such profile");
    }

    function test_ListsTheModels() public {
        _publish(payee, 30, _two(), "");
        ModelId other = ModelId.wrap(keccak256("other"));
        models.publish(other, 1, _two(), "");

        vm.assertEq(models.modelCount(), 2, "count");
        vm.assertEq(models.models(0, 5).length, 2, "page");
        vm.assertEq(models.models(0, 1).length, 1, "short page");
        vm.assertEq(models.models(2, 5).length, 0, "past the end");
        vm.assertEq(ModelId.unwrap(models.models(0, 1)[0]), ModelId.unwrap(_MODEL), "first");
        vm.assertEq(ModelId.unwrap(models.models(1, 9)[0]), ModelId.unwrap(other), "second");
    }

    function test_TakesTheMostOfAll() public {
        bytes32[] memory profiles = new bytes32[](16);
        for (uint256 i = 0; i < 16; ++i) {
            profiles[i] = bytes32(i + 1);
        }

        _publish(payee, type(uint16).max, profiles, string(new bytes(512)));

        vm.assertEq(models.modelOf(_MODEL).profiles.length, 16, "profiles");
        vm.assertTrue(models.hasProfile(_MODEL, bytes32(uint256(16))), "the last");
    }

    function test_RevertGiven_AlreadyPublished() public {
        _publish(payee, 30, _two(), "");

        vm.expectRevert(
            abi.encodeWithSelector(
                IModelRegistry.ModelRegistry_AlreadyPublished.selector, _MODEL, payee
            )
        );
        _publish(stranger, 31, _two(), "");
    }

    function test_RevertWhen_ModelZero() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_ModelZero.selector));
        models.publish(ModelId.wrap(0), 1, _two(), "");
    }

    function test_RevertWhen_NoBlocks() public {
        vm.expectRevert(
            abi.encodeWithSelector(IModelRegistry.ModelRegistry_NoBlocks.selector, _MODEL)
        );
        _publish(payee, 0, _two(), "");
    }

    function test_RevertWhen_ProfileCount() public {
        vm.expectRevert(
            abi.encodeWithSelector(IModelRegistry.ModelRegistry_ProfileCount.selector, 0, 16)
        );
        _publish(payee, 1, new bytes32[](0), "");
        vm.expectRevert(
            abi.encodeWithSelector(IModelRegistry.ModelRegistry_ProfileCount.selector, 17, 16)
        );
        _publish(payee, 1, new bytes32[](17), "");
    }

    function test_RevertWhen_ProfileZeroOrRepeated() public {
        bytes32[] memory profiles = _two();
        profiles[1] = 0;
        vm.expectRevert(
            abi.encodeWithSelector(IModelRegistry.ModelRegistry_BadProfile.selector, 1, 0)
        );
        _publish(payee, 1, profiles, "");
        profiles[1] = _P1;
        vm.expectRevert(
            abi.encodeWithSelector(IModelRegistry.ModelRegistry_BadProfile.selector, 1, _P1)
        );
        _publish(payee, 1, profiles, "");
    }

    function test_RevertWhen_UriTooLong() public {
        vm.expectRevert(
            abi.encodeWithSelector(IModelRegistry.ModelRegistry_UriTooLong.selector, 513, 512)
        );
        _publish(payee, 1, _two(), string(new bytes(513)));
    }

    function _publish(address from, uint16 blocks, bytes32[] memory profiles, string memory uri)
        private
    {
        vm.prank(from);
        models.publish(_MODEL, blocks, profiles, uri);
    }

    function _two() private pure returns (bytes32[] memory profiles) {
        profiles = new bytes32[](2);
        profiles[0] = _P1;
        profiles[1] = _P2;
    }
}
