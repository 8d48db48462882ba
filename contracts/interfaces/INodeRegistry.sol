// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

/// @title INodeRegistry
/// @notice Keeps who serves: a node's owner, its stake, roles, endpoint, DHT key and service keys.
/// @dev Trust assumptions on the stake token: no fee on transfer, no rebasing, a failed transfer
/// reverts or returns false. The arbiter may jail and slash, nothing else; with a zero arbiter
/// nobody may.
interface INodeRegistry {
    /// @notice One node as a reader sees it.
    /// @param owner The cold account that holds the stake; it is the node's id.
    /// @param serviceKey The key added last, zero when there is none or it is revoked.
    /// @param roles Bits: 1 gateway, 2 worker, 4 stage, 8 juror.
    /// @param active Staked with at least the minimum and not jailed.
    /// @param stake Base units, without what is unbonding.
    /// @param unbonding Base units on their way out, still open to slashing.
    /// @param unbondedAt Unix seconds from which `unbonding` may be withdrawn.
    /// @param jailedUntil Unix seconds; jailed while the clock is below it.
    /// @param registeredAt Unix seconds, zero for an unknown node.
    /// @param verdicts How often the arbiter slashed it: each time a verdict against it.
    /// @param dhtKey Ed25519 public key of the node's DHT items.
    /// @param endpoint Where the node answers; a URL or host and port.
    struct Node {
        address owner;
        address serviceKey;
        uint8 roles;
        bool active;
        uint96 stake;
        uint96 unbonding;
        uint64 unbondedAt;
        uint64 jailedUntil;
        uint64 registeredAt;
        uint24 verdicts;
        bytes32 dhtKey;
        string endpoint;
    }

    /// @notice A node registers; its roles, endpoint and DHT key start with these values.
    /// @param owner The node's owner.
    /// @param roles Bits of the roles.
    /// @param endpoint Where the node answers.
    /// @param dhtKey Ed25519 key under which the node publishes records.
    event NodeRegistered(address indexed owner, uint8 roles, string endpoint, bytes32 dhtKey);
    /// @notice A node's roles become `roles`.
    /// @param owner The node's owner.
    /// @param roles Bits of the roles.
    event RolesSet(address indexed owner, uint8 roles);
    /// @notice A node's endpoint becomes `endpoint`.
    /// @param owner The node's owner.
    /// @param endpoint Where the node answers.
    event EndpointSet(address indexed owner, string endpoint);
    /// @notice A node's DHT key becomes `dhtKey`.
    /// @param owner The node's owner.
    /// @param dhtKey Ed25519 key under which the node publishes records.
    event DhtKeySet(address indexed owner, bytes32 dhtKey);
    /// @notice A key signs for a node from `validFrom` on; it belongs to that node for ever.
    /// @param owner The node's owner.
    /// @param key The service key.
    /// @param validFrom Unix seconds of the block that added it.
    event ServiceKeyAdded(address indexed owner, address indexed key, uint48 validFrom);
    /// @notice A key signs no more from `revokedAt` on.
    /// @param owner The node's owner.
    /// @param key The service key.
    /// @param revokedAt Unix seconds of the block that revoked it.
    event ServiceKeyRevoked(address indexed owner, address indexed key, uint48 revokedAt);
    /// @notice A node stakes `amount`; its stake becomes `stake`.
    /// @param owner The node's owner.
    /// @param amount Base units.
    /// @param stake Base units staked.
    event Staked(address indexed owner, uint96 amount, uint96 stake);
    /// @notice A node unbonds `amount`; `unbonding` in all may leave from `unbondedAt` on.
    /// @param owner The node's owner.
    /// @param amount Base units.
    /// @param stake Base units staked.
    /// @param unbonding Base units unbonding.
    /// @param unbondedAt Unix seconds from which they may be withdrawn.
    event Unbonded(
        address indexed owner, uint96 amount, uint96 stake, uint96 unbonding, uint64 unbondedAt
    );
    /// @notice A node's unbonded money leaves; nothing of it remains.
    /// @param owner The node's owner.
    /// @param amount Base units paid back.
    event StakeWithdrawn(address indexed owner, uint96 amount);
    /// @notice A node is jailed while the clock is below `jailedUntil`; zero frees it.
    /// @param owner The node's owner.
    /// @param jailedUntil Unix seconds until which the node is jailed.
    event NodeJailed(address indexed owner, uint64 jailedUntil);
    /// @notice The arbiter takes `amount`; stake, unbonding money and the number of verdicts become
    /// these values.
    /// @param owner The node's owner.
    /// @param amount Base units taken.
    /// @param stake Base units staked.
    /// @param unbonding Base units unbonding.
    /// @param verdicts Times the node was slashed.
    event NodeSlashed(
        address indexed owner, uint96 amount, uint96 stake, uint96 unbonding, uint24 verdicts
    );

