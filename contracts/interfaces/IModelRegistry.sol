// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {ModelId} from "../types/Ids.sol";

/// @title IModelRegistry
/// @notice Keeps which models exist: the manifest's hash, the block count, the profiles it may be
/// served under and, per profile, an append-only list of calibrations.
/// @dev Warning: whoever publishes a hash first is its publisher, so a squatter can attach a wrong
/// block count or location to somebody else's manifest. Readers fetch the manifest, check it
/// against the hash and compare `blocks` and `profiles` with it; a publisher whose hash was taken
/// changes one byte of its manifest and publishes again.
interface IModelRegistry {
    /// @notice What is known about one model.
    /// @param publisher The account that published it, zero for an unknown model.
    /// @param blocks Number of transformer blocks.
    /// @param publishedAt Unix seconds.
    /// @param profiles Ids of the profiles in the manifest.
    /// @param uri Where the manifest can be fetched; a hint, the hash decides.
    struct Model {
        address publisher;
        uint16 blocks;
        uint64 publishedAt;
        bytes32[] profiles;
        string uri;
    }

    /// @notice A model as ERC-7992 describes one. The manifest's hash covers weights and architecture;
    /// there is no proof of knowledge, so circuit, verifying key and proof system are zero.
    struct ModelCommitment {
        bytes32 modelHash;
        bytes32 circuitHash;
        bytes32 vkHash;
        bytes4 proofSystemId;
        string uri;
    }

    /// @notice A model is published; nothing in this event ever changes.
    /// @param model Hash of the model's manifest.
    /// @param publisher Who published it, the only one to add calibrations.
    /// @param blocks Blocks of the model.
    /// @param profiles Profiles it may be served with.
    /// @param uri Where the manifest is.
    event ModelPublished(
        ModelId indexed model,
        address indexed publisher,
        uint16 blocks,
        bytes32[] profiles,
        string uri
    );

    /// @notice A calibration is appended; `index` is its place in the list, from 0.
    /// @param model Hash of the model's manifest.
    /// @param profile The profile.
    /// @param index Number in the list, from 0.
    /// @param calibration Hash of the calibration.
    event CalibrationAdded(
        ModelId indexed model, bytes32 indexed profile, uint256 index, bytes32 calibration
    );

    /// @notice ERC-7992: nobody published this model.
    error ModelNotFound(uint256 modelId);
    /// @notice The model's id is zero.
    error ModelRegistry_ModelZero();
    /// @notice The model was published before, by `publisher`.
    error ModelRegistry_AlreadyPublished(ModelId model, address publisher);
    /// @notice A model has at least one block.
    error ModelRegistry_NoBlocks(ModelId model);
    /// @notice A model names between 1 and `max` profiles.
    error ModelRegistry_ProfileCount(uint256 count, uint256 max);
    /// @notice The profile at `index` is zero or repeats an earlier one.
    error ModelRegistry_BadProfile(uint256 index, bytes32 profile);
    /// @notice The location is longer than `max` bytes.
    error ModelRegistry_UriTooLong(uint256 length, uint256 max);
    /// @notice Nobody published this model.
    error ModelRegistry_UnknownModel(ModelId model);
    /// @notice The model's manifest does not name this profile.
    error ModelRegistry_UnknownProfile(ModelId model, bytes32 profile);
    /// @notice Only the publisher calibrates a model.
    error ModelRegistry_CallerNotPublisher(address caller, address publisher);
    /// @notice The calibration is zero.
    error ModelRegistry_CalibrationZero(ModelId model, bytes32 profile);

    /// @notice Publishes a model under the caller's name, for ever.
    /// @param model Hash of the manifest.
    /// @param blocks Number of transformer blocks, at least 1.
    /// @param profiles Ids of the manifest's profiles, 1 to 16, distinct and not zero.
    /// @param uri Where the manifest can be fetched, at most 512 bytes.
    function publish(ModelId model, uint16 blocks, bytes32[] calldata profiles, string calldata uri)
        external;

    /// @notice Appends a calibration to one of the caller's models.
    /// @param model Hash of the manifest.
    /// @param profile One of its profiles.
    /// @param calibration Hash of the calibration.
    function addCalibration(ModelId model, bytes32 profile, bytes32 calibration) external;

    /// @notice Returns what is known about a model; all fields are empty for an unknown one.
    /// @param model Hash of the model's manifest.
    function modelOf(ModelId model) external view returns (Model memory);

    /// @notice Returns a model as ERC-7992 has it; its `modelId` is the manifest's hash as a number, and
    /// every model is its own version.
    /// @param modelId Hash of the model's manifest, as a number.
    /// @return commitment The manifest's hash and location.
    /// @return deprecated Always false: what is published stays.
    /// @return owner The publisher.
    function getModel(uint256 modelId)
        external
        view
        returns (ModelCommitment memory commitment, bool deprecated, address owner);

    /// @notice Says whether the model is published and its manifest names the profile.
    /// @param model Hash of the model's manifest.
    /// @param profile The profile.
    function hasProfile(ModelId model, bytes32 profile) external view returns (bool);

    /// @notice Returns the calibrations of a profile, oldest first; empty while nobody can be
    /// convicted under it.
    /// @param model Hash of the model's manifest.
    /// @param profile The profile.
    function calibrationsOf(ModelId model, bytes32 profile) external view returns (bytes32[] memory);

    /// @notice Returns how many models are published.
    function modelCount() external view returns (uint256);

    /// @notice Returns the models number `offset` to `offset + limit - 1`, fewer at the end.
    /// @param offset Number of the first entry, from 0.
    /// @param limit Entries wanted at most.
    function models(uint256 offset, uint256 limit) external view returns (ModelId[] memory);
}
