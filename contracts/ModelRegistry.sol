// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {ModelId} from "./types/Ids.sol";

/// @title ModelRegistry
/// @notice Keeps which models exist; a published model never changes.
contract ModelRegistry is IModelRegistry {
    uint256 private constant _MAX_PROFILES = 16;
    uint256 private constant _MAX_URI = 512;

    mapping(ModelId model => Model) private _models;
    mapping(ModelId model => mapping(bytes32 profile => bytes32[])) private _calibrations;
    ModelId[] private _ids;

    /// @inheritdoc IModelRegistry
    function publish(ModelId model, uint16 blocks, bytes32[] calldata profiles, string calldata uri)
        external
    {
        Model storage entry = _models[model];
        require(ModelId.unwrap(model) != 0, ModelRegistry_ModelZero());
        require(
            entry.publisher == address(0), ModelRegistry_AlreadyPublished(model, entry.publisher)
        );
        require(blocks != 0, ModelRegistry_NoBlocks(model));
        require(
            profiles.length != 0 && profiles.length <= _MAX_PROFILES,
            ModelRegistry_ProfileCount(profiles.length, _MAX_PROFILES)
        );
        require(
            bytes(uri).length <= _MAX_URI, ModelRegistry_UriTooLong(bytes(uri).length, _MAX_URI)
        );
        _checkProfiles(profiles);

        entry.publisher = msg.sender;
        entry.blocks = blocks;
        entry.publishedAt = uint64(block.timestamp);
        entry.profiles = profiles;
        entry.uri = uri;
        _ids.push(model);

        emit ModelPublished(model, msg.sender, blocks, profiles, uri);
    }

    /// @inheritdoc IModelRegistry
    function addCalibration(ModelId model, bytes32 profile, bytes32 calibration) external {
        address publisher = _models[model].publisher;
        require(publisher != address(0), ModelRegistry_UnknownModel(model));
        require(publisher == msg.sender, ModelRegistry_CallerNotPublisher(msg.sender, publisher));
        require(hasProfile(model, profile), ModelRegistry_UnknownProfile(model, profile));
        require(calibration != 0, ModelRegistry_CalibrationZero(model, profile));

        bytes32[] storage list = _calibrations[model][profile];
        list.push(calibration);

        emit CalibrationAdded(model, profile, list.length - 1, calibration);
    }

    /// @inheritdoc IModelRegistry
    function modelOf(ModelId model) external view returns (Model memory) {
        return _models[model];
    }

    /// @inheritdoc IModelRegistry
    function getModel(uint256 modelId)
        external
        view
        returns (ModelCommitment memory commitment, bool deprecated, address owner)
    {
        Model storage entry = _models[ModelId.wrap(bytes32(modelId))];
        owner = entry.publisher;
        require(owner != address(0), ModelNotFound(modelId));
        commitment.modelHash = bytes32(modelId);
        commitment.uri = entry.uri;
        deprecated = false;
    }

    /// @inheritdoc IModelRegistry
    function calibrationsOf(ModelId model, bytes32 profile)
        external
        view
        returns (bytes32[] memory)
    {
        return _calibrations[model][profile];
    }

    /// @inheritdoc IModelRegistry
    function modelCount() external view returns (uint256) {
        return _ids.length;
    }

    /// @inheritdoc IModelRegistry
    function models(uint256 offset, uint256 limit) external view returns (ModelId[] memory page) {
        uint256 count = _ids.length;
        uint256 rest = offset < count ? count - offset : 0;
        page = new ModelId[](limit < rest ? limit : rest);
        for (uint256 i = 0; i < page.length; ++i) {
            page[i] = _ids[offset + i];
        }
    }

    /// @inheritdoc IModelRegistry
    function hasProfile(ModelId model, bytes32 profile) public view returns (bool) {
        bytes32[] storage profiles = _models[model].profiles;
        for (uint256 i = 0; i < profiles.length; ++i) {
            if (profiles[i] == profile) return true;
        }
        return false;
    }

    function _checkProfiles(bytes32[] calldata profiles) private pure {
        for (uint256 i = 0; i < profiles.length; ++i) {
            require(profiles[i] != 0, ModelRegistry_BadProfile(i, profiles[i]));
            for (uint256 j = 0; j < i; ++j) {
                require(profiles[i] != profiles[j], ModelRegistry_BadProfile(i, profiles[i]));
            }
        }
    }
}