    /// @notice A contract this one depends on has the zero address.
    error NodeRegistry_AddressZero();
    /// @notice The minimum stake is zero.
    error NodeRegistry_MinStakeZero();
    /// @notice The unbonding delay is above `max` seconds.
    error NodeRegistry_UnbondingTooLong(uint64 unbondingDelay, uint64 max);
    /// @notice The caller registered before.
    error NodeRegistry_AlreadyRegistered(address owner);
    /// @notice The account is no node; it registers first.
    error NodeRegistry_UnknownNode(address owner);
    /// @notice Roles are one or more of the bits 1, 2, 4, 8.
    error NodeRegistry_BadRoles(uint8 roles);
    /// @notice The endpoint is longer than `max` bytes.
    error NodeRegistry_EndpointTooLong(uint256 length, uint256 max);
    /// @notice The key already belongs to `owner`, perhaps revoked; keys are never used twice.
    error NodeRegistry_KeyTaken(address key, address owner);
    /// @notice The proof of possession was signed by `recovered`, not by the key.
    error NodeRegistry_BadKeyProof(address key, address recovered);
    /// @notice The key does not belong to the caller.
    error NodeRegistry_KeyNotOwned(address key, address caller);
    /// @notice The key was revoked at `revokedAt`.
    error NodeRegistry_KeyRevoked(address key, uint48 revokedAt);
    /// @notice The amount is zero.
    error NodeRegistry_AmountZero();
    /// @notice The node's stake is smaller than the amount.
    error NodeRegistry_StakeTooSmall(address owner, uint96 stake, uint96 amount);
    /// @notice Nothing of the node's stake is unbonding.
    error NodeRegistry_NothingUnbonding(address owner);
    /// @notice The unbonding money leaves from `unbondedAt` on.
    error NodeRegistry_StillUnbonding(address owner, uint64 unbondedAt);
    /// @notice The node is jailed; its money stays until then.
    error NodeRegistry_Jailed(address owner, uint64 jailedUntil);
    /// @notice A jail lasts at most the unbonding delay, until `latest`.
    error NodeRegistry_JailTooLong(uint64 until, uint64 latest);
    /// @notice Only the arbiter may jail and slash.
    error NodeRegistry_CallerNotArbiter(address caller);

    /// @notice Registers the caller as a node.
    /// @param roles Bits: 1 gateway, 2 worker, 4 stage, 8 juror.
    /// @param endpoint Where the node answers, at most 256 bytes.
    /// @param dhtKey Ed25519 public key of its DHT items, zero for none.
    function register(uint8 roles, string calldata endpoint, bytes32 dhtKey) external;

    /// @notice Replaces the caller's roles.
    /// @param roles Bits of the roles.
    function setRoles(uint8 roles) external;

    /// @notice Replaces the caller's endpoint.
    /// @param endpoint Where the node answers.
    function setEndpoint(string calldata endpoint) external;

    /// @notice Replaces the caller's DHT key.
    /// @param dhtKey Ed25519 key under which the node publishes records.
    function setDhtKey(bytes32 dhtKey) external;

    /// @notice Binds a service key to the caller for ever.
    /// @dev The proof is the key's EIP-2098 signature of `ServiceKey(address owner,address key)`
    /// under the domain of `Channels`, so nobody can claim a key that is not theirs.
    /// @param key The key that will sign for the node.
    /// @param r First word of the proof.
    /// @param vs Second word of the proof.
    function addServiceKey(address key, bytes32 r, bytes32 vs) external;

    /// @notice Revokes one of the caller's keys; evidence that it signed before keeps its owner.
    /// @param key The service key.
    function revokeServiceKey(address key) external;

