// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {ModelId} from "../types/Ids.sol";

/// @title IRequests
/// @notice Keeps on-chain requests to a named node: the fee in escrow until the node fulfils the
/// request, its payer cancels it after the exclusive period, or anyone refunds it after its deadline.
/// @dev A prompt is a commitment; its token ids are either calldata, and then emitted, or reach the
/// node off chain. Storage never holds them. The answer's ids are in the calldata of `fulfil`. The
/// request's name everywhere is the EIP-712 digest of `Request` with quote = 0, one profile, stop =
/// 0, maxPrice = fee, seed = nonce = keccak256(abi.encode(chainId, Requests, id)).
/// Trust assumptions on the token are those of `IChannels`.
interface IRequests {
    /// @notice What a caller asks for.
    /// @param gateway The node's owner; only while it is active in the gateway role can it fulfil, so
    /// callers ask `NodeRegistry.serves(gateway, 1)` before they put money in escrow.
    /// @param model The model.
    /// @param profile The one profile allowed.
    /// @param temperature Of the sampling, in millionths; 0 is greedy. There are no stop strings.
    /// @param topP Of the sampling, in millionths, 1 to 1,000,000; the last is off.
    /// @param topK Of the sampling, a count; 0 keeps all.
    /// @param maxTokens Most output tokens, at least 1.
    /// @param fee Base units, approved for this contract beforehand; what the node is paid.
    /// @param exclusiveUntil Unix seconds until which the caller cannot cancel: at least
    /// `MIN_EXCLUSIVE` from now, at most the deadline. A node answers only while it lasts, because
    /// an answer that waits to be mined can be read and cancelled afterwards.
    /// @param deadline Unix seconds, at most an hour away.
    /// @param callbackGas Gas for the callback to the caller, 0 for none, at most
    /// `MAX_CALLBACK_GAS`. Nodes weigh it against the fee.
    struct Order {
        address gateway;
        ModelId model;
        bytes32 profile;
        uint32 temperature;
        uint32 topP;
        uint32 topK;
        uint32 maxTokens;
        uint96 fee;
        uint64 exclusiveUntil;
        uint64 deadline;
        uint32 callbackGas;
    }

    /// @notice A request's parameters; storage keeps only keccak256(abi.encode(params)).
    /// @param payer The caller of `request`, who is refunded and called back.
    /// @param prompt Commitment to the prompt: keccak256(salt, token ids).
    /// @param inputTokens Token ids in the prompt.
    struct Params {
        address payer;
        address gateway;
        ModelId model;
        bytes32 profile;
        bytes32 prompt;
        uint32 temperature;
        uint32 topP;
        uint32 topK;
        uint32 inputTokens;
        uint32 maxTokens;
        uint96 fee;
        uint64 exclusiveUntil;
        uint64 deadline;
        uint32 callbackGas;
    }

    /// @notice A request is made; its name everywhere is `request`.
    /// @param id The request's number.
    /// @param gateway The node's owner who is asked.
    /// @param request Digest of the request.
    /// @param params The request's parameters.
    event Requested(
        uint256 indexed id, address indexed gateway, bytes32 indexed request, Params params
    );
    /// @notice The prompt of the request made right before is public: its token ids, 4 bytes each,
    /// big-endian. Without this event they reach the node off chain.
    /// @param id The request's number.
    /// @param gateway The node's owner who is asked.
    /// @param ids Token ids, four bytes each.
    event PromptPublished(uint256 indexed id, address indexed gateway, bytes ids);
    /// @notice A request is fulfilled and its fee credited to the gateway.
    /// @dev `outputHash` is keccak256 of the token ids, 4 bytes each, in the calldata of `fulfil`.
    /// @param id The request's number.
    /// @param gateway The node's owner who is asked.
    /// @param receipt Digest of the gateway's receipt.
    /// @param outputHash keccak256 of the output's token ids.
    /// @param outputTokens Number of the output's tokens.
    event Fulfilled(
        uint256 indexed id,
        address indexed gateway,
        bytes32 receipt,
        bytes32 outputHash,
        uint32 outputTokens
    );
    /// @notice A request timed out and its fee went back.
    /// @param id The request's number.
    /// @param payer Who pays.
    /// @param fee Base units.
    event Refunded(uint256 indexed id, address indexed payer, uint96 fee);
    /// @notice A request was cancelled by its payer and its fee went back.
    /// @param id The request's number.
    /// @param payer Who pays.
    /// @param fee Base units.
    event Cancelled(uint256 indexed id, address indexed payer, uint96 fee);
    /// @notice The payer's callback reverted or ran out of its gas; nothing else changed.
    /// @param id The request's number.
    event CallbackFailed(uint256 indexed id);

