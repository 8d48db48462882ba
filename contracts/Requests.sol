// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {IChannels} from "./interfaces/IChannels.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {IRequestReceiver} from "./interfaces/IRequestReceiver.sol";
import {IRequests} from "./interfaces/IRequests.sol";
import {Callback} from "./libraries/Callback.sol";
import {Intake} from "./libraries/Intake.sol";
import {RequestParams} from "./libraries/RequestParams.sol";
import {TypedData} from "./libraries/TypedData.sol";

/// @title Requests
/// @notice Keeps on-chain requests to a named node and the fee of each until it is settled.
contract Requests is IRequests {
    using Intake for IERC20;
    using SafeERC20 for IERC20;

    uint8 private constant _GATEWAY = 1;
    uint32 private constant _TOP_P_ONE = 1_000_000;
    uint64 private constant _MAX_LIFE = 1 hours;
    uint256 private constant _MAX_PROMPT = 16_384;

    /// @inheritdoc IRequests
    bytes32 public constant PUBLIC_PROMPT_SALT =
        0x1deeecde33a14a9d311f79bbb4330785d3020d7a32bf5081663f5649e4ef232c;
    /// @inheritdoc IRequests
    uint64 public constant MIN_EXCLUSIVE = 1 minutes;
    /// @inheritdoc IRequests
    uint32 public constant MAX_CALLBACK_GAS = 1_000_000;

    IERC20 private immutable _TOKEN;
    IChannels private immutable _CHANNELS;
    INodeRegistry private immutable _NODES;
    uint256 private immutable _CHAIN_ID;
    bytes32 private immutable _DOMAIN;

    uint256 private _count;
    mapping(uint256 id => bytes32 paramsHash) private _open;

    /// @notice Fixes what never changes afterwards.
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
    function request(Order calldata order, bytes calldata ids) external returns (uint256 id) {
        require(
            ids.length != 0 && ids.length % 4 == 0 && ids.length <= _MAX_PROMPT,
            Requests_BadPrompt(ids.length, _MAX_PROMPT)
        );
        bytes32 prompt = keccak256(abi.encodePacked(PUBLIC_PROMPT_SALT, ids));
        // The cast is safe: at most 16,384 / 4.
        id = _request(order, prompt, uint32(ids.length / 4));

        emit PromptPublished(id, order.gateway, ids);

        _TOKEN.pull(order.fee);
    }

    /// @inheritdoc IRequests
    function requestByCommitment(Order calldata order, bytes32 prompt, uint32 inputTokens)
        external
        returns (uint256 id)
    {
        uint256 length = uint256(inputTokens) * 4;
        require(
            prompt != 0 && length != 0 && length <= _MAX_PROMPT,
            Requests_BadPrompt(length, _MAX_PROMPT)
        );
        id = _request(order, prompt, inputTokens);

        _TOKEN.pull(order.fee);
    }

    /// @inheritdoc IRequests
    function fulfil(uint256 id, Params calldata params, bytes32 receipt, bytes calldata output)
        external
    {
        _checkOpen(id, params);
        (address owner, bool serves) = _NODES.servingOwner(msg.sender, _GATEWAY);
        require(owner == params.gateway, Requests_CallerNotGateway(id, msg.sender, params.gateway));
        require(serves, Requests_GatewayNotActive(params.gateway));
        require(block.timestamp <= params.deadline, Requests_TooLate(id, params.deadline));
        require(receipt != 0, Requests_ReceiptZero(id));
        uint256 tokens = output.length / 4;
        require(
            tokens != 0 && output.length % 4 == 0 && tokens <= params.maxTokens,
            Requests_BadOutput(id, output.length, params.maxTokens)
        );

        delete _open[id];

        // The cast is safe: `tokens` is at most `maxTokens`, which has 32 bits.
        emit Fulfilled(id, params.gateway, receipt, keccak256(output), uint32(tokens));

        _TOKEN.safeTransfer(address(_CHANNELS), params.fee);
        _CHANNELS.credit(params.gateway, params.fee);
        if (params.callbackGas != 0) {
            _callBack(
                id, params, abi.encodeCall(IRequestReceiver.requestFulfilled, (id, receipt, output))
            );
        }
    }

    /// @inheritdoc IRequests
    function cancel(uint256 id, Params calldata params) external {
        _checkOpen(id, params);
        require(msg.sender == params.payer, Requests_CallerNotPayer(id, msg.sender, params.payer));
        require(
            block.timestamp > params.exclusiveUntil,
            Requests_StillExclusive(id, params.exclusiveUntil)
        );

        delete _open[id];

        emit Cancelled(id, params.payer, params.fee);

        _giveBack(id, params);
    }

    /// @inheritdoc IRequests
    function refund(uint256 id, Params calldata params) external {
        _checkOpen(id, params);
        require(block.timestamp > params.deadline, Requests_NotDue(id, params.deadline));

        delete _open[id];

        emit Refunded(id, params.payer, params.fee);

        _giveBack(id, params);
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

    function _request(Order calldata order, bytes32 prompt, uint32 inputTokens)
        private
        returns (uint256 id)
    {
        _checkOrder(order);

        id = ++_count;
        Params memory params = Params({
            payer: msg.sender,
            gateway: order.gateway,
            model: order.model,
            profile: order.profile,
            prompt: prompt,
            temperature: order.temperature,
            topP: order.topP,
            topK: order.topK,
            inputTokens: inputTokens,
            maxTokens: order.maxTokens,
            fee: order.fee,
            exclusiveUntil: order.exclusiveUntil,
            deadline: order.deadline,
            callbackGas: order.callbackGas
        });
        _open[id] = RequestParams.hash(params);

        emit Requested(id, order.gateway, _digest(id, params), params);
    }

    function _giveBack(uint256 id, Params calldata params) private {
        _TOKEN.safeTransfer(params.payer, params.fee);
        if (params.callbackGas != 0) {
            _callBack(
                id, params, abi.encodeCall(IRequestReceiver.requestRefunded, (id, params.fee))
            );
        }
    }

    /// @dev The last thing in a transaction: all state is settled and all money has moved.
    function _callBack(uint256 id, Params calldata params, bytes memory data) private {
        uint256 needed = Callback.gasNeeded(params.callbackGas);
        uint256 left = gasleft();
        require(left >= needed, Requests_TooLittleGas(id, left, needed));
        if (!Callback.tryCall(params.payer, params.callbackGas, data)) emit CallbackFailed(id);
    }

    function _checkOrder(Order calldata order) private view {
        require(order.fee != 0, Requests_FeeZero());
        require(order.maxTokens != 0, Requests_NoOutput());
        uint32 topP = order.topP;
        require(topP != 0 && topP <= _TOP_P_ONE, Requests_BadSampling(topP));
        (uint64 exclusiveUntil, uint64 deadline) = (order.exclusiveUntil, order.deadline);
        uint256 latest = block.timestamp + _MAX_LIFE;
        require(
            exclusiveUntil >= block.timestamp + MIN_EXCLUSIVE && exclusiveUntil <= deadline
                && deadline <= latest,
            Requests_BadTimes(exclusiveUntil, deadline, uint64(latest))
        );
        require(
            order.callbackGas <= MAX_CALLBACK_GAS,
            Requests_CallbackTooCostly(order.callbackGas, MAX_CALLBACK_GAS)
        );
    }

    function _checkOpen(uint256 id, Params calldata params) private view {
        require(_open[id] == RequestParams.hashCalldata(params), Requests_NotOpen(id));
    }

    /// @dev The domain is derived again after a fork of the chain changed its id.
    function _digest(uint256 id, Params memory params) private view returns (bytes32) {
        bytes32 domain = block.chainid == _CHAIN_ID ? _DOMAIN : TypedData.domain(address(_CHANNELS));
        return TypedData.digest(domain, TypedData.request(params, seedOf(id)));
    }
}