    /// @notice Adds to the caller's stake.
    /// @param amount Base units, approved for this contract beforehand.
    function stake(uint96 amount) external;

    /// @notice Starts to take stake out; the delay of all that is unbonding starts anew.
    /// @dev Warning: `Channels.release` counts stake without what is unbonding, so a leaving node
    /// releases what it earned before it unbonds the rest.
    /// @param amount Base units.
    function unbond(uint96 amount) external;

    /// @notice Pays out the caller's unbonding money once its delay is over.
    function withdrawUnbonded() external;

    /// @notice Jails a node while the clock is below `until`; a time in the past frees it.
    /// @dev Warning: the arbiter may jail again before a jail ends, so a node trusts it not to.
    /// @param owner The node.
    /// @param until Unix seconds, at most the unbonding delay from now.
    function jail(address owner, uint64 until) external;

    /// @notice Moves a node's stake to the arbiter, unbonding money first, and counts a verdict
    /// against it, which halves its reputation, whether there was anything left to take or not.
    /// @param owner The node.
    /// @param amount Base units; more than there is takes all there is.
    /// @return taken Base units moved.
    function slash(address owner, uint96 amount) external returns (uint96 taken);

    /// @notice Returns a node; all fields but `owner` are empty for an unknown one.
    /// @param owner The node's owner.
    function nodeOf(address owner) external view returns (Node memory);

    /// @notice Says whether the node holds the minimum stake and is not jailed.
    /// @param owner The node's owner.
    function isActive(address owner) external view returns (bool);

    /// @notice Says whether the node is active and holds all the given roles.
    /// @param owner The node's owner.
    /// @param roles Bits of the roles.
    function serves(address owner, uint8 roles) external view returns (bool);

    /// @notice Returns whose valid service key this is, and whether that node is active and holds all
    /// the given roles.
    /// @param key The service key.
    /// @param roles Bits of the roles.
    /// @return owner The node, zero for an unknown or revoked key.
    /// @return serving False for a zero owner.
    function servingOwner(address key, uint8 roles)
        external
        view
        returns (address owner, bool serving);

    /// @notice Returns what a payout depends on.
    /// @param owner The node's owner.
    /// @return bond Stake in base units, without what is unbonding.
    /// @return jailedUntil Unix seconds; jailed while the clock is below it.
    function bondOf(address owner) external view returns (uint96 bond, uint64 jailedUntil);

    /// @notice Returns whose key this is, for ever.
    /// @param key The service key.
    /// @return owner The node, zero for an unknown key.
    /// @return validFrom Unix seconds.
    /// @return revokedAt Unix seconds, zero while the key is valid.
    function serviceKey(address key)
        external
        view
        returns (address owner, uint48 validFrom, uint48 revokedAt);

    /// @notice Returns all keys a node ever had, oldest first, revoked ones included.
    /// @param owner The node's owner.
    function serviceKeysOf(address owner) external view returns (address[] memory);

    /// @notice Returns how many nodes hold the minimum stake.
    /// @dev Only those are listed, so that a crowd of worthless registrations cannot bury them.
    function nodeCount() external view returns (uint256);

    /// @notice Returns the owner of the listed node number `index`.
    /// @dev Warning: the order changes when a node leaves the list; read a page at one block.
    /// @param index Number in the list, from 0.
    /// @return owner The node's owner.
    function nodeAt(uint256 index) external view returns (address owner);

    /// @notice Returns the listed nodes number `offset` to `offset + limit - 1`, fewer at the end.
    /// @param offset Number of the first entry, from 0.
    /// @param limit Entries wanted at most.
    function nodes(uint256 offset, uint256 limit) external view returns (Node[] memory);

    /// @notice Returns the stake token.
    function token() external view returns (address);

    /// @notice Returns the `Channels` deployment whose EIP-712 domain is used.
    function channels() external view returns (address);

    /// @notice Returns the contract that may jail and slash, zero for none.
    function arbiter() external view returns (address);

    /// @notice Returns the stake below which a node is not active, in base units.
    function minStake() external view returns (uint96);

    /// @notice Returns how long unbonding takes, in seconds.
    function unbondingDelay() external view returns (uint64);
}
