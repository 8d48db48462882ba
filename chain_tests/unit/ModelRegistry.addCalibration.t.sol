// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IModelRegistry} from "../../contracts/interfaces/IModelRegistry.sol";
import {ModelId} from "../../contracts/types/Ids.sol";
import {Fixture} from "../Fixture.sol";

contract ModelRegistryAddCalibrationTest is Fixture {
    ModelId private constant _MODEL = ModelId.wrap(keccak256("model"));
    bytes32 private constant _P1 = keccak256("profile 1");
    bytes32 private constant _P2 = keccak256("profile 2");

    function setUp() public override {
        super.setUp();
        bytes32[] memory profiles = new bytes32[](2);
        profiles[0] = _P1;
        profiles[1] = _P2;
        vm.prank(payee);
        models.publish(_MODEL, 30, profiles, "");
    }

    function test_AppendsAndSaysSo() public {
        vm.expectEmit(address(models));
        emit IModelRegistry.CalibrationAdded(_MODEL, _P1, 0, keccak256("a"));
        _calibrate(payee, _P1, keccak256("a"));
        vm.expectEmit(address(models));
        emit IModelRegistry.CalibrationAdded(_MODEL, _P1, 1, keccak256("b"));
        _calibrate(payee, _P1, keccak256("b"));

        bytes32[] memory kept = models.calibrationsOf(_MODEL, _P1);
        vm.assertEq(kept.length, 2, "length");
        vm.assertEq(kept[0], keccak256("a"), "first");
        vm.assertEq(kept[1], keccak256("b"), "second");
        vm.assertEq(models.calibrationsOf(_MODEL, _P2).length, 0, "the other profile");
    }

    function test_RevertGiven_UnknownModel() public {
        ModelId unknown = ModelId.wrap(keccak256("unknown"));

        vm.expectRevert(
            abi.encodeWithSelector(IModelRegistry.ModelRegistry_UnknownModel.selector, unknown)
        );
        vm.prank(payee);
        models.addCalibration(unknown, _P1, keccak256("a"));
    }

    function test_RevertWhen_CallerNotPublisher() public {
        vm.expectRevert(
            abi.encodeWithSelector(
                IModelRegistry.ModelRegistry_CallerNotPublisher.selector, stranger, payee
            )
        );
        _calibrate(stranger, _P1, keccak256("a"));
    }

    function test_RevertGiven_UnknownProfile() public {
        vm.expectRevert(
            abi.encodeWithSelector(
                IModelRegistry.ModelRegistry_UnknownProfile.selector, _MODEL, keccak256("none")
            )
        );
        _calibrate(payee, keccak256("none"), keccak256("a"));
    }

    function test_RevertWhen_CalibrationZero() public {
        vm.expectRevert(
            abi.encodeWithSelector(
                IModelRegistry.ModelRegistry_CalibrationZero.selector, _MODEL, _P1
            )
        );
        _calibrate(payee, _P1, 0);
    }

    function _calibrate(address from, bytes32 profile, bytes32 calibration) private {
        vm.prank(from);
        models.addCalibration(_MODEL, profile, calibration);
    }
}
