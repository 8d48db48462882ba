// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IChannels} from "./interfaces/IChannels.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {IReputation} from "./interfaces/IReputation.sol";

/// @title Reputation
/// @notice Says what a node's settled work is worth; keeps nothing.
contract Reputation is IReputation {
    uint256 private constant _MAX_TIER = 15;

    IChannels private immutable _CHANNELS;
    INodeRegistry private immutable _NODES;
    uint96 private immutable _TIER_UNIT;

    /// @notice Fixes what never changes afterwards.
    /// @param channels_ Whose accounts are read.
    /// @param tierUnit_ The score at which tier 1 begins, in base units.
    constructor(address channels_, uint96 tierUnit_) {
        require(channels_ != address(0), Reputation_AddressZero());
        require(tierUnit_ != 0, Reputation_TierUnitZero());
        _CHANNELS = IChannels(channels_);
        _NODES = INodeRegistry(IChannels(channels_).nodes());
        _TIER_UNIT = tierUnit_;
    }

    /// @inheritdoc IReputation
    function tierOf(address owner) external view returns (uint8) {
        uint256 units = scoreOf(owner) / _TIER_UNIT;
        if (units == 0 || !_NODES.isActive(owner)) return 0;
        // At most 15, so the cast is safe.
        return uint8(Math.min(Math.log2(units) + 1, _MAX_TIER));
    }

    /// @inheritdoc IReputation
    function tierUnit() external view returns (uint96) {
        return _TIER_UNIT;
    }

    /// @inheritdoc IReputation
    function channels() external view returns (address) {
        return address(_CHANNELS);
    }

    /// @inheritdoc IReputation
    function scoreOf(address owner) public view returns (uint96) {
        IChannels.Account memory account = _CHANNELS.accountOf(owner);
        uint256 kept = account.fee;
        if (account.forfeited != 0) {
            // Something was forfeited, so `net` is at least that.
            uint256 net = account.earned - account.fee;
            kept = kept * (net - account.forfeited) / net;
        }
        // At most `fee`, which has 96 bits.
        return uint96(kept >> _NODES.nodeOf(owner).verdicts);
    }
}
