// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ReceiptsTree} from "../libraries/ReceiptsTree.sol";

/// @title ReceiptCheck
/// @notice Checks one inclusion proof per transaction, so that its gas can be measured.
/// @dev Calldata is root 32 · leaf hash 32 · size 4 · index 4 · siblings 32 each, without padding: at
/// these lengths the calldata's floor price (EIP-7623) is all that a check costs.
contract ReceiptCheck {
    /// @notice The leaf is not in the tree.
    error ReceiptCheck_NotIncluded();

    /// @notice Reverts unless the leaf is in the tree.
    /// @param proof Root, leaf hash, size, index and siblings.
    fallback(bytes calldata proof) external returns (bytes memory) {
        bytes32[] calldata siblings;
        assembly ("memory-safe") {
            siblings.offset := add(proof.offset, 72)
            siblings.length := shr(5, sub(proof.length, 72))
        }
        require(
            ReceiptsTree.contains(
                bytes32(proof[:32]),
                uint32(bytes4(proof[64:68])),
                uint32(bytes4(proof[68:72])),
                bytes32(proof[32:64]),
                siblings
            ),
            ReceiptCheck_NotIncluded()
        );
        return "";
    }
}
