// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EnumerableSet} from "@openzeppelin/contracts/utils/structs/EnumerableSet.sol";

import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {Intake} from "./libraries/Intake.sol";
import {TypedData} from "./libraries/TypedData.sol";

/// @title NodeRegistry
/// @notice Keeps who serves, with which keys, behind which stake.
contract NodeRegistry is INodeRegistry {
    using EnumerableSet for EnumerableSet.AddressSet;
    using Intake for IERC20;
    using SafeERC20 for IERC20;

    struct Entry {
        uint96 stake;
        uint64 registeredAt;
        uint64 jailedUntil;
        uint8 roles;
        uint24 verdicts;
        uint96 unbonding;
        uint64 unbondedAt;
        address latestKey;
        bytes32 dhtKey;
        string endpoint;
    }

    struct ServiceKey {
        address owner;
        uint48 validFrom;
        uint48 revokedAt;
    }

    uint8 private constant _ALL_ROLES = 1 | 2 | 4 | 8;
    uint256 private constant _MAX_ENDPOINT = 256;
    uint64 private constant _MAX_UNBONDING = 365 days;

    IERC20 private immutable _TOKEN;
    address private immutable _CHANNELS;
    address private immutable _ARBITER;
    uint96 private immutable _MIN_STAKE;
    uint64 private immutable _UNBONDING_DELAY;

    mapping(address owner => Entry) private _entries;
    mapping(address key => ServiceKey) private _keys;
    mapping(address owner => address[]) private _keysOf;
    EnumerableSet.AddressSet private _listed;

    /// @notice Fixes what never changes afterwards.
    /// @param token_ The stake token, the same that `Channels` uses.
    /// @param channels_ Where `Channels` will be deployed.
    /// @param arbiter_ Who may jail and slash, zero for nobody.
    /// @param minStake_ Base units below which a node is not active.
    /// @param unbondingDelay_ Seconds between unbonding and withdrawal, at most a year.
    constructor(
        address token_,
        address channels_,
        address arbiter_,
        uint96 minStake_,
        uint64 unbondingDelay_
    ) {
        require(token_ != address(0) && channels_ != address(0), NodeRegistry_AddressZero());
        require(minStake_ != 0, NodeRegistry_MinStakeZero());
        require(
            unbondingDelay_ <= _MAX_UNBONDING,
            NodeRegistry_UnbondingTooLong(unbondingDelay_, _MAX_UNBONDING)
        );
        _TOKEN = IERC20(token_);
        _CHANNELS = channels_;
        _ARBITER = arbiter_;
        _MIN_STAKE = minStake_;
        _UNBONDING_DELAY = unbondingDelay_;
    }

    modifier onlyNode() {
        _requireKnown(msg.sender);
        _;
    }

    modifier onlyArbiter() {
        require(msg.sender == _ARBITER, NodeRegistry_CallerNotArbiter(msg.sender));
        _;
    }

    /// @inheritdoc INodeRegistry
    function register(uint8 roles, string calldata endpoint, bytes32 dhtKey) external {
        Entry storage entry = _entries[msg.sender];
        require(entry.registeredAt == 0, NodeRegistry_AlreadyRegistered(msg.sender));
        _checkRoles(roles);
        _checkEndpoint(endpoint);

        entry.registeredAt = uint64(block.timestamp);
        entry.roles = roles;
        entry.endpoint = endpoint;
        entry.dhtKey = dhtKey;

        emit NodeRegistered(msg.sender, roles, endpoint, dhtKey);
    }

    /// @inheritdoc INodeRegistry
    function setRoles(uint8 roles) external onlyNode {
        _checkRoles(roles);

        _entries[msg.sender].roles = roles;

        emit RolesSet(msg.sender, roles);
    }

    /// @inheritdoc INodeRegistry
    function setEndpoint(string calldata endpoint) external onlyNode {
        _checkEndpoint(endpoint);

        _entries[msg.sender].endpoint = endpoint;

        emit EndpointSet(msg.sender, endpoint);
    }

    /// @inheritdoc INodeRegistry
    function setDhtKey(bytes32 dhtKey) external onlyNode {
        _entries[msg.sender].dhtKey = dhtKey;

        emit DhtKeySet(msg.sender, dhtKey);
    }

    /// @inheritdoc INodeRegistry
    function addServiceKey(address key, bytes32 r, bytes32 vs) external onlyNode {
        ServiceKey storage known = _keys[key];
        require(known.owner == address(0), NodeRegistry_KeyTaken(key, known.owner));
        bytes32 digest =
            TypedData.digest(TypedData.domain(_CHANNELS), TypedData.serviceKey(msg.sender, key));
        (address recovered,,) = ECDSA.tryRecover(digest, r, vs);
        require(recovered == key && key != address(0), NodeRegistry_BadKeyProof(key, recovered));

        uint48 validFrom = uint48(block.timestamp);
        _keys[key] = ServiceKey({owner: msg.sender, validFrom: validFrom, revokedAt: 0});
        _keysOf[msg.sender].push(key);
        _entries[msg.sender].latestKey = key;

        emit ServiceKeyAdded(msg.sender, key, validFrom);
    }

    /// @inheritdoc INodeRegistry
    function revokeServiceKey(address key) external {
        ServiceKey storage known = _keys[key];
        require(
            known.owner == msg.sender && key != address(0),
            NodeRegistry_KeyNotOwned(key, msg.sender)
        );
        require(known.revokedAt == 0, NodeRegistry_KeyRevoked(key, known.revokedAt));

        uint48 revokedAt = uint48(block.timestamp);
        known.revokedAt = revokedAt;

        emit ServiceKeyRevoked(msg.sender, key, revokedAt);
    }

    /// @inheritdoc INodeRegistry
    function stake(uint96 amount) external onlyNode {
        require(amount != 0, NodeRegistry_AmountZero());

        Entry storage entry = _entries[msg.sender];
        uint96 total = entry.stake + amount;
        entry.stake = total;
        _relist(msg.sender, total);

        emit Staked(msg.sender, amount, total);

        _TOKEN.pull(amount);
    }

    /// @inheritdoc INodeRegistry
    function unbond(uint96 amount) external {
        Entry storage entry = _entries[msg.sender];
        uint96 staked = entry.stake;
        require(amount != 0, NodeRegistry_AmountZero());
        require(staked >= amount, NodeRegistry_StakeTooSmall(msg.sender, staked, amount));

        uint96 rest = staked - amount;
        uint96 unbonding = entry.unbonding + amount;
        uint64 unbondedAt = uint64(block.timestamp) + _UNBONDING_DELAY;
        entry.stake = rest;
        entry.unbonding = unbonding;
        entry.unbondedAt = unbondedAt;
        _relist(msg.sender, rest);

        emit Unbonded(msg.sender, amount, rest, unbonding, unbondedAt);
    }

    /// @inheritdoc INodeRegistry
    function withdrawUnbonded() external {
        Entry storage entry = _entries[msg.sender];
        uint96 amount = entry.unbonding;
        require(amount != 0, NodeRegistry_NothingUnbonding(msg.sender));
        require(
            block.timestamp >= entry.unbondedAt,
            NodeRegistry_StillUnbonding(msg.sender, entry.unbondedAt)
        );
        require(
            block.timestamp >= entry.jailedUntil, NodeRegistry_Jailed(msg.sender, entry.jailedUntil)
        );

        entry.unbonding = 0;
        entry.unbondedAt = 0;

        emit StakeWithdrawn(msg.sender, amount);

        _TOKEN.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc INodeRegistry
    function jail(address owner, uint64 until) external onlyArbiter {
        _requireKnown(owner);
        uint64 latest = uint64(block.timestamp) + _UNBONDING_DELAY;
        require(until <= latest, NodeRegistry_JailTooLong(until, latest));

        _entries[owner].jailedUntil = until;

        emit NodeJailed(owner, until);
    }

    /// @inheritdoc INodeRegistry
    function slash(address owner, uint96 amount) external onlyArbiter returns (uint96 taken) {
        _requireKnown(owner);
        require(amount != 0, NodeRegistry_AmountZero());
        Entry storage entry = _entries[owner];
        (uint96 staked, uint96 unbonding) = (entry.stake, entry.unbonding);
        uint96 fromUnbonding = amount < unbonding ? amount : unbonding;
        uint96 fromStake = amount - fromUnbonding;
        if (fromStake > staked) fromStake = staked;
        taken = fromUnbonding + fromStake;

        // 2^24 verdicts would take as many transactions of the arbiter.
        uint24 verdicts = entry.verdicts + 1;
        entry.verdicts = verdicts;
        entry.unbonding = unbonding - fromUnbonding;
        entry.stake = staked - fromStake;
        _relist(owner, staked - fromStake);

        emit NodeSlashed(owner, taken, staked - fromStake, unbonding - fromUnbonding, verdicts);

        if (taken != 0) _TOKEN.safeTransfer(msg.sender, taken);
    }

    /// @inheritdoc INodeRegistry
    function isActive(address owner) external view returns (bool) {
        return _isActive(_entries[owner]);
    }

    /// @inheritdoc INodeRegistry
    function serves(address owner, uint8 roles) external view returns (bool) {
        return _serves(_entries[owner], roles);
    }

    /// @inheritdoc INodeRegistry
    function bondOf(address owner) external view returns (uint96, uint64) {
        Entry storage entry = _entries[owner];
        return (entry.stake, entry.jailedUntil);
    }

    /// @inheritdoc INodeRegistry
    function servingOwner(address key, uint8 roles)
        external
        view
        returns (address owner, bool serving)
    {
        ServiceKey storage known = _keys[key];
        if (known.revokedAt == 0) owner = known.owner;
        serving = _serves(_entries[owner], roles);
    }

    /// @inheritdoc INodeRegistry
    function serviceKey(address key) external view returns (address, uint48, uint48) {
        ServiceKey storage known = _keys[key];
        return (known.owner, known.validFrom, known.revokedAt);
    }

    /// @inheritdoc INodeRegistry
    function serviceKeysOf(address owner) external view returns (address[] memory) {
        return _keysOf[owner];
    }

    /// @inheritdoc INodeRegistry
    function nodeCount() external view returns (uint256) {
        return _listed.length();
    }

    /// @inheritdoc INodeRegistry
    function nodeAt(uint256 index) external view returns (address) {
        return _listed.at(index);
    }

    /// @inheritdoc INodeRegistry
    function nodes(uint256 offset, uint256 limit) external view returns (Node[] memory page) {
        uint256 count = _listed.length();
        uint256 rest = offset < count ? count - offset : 0;
        page = new Node[](limit < rest ? limit : rest);
        for (uint256 i = 0; i < page.length; ++i) {
            page[i] = nodeOf(_listed.at(offset + i));
        }
    }

    /// @inheritdoc INodeRegistry
    function token() external view returns (address) {
        return address(_TOKEN);
    }

    /// @inheritdoc INodeRegistry
    function channels() external view returns (address) {
        return _CHANNELS;
    }

    /// @inheritdoc INodeRegistry
    function arbiter() external view returns (address) {
        return _ARBITER;
    }

    /// @inheritdoc INodeRegistry
    function minStake() external view returns (uint96) {
        return _MIN_STAKE;
    }

    /// @inheritdoc INodeRegistry
    function unbondingDelay() external view returns (uint64) {
        return _UNBONDING_DELAY;
    }

    /// @inheritdoc INodeRegistry
    function nodeOf(address owner) public view returns (Node memory) {
        Entry storage entry = _entries[owner];
        address latest = entry.latestKey;
        return Node({
            owner: owner,
            serviceKey: _keys[latest].revokedAt == 0 ? latest : address(0),
            roles: entry.roles,
            active: _isActive(entry),
            stake: entry.stake,
            unbonding: entry.unbonding,
            unbondedAt: entry.unbondedAt,
            jailedUntil: entry.jailedUntil,
            registeredAt: entry.registeredAt,
            verdicts: entry.verdicts,
            dhtKey: entry.dhtKey,
            endpoint: entry.endpoint
        });
    }

    function _relist(address owner, uint96 staked) private {
        if (staked >= _MIN_STAKE) _listed.add(owner);
        else _listed.remove(owner);
    }

    function _serves(Entry storage entry, uint8 roles) private view returns (bool) {
        return entry.roles & roles == roles && _isActive(entry);
    }

    function _isActive(Entry storage entry) private view returns (bool) {
        return entry.stake >= _MIN_STAKE && block.timestamp >= entry.jailedUntil;
    }

    function _requireKnown(address owner) private view {
        require(_entries[owner].registeredAt != 0, NodeRegistry_UnknownNode(owner));
    }

    function _checkRoles(uint8 roles) private pure {
        require(roles != 0 && roles <= _ALL_ROLES, NodeRegistry_BadRoles(roles));
    }

    function _checkEndpoint(string calldata endpoint) private pure {
        uint256 length = bytes(endpoint).length;
        require(length <= _MAX_ENDPOINT, NodeRegistry_EndpointTooLong(length, _MAX_ENDPOINT));
    }
}
