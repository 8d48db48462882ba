// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {IChannels} from "./interfaces/IChannels.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {IRequests} from "./interfaces/IRequests.sol";
import {TypedData} from "./libraries/TypedData.sol";

/// @title Requests
/// @notice Keeps on-chain requests to a named node and the fee of each until it is settled.
contract Requests is IRequests {
    using SafeERC20 for IERC20;

    uint8 private constant _GATEWAY = 1;
    uint32 private constant _TOP_P_ONE = 1_000_000;
    uint64 private constant _MAX_LIFE = 1 hours;
    uint256 private constant _MAX_PROMPT = 16_384;

    /// @inheritdoc IRequests
    bytes32 public constant PUBLIC_PROMPT_SALT =
        0x1deeecde33a14a9d311f79bbb4330785d3020d7a32bf5081663f5649e4ef232c;

    IERC20 private immutable _TOKEN;
    IChannels private immutable _CHANNELS;
    INodeRegistry private immutable _NODES;
    uint256 private immutable _CHAIN_ID;
    bytes32 private immutable _DOMAIN;

    uint256 private _count;
    mapping(uint256 id => bytes32) private _open;

    /// @param channels_ Where fulfilled fees go, deployed before and naming this contract.
    constructor(address channels_) {
        address named = IChannels(channels_).requests();
        require(named == address(this), Requests_ChannelsNamesOther(named));

        _CHANNELS = IChannels(channels_);
        _TOKEN = IERC20(IChannels(channels_).token());
        _NODES = INodeRegistry(IChannels(channels_).nodes());
        _CHAIN_ID = block.chainid;
        _DOMAIN = TypedData.domain(channels_);
    }

    /// @inheritdoc IRequests
    function request(Order memory order, bytes calldata ids) external returns (uint256 id) {
        _checkOrder(order);
        require(
            ids.length != 0 && ids.length % 4 == 0 && ids.length <= _MAX_PROMPT,
            Requests_BadPrompt(ids.length, _MAX_PROMPT)
        );

        id = ++_count;
        Params memory params = Params({
            payer: msg.sender,
            gateway: order.gateway,
            model: order.model,
            profile: order.profile,
            prompt: keccak256(abi.encodePacked(PUBLIC_PROMPT_SALT, ids)),
            sampling: order.sampling,
            // At most 16,384 / 4.
            inputTokens: uint32(ids.length / 4),
            maxTokens: order.maxTokens,
            fee: order.fee,
            deadline: order.deadline
        });
        bytes32 digest = _digest(id, params);
        _open[id] = digest;

        emit Requested(id, order.gateway, digest, params, ids);

        _TOKEN.safeTransferFrom(msg.sender, address(this), order.fee);
    }

    /// @inheritdoc IRequests
    function fulfil(uint256 id, Params calldata params, bytes32 receipt, bytes calldata output)
        external
    {
        bytes32 digest = _checkOpen(id, params);
        (address owner,, uint48 revokedAt) = _NODES.serviceKey(msg.sender);
        require(
            owner == params.gateway && revokedAt == 0,
            Requests_CallerNotGateway(id, msg.sender, params.gateway)
        );
        require(_NODES.serves(params.gateway, _GATEWAY), Requests_GatewayNotActive(params.gateway));
        require(block.timestamp <= params.deadline, Requests_TooLate(id, params.deadline));
        require(receipt != 0, Requests_ReceiptZero(id));
        uint256 tokens = output.length / 4;
        require(
            output.length % 4 == 0 && tokens <= params.maxTokens,
            Requests_BadOutput(id, output.length, params.maxTokens)
        );

        delete _open[id];

        // The cast is safe: `tokens` is at most `maxTokens`, which has 32 bits.
        emit Fulfilled(
            id, params.gateway, digest, receipt, keccak256(output), uint32(tokens), params.fee
        );

        _TOKEN.safeTransfer(address(_CHANNELS), params.fee);
        _CHANNELS.credit(params.gateway, params.fee);
    }

    /// @inheritdoc IRequests
    function refund(uint256 id, Params calldata params) external {
        _checkOpen(id, params);
        require(block.timestamp > params.deadline, Requests_NotDue(id, params.deadline));

        delete _open[id];

        emit Refunded(id, params.payer, params.fee);

        _TOKEN.safeTransfer(params.payer, params.fee);
    }

    /// @inheritdoc IRequests
    function openRequest(uint256 id) external view returns (bytes32) {
        return _open[id];
    }

    /// @inheritdoc IRequests
    function requestCount() external view returns (uint256) {
        return _count;
    }

    /// @inheritdoc IRequests
    function digestOf(uint256 id, Params calldata params) external view returns (bytes32) {
        return _digest(id, params);
    }

    /// @inheritdoc IRequests
    function token() external view returns (address) {
        return address(_TOKEN);
    }

    /// @inheritdoc IRequests
    function channels() external view returns (address) {
        return address(_CHANNELS);
    }

    /// @inheritdoc IRequests
    function nodes() external view returns (address) {
        return address(_NODES);
    }

    /// @inheritdoc IRequests
    function seedOf(uint256 id) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), id));
    }

    function _checkOrder(Order memory order) private view {
        require(order.fee != 0, Requests_FeeZero());
        require(order.maxTokens != 0, Requests_NoOutput());
        uint32 topP = order.sampling.topP;
        require(
            topP != 0 && topP <= _TOP_P_ONE && order.sampling.stop == 0,
            Requests_BadSampling(topP, order.sampling.stop)
        );
        uint256 latest = block.timestamp + _MAX_LIFE;
        require(
            order.deadline > block.timestamp && order.deadline <= latest,
            Requests_BadDeadline(order.deadline, uint64(latest))
        );
    }

    /// @dev The digest covers all parameters and the id, so it stands for both in storage.
    function _checkOpen(uint256 id, Params calldata params) private view returns (bytes32 digest) {
        digest = _digest(id, params);
        require(_open[id] == digest, Requests_NotOpen(id));
    }

    /// @dev The domain is derived again after a fork of the chain changed its id.
    function _digest(uint256 id, Params memory params) private view returns (bytes32) {
        bytes32 domain = block.chainid == _CHAIN_ID ? _DOMAIN : TypedData.domain(address(_CHANNELS));
        return TypedData.digest(domain, TypedData.request(params, seedOf(id)));
    }
}
