// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IModelRegistry} from "../../contracts/interfaces/IModelRegistry.sol";
import {ModelId} from "../../contracts/types/Ids.sol";
import {Fixture} from "../Fixture.sol";

contract ModelRegistryGetModelTest is Fixture {
    function test_ShowsItAsTheStandardDoes() public {
        uint256 id = uint256(keccak256("model"));
        bytes32[] memory profiles = new bytes32[](1);
        profiles[0] = keccak256("profile");
        vm.prank(payee);
        models.publish(ModelId.wrap(bytes32(id)), 30, profiles, "http://m");

        (IModelRegistry.ModelCommitment memory shown, bool deprecated, address owner) =
            models.getModel(id);

        vm.assertEq(shown.modelHash, bytes32(id), "modelHash");
        vm.assertEq(shown.circuitHash, 0, "circuitHash");
        vm.assertEq(shown.vkHash, 0, "vkHash");
        vm.assertEq(bytes32(shown.proofSystemId), 0, "proofSystemId");
        vm.assertEq(shown.uri, "http://m", "uri");
        vm.assertFalse(deprecated, "deprecated");
        vm.assertEq(owner, payee, "owner");
    }

    function testFuzz_RevertGiven_Unknown(uint256 id) public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelNotFound.selector, id));
        models.getModel(id);
    }
}
