// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {ReceiptsTree} from "../../contracts/libraries/ReceiptsTree.sol";
import {Fixture} from "../Fixture.sol";
import {PureCaller} from "../mocks/Callers.sol";

/// @notice The reference is RFC 9162's own recursion, written with abi.encodePacked.
contract ReceiptsTreeContainsTest is Fixture {
    uint256 private constant _MAX_SIZE = 80;

    PureCaller private caller = new PureCaller();

    function test_HoldsForEveryLeafOfSmallTrees() public view {
        for (uint256 size = 1; size <= 17; ++size) {
            bytes32[] memory leaves = _leaves(size, 0);
            bytes32 root = _root(leaves, 0, size);
            for (uint256 index = 0; index < size; ++index) {
                bytes32[] memory proof = _proof(leaves, index);
                vm.assertTrue(caller.contains(root, size, index, leaves[index], proof), "contained");
            }
        }
    }

    function testFuzz_HoldsForAnyLeaf(uint256 size, uint256 index, bytes32 seed) public view {
        size = bound(size, 1, _MAX_SIZE);
        index = bound(index, 0, size - 1);
        bytes32[] memory leaves = _leaves(size, seed);

        bytes32 root = _root(leaves, 0, size);

        vm.assertTrue(
            caller.contains(root, size, index, leaves[index], _proof(leaves, index)), "contained"
        );
    }

    function testFuzz_RefusesAnotherLeafPlaceOrSibling(
        uint256 size,
        uint256 index,
        uint256 other,
        bytes32 seed
    ) public view {
        size = bound(size, 2, _MAX_SIZE);
        index = bound(index, 0, size - 1);
        other = bound(other, 0, size - 1);
        if (other == index) other = (index + 1) % size;
        bytes32[] memory leaves = _leaves(size, seed);
        bytes32 root = _root(leaves, 0, size);
        bytes32[] memory proof = _proof(leaves, index);

        vm.assertFalse(caller.contains(root, size, index, leaves[other], proof), "leaf");
        vm.assertFalse(caller.contains(root, size, other, leaves[index], proof), "place");
        vm.assertFalse(caller.contains(root, size, index, root, proof), "the root as a leaf");
        proof[other % proof.length] ^= bytes32(uint256(1));
        vm.assertFalse(caller.contains(root, size, index, leaves[index], proof), "sibling");
    }

    function testFuzz_RefusesAProofOfAnotherLength(uint256 size, uint256 index, bytes32 seed)
        public
        view
    {
        size = bound(size, 2, _MAX_SIZE);
        index = bound(index, 0, size - 1);
        bytes32[] memory leaves = _leaves(size, seed);
        bytes32 root = _root(leaves, 0, size);
        bytes32[] memory proof = _proof(leaves, index);

        bytes32[] memory shorter = _cut(proof, proof.length - 1);
        vm.assertFalse(caller.contains(root, size, index, leaves[index], shorter), "shorter");
        bytes32[] memory longer = _cut(proof, proof.length + 1);
        vm.assertFalse(caller.contains(root, size, index, leaves[index], longer), "longer");
        vm.assertFalse(caller.contains(root, size, index, root, _cut(proof, 0)), "none");
    }

    function testFuzz_RefusesAPlaceOutside(uint256 size, uint256 index, bytes32 leaf) public view {
        if (index < size) (index, size) = (size, index);

        vm.assertFalse(caller.contains(leaf, size, index, leaf, new bytes32[](0)), "outside");
    }

    function test_TellsLeavesFromNodes() public pure {
        bytes32 leaf = ReceiptsTree.leaf(0, keccak256("receipt"), 1, 2);

        vm.assertEq(
            leaf,
            keccak256(
                abi.encodePacked(
                    bytes1(0x00), abi.encode(uint8(0), keccak256("receipt"), uint96(1), uint32(2))
                )
            ),
            "leaf"
        );
    }

    function _leaves(uint256 size, bytes32 seed) private pure returns (bytes32[] memory leaves) {
        leaves = new bytes32[](size);
        for (uint256 i = 0; i < size; ++i) {
            leaves[i] = keccak256(abi.encode(seed, i));
        }
    }

    function _root(bytes32[] memory leaves, uint256 from, uint256 to)
        private
        pure
        returns (bytes32)
    {
        if (to - from == 1) return leaves[from];
        uint256 half = from + _split(to - from);
        return keccak256(
            abi.encodePacked(bytes1(0x01), _root(leaves, from, half), _root(leaves, half, to))
        );
    }

    /// @dev From the root down, so filled from its end.
    function _proof(bytes32[] memory leaves, uint256 index)
        private
        pure
        returns (bytes32[] memory proof)
    {
        uint256 depth = 0;
        bytes32[] memory all = new bytes32[](16);
        (uint256 from, uint256 to) = (0, leaves.length);
        while (to - from > 1) {
            uint256 half = from + _split(to - from);
            if (index < half) {
                all[depth++] = _root(leaves, half, to);
                to = half;
            } else {
                all[depth++] = _root(leaves, from, half);
                from = half;
            }
        }
        proof = new bytes32[](depth);
        for (uint256 i = 0; i < depth; ++i) {
            proof[i] = all[depth - 1 - i];
        }
    }

    /// @dev The largest power of two below the size.
    function _split(uint256 size) private pure returns (uint256 half) {
        half = 1;
        while (half * 2 < size) half *= 2;
    }

    function _cut(bytes32[] memory proof, uint256 length)
        private
        pure
        returns (bytes32[] memory cut)
    {
        cut = new bytes32[](length);
        for (uint256 i = 0; i < length && i < proof.length; ++i) {
            cut[i] = proof[i];
        }
    }
}
