// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {TypedData} from "./TypedData.sol";

/// @title ClaimRow
/// @notice Reads the 132-byte rows of a claim and hashes them without leaving memory behind.
/// @dev A row is payer 20 · cumulative 12 · jobs 4 · receiptsRoot 32 · r 32 · vs 32 bytes. Assembly
/// saves a tenth of a row's gas; TypedData is the reference it is fuzzed against.
library ClaimRow {
    uint256 internal constant LENGTH = 132;

    /// @notice Returns a row's fields; the caller has checked that row `index` exists.
    /// @param rows Rows of 132 bytes.
    /// @param index Number of the row, from 0.
    /// @return payer Who pays.
    /// @return cumulative Base units signed for on this channel so far.
    /// @return jobs Jobs the voucher stands for.
    /// @return root Root over the leaves of those jobs.
    /// @return r First word of the signature.
    /// @return vs Second word of the signature.
    function read(bytes calldata rows, uint256 index)
        internal
        pure
        returns (address payer, uint96 cumulative, uint32 jobs, bytes32 root, bytes32 r, bytes32 vs)
    {
        assembly ("memory-safe") {
            let at := add(rows.offset, mul(index, 132))
            let head := calldataload(at)
            payer := shr(96, head)
            cumulative := and(head, 0xffffffffffffffffffffffff)
            jobs := shr(224, calldataload(add(at, 32)))
            root := calldataload(add(at, 36))
            r := calldataload(add(at, 68))
            vs := calldataload(add(at, 100))
        }
    }

    /// @notice Returns the digest of the voucher that a row stands for.
    /// @param separator The domain separator.
    /// @param payer Who pays.
    /// @param payee The node's owner, who is paid.
    /// @param cumulative Base units signed for on this channel so far.
    /// @param jobs Jobs the voucher stands for.
    /// @param root Root over the leaves of those jobs.
    /// @return result The digest.
    function digest(
        bytes32 separator,
        address payer,
        address payee,
        uint96 cumulative,
        uint32 jobs,
        bytes32 root
    ) internal pure returns (bytes32 result) {
        bytes32 typehash = TypedData.VOUCHER_TYPEHASH;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typehash)
            mstore(add(free, 0x20), payer)
            mstore(add(free, 0x40), payee)
            mstore(add(free, 0x60), cumulative)
            mstore(add(free, 0x80), jobs)
            mstore(add(free, 0xa0), root)
            let structHash := keccak256(free, 0xc0)
            mstore(free, hex"1901")
            mstore(add(free, 0x02), separator)
            mstore(add(free, 0x22), structHash)
            result := keccak256(free, 0x42)
        }
    }

    /// @notice Returns keccak256(abi.encode(payer, payee, signer)).
    /// @param payer Who pays.
    /// @param payee The node's owner, who is paid.
    /// @param signer The session key whose signature spends the channel.
    /// @return id The channel.
    function channel(address payer, address payee, address signer)
        internal
        pure
        returns (bytes32 id)
    {
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, payer)
            mstore(add(free, 0x20), payee)
            mstore(add(free, 0x40), signer)
            id := keccak256(free, 0x60)
        }
    }
}
