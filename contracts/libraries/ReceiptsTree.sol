// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

/// @title ReceiptsTree
/// @notice Checks that a leaf is in an RFC 9162 tree made with keccak256.
/// @dev Leaf hash = keccak256(0x00 ‖ data), node hash = keccak256(0x01 ‖ left ‖ right); the root
/// over no leaves is keccak256("").
library ReceiptsTree {
    /// @notice What a leaf stands for.
    uint8 internal constant KIND_RECEIPT = 0;
    uint8 internal constant KIND_ABORTED = 1;

    /// @notice Returns the hash of a channel's leaf for one ended job.
    /// @param kind 0 a receipt, 1 an aborted job.
    /// @param hash The receipt's digest, or the request of the aborted job.
    /// @param hopAmount Base units paid on this hop for the job.
    /// @param windowsPaid Windows paid on this hop for the job.
    function leaf(uint8 kind, bytes32 hash, uint96 hopAmount, uint32 windowsPaid)
        internal
        pure
        returns (bytes32)
    {
        return leafHash(abi.encode(kind, hash, hopAmount, windowsPaid));
    }

    /// @notice Returns the hash of a leaf with the given data.
    /// @param data What the leaf holds.
    function leafHash(bytes memory data) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(bytes1(0x00), data));
    }

    /// @notice Says whether `hash` is leaf number `index` of the tree with `size` leaves and `root`.
    /// @param root Root of the tree.
    /// @param size Number of leaves.
    /// @param index Number of the leaf, from 0.
    /// @param hash Its leaf hash.
    /// @param proof Siblings from the leaf up, exactly as many as the path has.
    function contains(
        bytes32 root,
        uint256 size,
        uint256 index,
        bytes32 hash,
        bytes32[] calldata proof
    ) internal pure returns (bool) {
        if (index >= size) return false;

        uint256 node = index;
        uint256 last = size - 1;
        for (uint256 i = 0; i < proof.length; ++i) {
            if (last == 0) return false;
            if (node & 1 == 1 || node == last) {
                hash = _join(proof[i], hash);
                // A rightmost node without a sibling moves up until it is a right child; the loop
                // ends because node > 0 here (node == last == 0 was refused above).
                while (node & 1 == 0) {
                    node >>= 1;
                    last >>= 1;
                }
            } else {
                hash = _join(hash, proof[i]);
            }
            node >>= 1;
            last >>= 1;
        }
        return last == 0 && hash == root;
    }

    /// @dev keccak256(abi.encodePacked(bytes1(0x01), left, right)) without leaving memory behind.
    function _join(bytes32 left, bytes32 right) private pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore8(free, 1)
            mstore(add(free, 0x01), left)
            mstore(add(free, 0x21), right)
            hash := keccak256(free, 0x41)
        }
    }
}
