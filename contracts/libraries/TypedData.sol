// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IRequests} from "../interfaces/IRequests.sol";
import {ModelId} from "../types/Ids.sol";

/// @title TypedData
/// @notice Hashes the EIP-712 structs that Solidity meets; docs/protocol.md names all of them.
/// @dev Everything plait signs is under one domain, whose verifying contract is `Channels`.
library TypedData {
    bytes32 internal constant DOMAIN_TYPEHASH = keccak256(
        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    );
    bytes32 internal constant VOUCHER_TYPEHASH = keccak256(
        "Voucher(address payer,address payee,uint96 cumulative,uint32 jobs,bytes32 receiptsRoot)"
    );
    bytes32 internal constant CLOSE_TYPEHASH =
        keccak256("Close(address payer,address payee,address signer,uint96 claimed,uint32 exitAt)");
    bytes32 internal constant SERVICE_KEY_TYPEHASH =
        keccak256("ServiceKey(address owner,address key)");
    bytes32 internal constant SAMPLING_TYPEHASH =
        keccak256("Sampling(uint32 temperature,uint32 topP,uint32 topK,bytes32 stop)");
    bytes32 internal constant REQUEST_TYPEHASH = keccak256(
        "Request(address payer,address gateway,bytes32 quote,bytes32 model,bytes32[] profiles,"
        "bytes32 prompt,Sampling sampling,uint32 inputTokens,uint32 maxTokens,uint96 maxPrice,"
        "bytes32 seed,bytes32 nonce,uint64 deadline)"
        "Sampling(uint32 temperature,uint32 topP,uint32 topK,bytes32 stop)"
    );

    /// @notice Returns the domain separator of a `Channels` deployment on this chain.
    /// @param channels The `Channels` deployment.
    function domain(address channels) internal view returns (bytes32) {
        return keccak256(
            abi.encode(DOMAIN_TYPEHASH, keccak256("plait"), keccak256("1"), block.chainid, channels)
        );
    }

    /// @notice Returns the digest of a struct hash under a domain.
    /// @param separator The domain separator.
    /// @param structHash The struct's hash.
    function digest(bytes32 separator, bytes32 structHash) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", separator, structHash));
    }

    /// @notice Returns the struct hash of a voucher.
    /// @param payer Who pays.
    /// @param payee The node's owner, who is paid.
    /// @param cumulative Base units signed for on this channel so far.
    /// @param jobs Jobs the voucher stands for.
    /// @param receiptsRoot Root over the leaves of those jobs.
    function voucher(
        address payer,
        address payee,
        uint96 cumulative,
        uint32 jobs,
        bytes32 receiptsRoot
    ) internal pure returns (bytes32) {
        return keccak256(abi.encode(VOUCHER_TYPEHASH, payer, payee, cumulative, jobs, receiptsRoot));
    }

    /// @notice Returns the struct hash of a payee's consent to close a channel.
    /// @param payer Who pays.
    /// @param payee The node's owner, who is paid.
    /// @param signer The session key whose signature spends the channel.
    /// @param claimed Base units claimed on this channel so far.
    /// @param exitAt Unix seconds from which the payer may withdraw.
    function close(address payer, address payee, address signer, uint96 claimed, uint32 exitAt)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(CLOSE_TYPEHASH, payer, payee, signer, claimed, exitAt));
    }

    /// @notice Returns the struct hash of a service key's proof of possession.
    /// @param owner The node's owner.
    /// @param key The service key.
    function serviceKey(address owner, address key) internal pure returns (bytes32) {
        return keccak256(abi.encode(SERVICE_KEY_TYPEHASH, owner, key));
    }

    /// @notice Returns the struct hash of an on-chain request: quote 0, one profile, seed = nonce.
    /// @param params The request's parameters.
    /// @param seed Seed of the sampling, which is the nonce too.
    /// @return structHash The struct's hash.
    function request(IRequests.Params memory params, bytes32 seed)
        internal
        pure
        returns (bytes32 structHash)
    {
        bytes32[14] memory words;
        words[0] = REQUEST_TYPEHASH;
        words[1] = bytes32(uint256(uint160(params.payer)));
        words[2] = bytes32(uint256(uint160(params.gateway)));
        // words[3], the quote, is zero.
        words[4] = ModelId.unwrap(params.model);
        words[5] = keccak256(abi.encode(params.profile));
        words[6] = params.prompt;
        // No stop strings.
        words[7] = keccak256(
            abi.encode(SAMPLING_TYPEHASH, params.temperature, params.topP, params.topK, bytes32(0))
        );
        words[8] = bytes32(uint256(params.inputTokens));
        words[9] = bytes32(uint256(params.maxTokens));
        words[10] = bytes32(uint256(params.fee));
        words[11] = seed;
        words[12] = seed;
        words[13] = bytes32(uint256(params.deadline));
        assembly ("memory-safe") {
            structHash := keccak256(words, 448)
        }
    }
}
