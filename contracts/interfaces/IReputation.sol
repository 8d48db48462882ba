// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

/// @title IReputation
/// @notice Says what a node's settled work is worth: a view over the fee that work burned.
/// @dev Nothing here is stored, and nothing counts that costs nothing to fake: job counts, rows and
/// payers do not. **The cost of faking a point is one base unit of burned fee**: a node that pays
/// itself gets its money back less the fee, however many jobs, payers or claims it splits the payment
/// into (the fee is rounded up once per claim, so splitting only costs more). At a fee of 1 % a point
/// takes 100 base units of its own money through `Channels`, for one to two epochs and at the pace
/// that its stake allows. After k verdicts against a node a point costs 2^k base units. Points of two
/// owners never add up.
interface IReputation {
    /// @notice The unit of a tier is zero.
    error Reputation_TierUnitZero();
    /// @notice A contract this one depends on has the zero address.
    error Reputation_AddressZero();

    /// @notice Returns the fee that a node's settled work burned, less the share of what it forfeited,
    /// halved for each verdict against it.
    /// @param owner The node.
    /// @return score Base units, rounded down.
    function scoreOf(address owner) external view returns (uint96 score);

    /// @notice Returns a node's tier: 0 below one unit, then one more for each doubling, at most 15.
    /// @dev A node that is not active is in tier 0.
    /// @param owner The node.
    /// @return tier 0 to 15.
    function tierOf(address owner) external view returns (uint8 tier);

    /// @notice Returns the score at which tier 1 begins, in base units.
    function tierUnit() external view returns (uint96);

    /// @notice Returns the contract whose accounts are read.
    function channels() external view returns (address);
}