    /// @notice `Channels` names another `Requests`; an address was predicted wrongly.
    error Requests_ChannelsNamesOther(address requests);
    /// @notice The gateway is not, or no longer, an active node in the gateway role.
    error Requests_GatewayNotActive(address gateway);
    /// @notice The prompt is empty, no whole number of ids, above `max` bytes, or committed to by zero.
    error Requests_BadPrompt(uint256 length, uint256 max);
    /// @notice Top-p is zero or above 1,000,000.
    error Requests_BadSampling(uint32 topP);
    /// @notice No output is asked for.
    error Requests_NoOutput();
    /// @notice The fee is zero.
    error Requests_FeeZero();
    /// @notice The exclusive period is shorter than `MIN_EXCLUSIVE`, ends after the deadline, or the
    /// deadline is later than `latest`.
    error Requests_BadTimes(uint64 exclusiveUntil, uint64 deadline, uint64 latest);
    /// @notice The callback asks for more than `max` gas.
    error Requests_CallbackTooCostly(uint32 callbackGas, uint32 max);
    /// @notice The request was never made, is settled, or has other parameters.
    error Requests_NotOpen(uint256 id);
    /// @notice The caller is no valid service key of the gateway.
    error Requests_CallerNotGateway(uint256 id, address caller, address gateway);
    /// @notice Only the payer cancels.
    error Requests_CallerNotPayer(uint256 id, address caller, address payer);
    /// @notice The node may still fulfil without fear; the payer may cancel after `exclusiveUntil`.
    error Requests_StillExclusive(uint256 id, uint64 exclusiveUntil);
    /// @notice The deadline has passed; the fee goes back.
    error Requests_TooLate(uint256 id, uint64 deadline);
    /// @notice The deadline has not passed; the node may still fulfil.
    error Requests_NotDue(uint256 id, uint64 deadline);
    /// @notice The receipt's digest is zero.
    error Requests_ReceiptZero(uint256 id);
    /// @notice The output is empty, no whole number of ids, or has more than `maxTokens` of them.
    error Requests_BadOutput(uint256 id, uint256 length, uint32 maxTokens);
    /// @notice The transaction has too little gas left to give the callback what it was promised.
    error Requests_TooLittleGas(uint256 id, uint256 left, uint256 needed);

    /// @notice Asks a named node with a public prompt and puts the fee in escrow.
    /// @param order What is asked for.
    /// @param ids The prompt's token ids, 4 bytes each, big-endian, at most 16 KiB.
    /// @return id Number of the request, from 1.
    function request(Order calldata order, bytes calldata ids) external returns (uint256 id);

    /// @notice Asks a named node with a prompt that reaches it off chain; puts the fee in escrow.
    /// @dev The node answers only once it holds a prompt that fits the commitment. One that never
    /// gets it lets the request end by time, so the payer risks nothing but the wait.
    /// @param order What is asked for.
    /// @param prompt keccak256(salt, token ids), never zero.
    /// @param inputTokens Token ids in the prompt, 1 to 4,096.
    /// @return id Number of the request, from 1.
    function requestByCommitment(Order calldata order, bytes32 prompt, uint32 inputTokens)
        external
        returns (uint256 id);

    /// @notice Answers a request; only a valid service key of its gateway may, until its deadline, and
    /// only while the gateway is active.
    /// @dev The fee is flat: it is the node's whatever the answer's length, at least one id. It joins
    /// the gateway's pending money first; then the payer is called back with
    /// exactly the gas it asked for, and nothing that it does can undo the payment.
    /// @param id The request.
    /// @param params Its parameters, as emitted.
    /// @param receipt Digest of the signed receipt.
    /// @param output The answer's token ids, 4 bytes each, big-endian.
    function fulfil(uint256 id, Params calldata params, bytes32 receipt, bytes calldata output)
        external;

    /// @notice Ends one of the caller's requests after its exclusive period; the fee goes back.
    /// @param id The request.
    /// @param params Its parameters, as emitted.
    function cancel(uint256 id, Params calldata params) external;

    /// @notice Pays the fee of a timed-out request back to its payer; anyone may call.
    /// @param id The request.
    /// @param params Its parameters, as emitted.
    function refund(uint256 id, Params calldata params) external;

    /// @notice Returns the hash of an open request's parameters, zero for a settled or unknown one.
    /// @param id The request's number.
    function openRequest(uint256 id) external view returns (bytes32);

    /// @notice Returns how many requests were ever made; ids run from 1 to this number.
    function requestCount() external view returns (uint256);

    /// @notice Returns a request's seed and nonce.
    /// @param id The request's number.
    function seedOf(uint256 id) external view returns (bytes32);

    /// @notice Returns the digest by which a request is known everywhere.
    /// @param id The request's number.
    /// @param params The request's parameters.
    function digestOf(uint256 id, Params calldata params) external view returns (bytes32);

    /// @notice Returns the salt of public prompts: HKDF-SHA256 of 32 zero bytes, no salt, info
    /// `plait/1/salt/prompt`.
    function PUBLIC_PROMPT_SALT() external view returns (bytes32);

    /// @notice Returns the shortest exclusive period, in seconds.
    function MIN_EXCLUSIVE() external view returns (uint64);

    /// @notice Returns the most gas that a callback may ask for.
    function MAX_CALLBACK_GAS() external view returns (uint32);

    /// @notice Returns the token.
    function token() external view returns (address);

    /// @notice Returns the contract that keeps fulfilled fees.
    function channels() external view returns (address);

    /// @notice Returns the node registry.
    function nodes() external view returns (address);
}
