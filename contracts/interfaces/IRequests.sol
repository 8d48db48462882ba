// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {ModelId} from "../types/Ids.sol";

/// @title IRequests
/// @notice Keeps on-chain requests to a named node: the fee in escrow until the node fulfils the
/// request before its deadline, or anyone refunds it afterwards.
/// @dev The prompt is public: its token ids are emitted, so are the answer's in the calldata of
/// `fulfil`. The request's name everywhere is the EIP-712 digest of `Request` with quote = 0, one
/// profile, maxPrice = fee, seed = nonce = keccak256(abi.encode(chainId, Requests, id)).
interface IRequests {
    /// @notice How tokens are drawn.
    /// @param temperature Millionths; 0 is greedy.
    /// @param topP Millionths, 1 to 1,000,000; the last is off.
    /// @param topK Count; 0 keeps all.
    /// @param stop Commitment to stop strings; always zero on this path, which has none.
    struct Sampling {
        uint32 temperature;
        uint32 topP;
        uint32 topK;
        bytes32 stop;
    }

    /// @notice What a caller asks for.
    /// @param gateway The node's owner; only while it is active in the gateway role can it fulfil, so
    /// callers ask `NodeRegistry.serves(gateway, 1)` before they put money in escrow.
    /// @param model The model.
    /// @param profile The one profile allowed.
    /// @param sampling How tokens are drawn.
    /// @param maxTokens Most output tokens, at least 1.
    /// @param fee Base units, approved for this contract beforehand; what the node is paid.
    /// @param deadline Unix seconds, after now and at most an hour away.
    struct Order {
        address gateway;
        ModelId model;
        bytes32 profile;
        Sampling sampling;
        uint32 maxTokens;
        uint96 fee;
        uint64 deadline;
    }

    /// @notice A request's parameters; storage keeps only the digest, which covers all of them.
    /// @param payer The caller of `request`, who is refunded.
    /// @param prompt keccak256(public salt, token ids), see PUBLIC_PROMPT_SALT.
    /// @param inputTokens Token ids in the prompt.
    struct Params {
        address payer;
        address gateway;
        ModelId model;
        bytes32 profile;
        bytes32 prompt;
        Sampling sampling;
        uint32 inputTokens;
        uint32 maxTokens;
        uint96 fee;
        uint64 deadline;
    }

    /// @notice A request is made; `ids` are its prompt's token ids, 4 bytes each, big-endian.
    event Requested(
        uint256 indexed id,
        address indexed gateway,
        bytes32 indexed request,
        Params params,
        bytes ids
    );
    /// @notice A request is fulfilled and its fee credited to the gateway.
    /// @dev `outputHash` is keccak256 of the token ids, 4 bytes each, in the calldata of `fulfil`.
    event Fulfilled(
        uint256 indexed id,
        address indexed gateway,
        bytes32 indexed request,
        bytes32 receipt,
        bytes32 outputHash,
        uint32 outputTokens,
        uint96 fee
    );
    /// @notice A request timed out and its fee went back.
    event Refunded(uint256 indexed id, address indexed payer, uint96 fee);

    /// @notice `Channels` names another `Requests`; an address was predicted wrongly.
    error Requests_ChannelsNamesOther(address requests);
    /// @notice The gateway is not, or no longer, an active node in the gateway role.
    error Requests_GatewayNotActive(address gateway);
    /// @notice The prompt is empty, no whole number of ids, or above `max` bytes.
    error Requests_BadPrompt(uint256 length, uint256 max);
    /// @notice Top-p is zero or above 1,000,000, or stop strings are asked for.
    error Requests_BadSampling(uint32 topP, bytes32 stop);
    /// @notice No output is asked for.
    error Requests_NoOutput();
    /// @notice The fee is zero.
    error Requests_FeeZero();
    /// @notice The deadline is not after now or later than `latest`.
    error Requests_BadDeadline(uint64 deadline, uint64 latest);
    /// @notice The request was never made, is settled, or has other parameters.
    error Requests_NotOpen(uint256 id);
    /// @notice The caller is no valid service key of the gateway.
    error Requests_CallerNotGateway(uint256 id, address caller, address gateway);
    /// @notice The deadline has passed; the fee goes back.
    error Requests_TooLate(uint256 id, uint64 deadline);
    /// @notice The deadline has not passed; the node may still fulfil.
    error Requests_NotDue(uint256 id, uint64 deadline);
    /// @notice The receipt's digest is zero.
    error Requests_ReceiptZero(uint256 id);
    /// @notice The output is no whole number of ids or has more than `maxTokens` of them.
    error Requests_BadOutput(uint256 id, uint256 length, uint32 maxTokens);

    /// @notice Asks a named node and puts the fee in escrow.
    /// @param order What is asked for.
    /// @param ids The prompt's token ids, 4 bytes each, big-endian, at most 16 KiB.
    /// @return id Number of the request, from 1.
    function request(Order calldata order, bytes calldata ids) external returns (uint256 id);

    /// @notice Answers a request; only a valid service key of its gateway may, until its deadline, and
    /// only while the gateway is active.
    /// @param id The request.
    /// @param params Its parameters, as emitted.
    /// @param receipt Digest of the signed receipt.
    /// @param output The answer's token ids, 4 bytes each, big-endian.
    function fulfil(uint256 id, Params calldata params, bytes32 receipt, bytes calldata output)
        external;

    /// @notice Pays the fee of a timed-out request back to its payer; anyone may call.
    /// @param id The request.
    /// @param params Its parameters, as emitted.
    function refund(uint256 id, Params calldata params) external;

    /// @notice Returns the digest of an open request, zero for a settled or unknown one.
    function openRequest(uint256 id) external view returns (bytes32);

    /// @notice Returns how many requests were ever made; ids run from 1 to this number.
    function requestCount() external view returns (uint256);

    /// @notice Returns a request's seed and nonce.
    function seedOf(uint256 id) external view returns (bytes32);

    /// @notice Returns the digest by which a request is known everywhere.
    function digestOf(uint256 id, Params calldata params) external view returns (bytes32);

    /// @notice Returns the salt of public prompts: HKDF-SHA256 of 32 zero bytes, no salt, info
    /// `plait/1/salt/prompt`.
    function PUBLIC_PROMPT_SALT() external view returns (bytes32);

    /// @notice Returns the token.
    function token() external view returns (address);

    /// @notice Returns the contract that keeps fulfilled fees.
    function channels() external view returns (address);

    /// @notice Returns the node registry.
    function nodes() external view returns (address);
}
