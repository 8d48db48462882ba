// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {ClaimRow} from "../../contracts/libraries/ClaimRow.sol";
import {ReceiptsTree} from "../../contracts/libraries/ReceiptsTree.sol";
import {TypedData} from "../../contracts/libraries/TypedData.sol";
import {ModelId} from "../../contracts/types/Ids.sol";
import {Fixture} from "../Fixture.sol";

/// @notice Holds Solidity to the vectors that Python is held to.
contract VectorsTest is Fixture {
    string private _json;

    function test_Ids_ChannelsAreTheSame() public {
        _json = vm.readFile("chain_tests/vectors/ids.json");
        uint256 count = _count(".channels");
        vm.assertTrue(count != 0, "cases");
        for (uint256 i = 0; i < count; ++i) {
            string memory at = _at(".channels", i);
            vm.assertEq(
                ClaimRow.channel(
                    _address(at, ".payer"), _address(at, ".payee"), _address(at, ".signer")
                ),
                _word(at, ".id"),
                at
            );
        }
    }

    function test_Claims_RowsAreTheSame() public {
        _json = vm.readFile("chain_tests/vectors/claims.json");
        bytes32 separator = TypedData.domain(_address(".domain", ".verifyingContract"));
        uint256 count = _count(".rows");
        vm.assertTrue(count != 0, "cases");
        bytes memory all = "";
        for (uint256 i = 0; i < count; ++i) {
            all = bytes.concat(all, _bytes(_at(".rows", i), ".row"));
        }
        vm.assertEq(all.length, count * ClaimRow.LENGTH, "length");
        for (uint256 i = 0; i < count; ++i) {
            this.checkRow(all, i, separator);
        }
    }

    function checkRow(bytes calldata rows, uint256 index, bytes32 separator) external view {
        string memory at = _at(".rows", index);
        (address from, uint96 cumulative, uint32 jobs, bytes32 root, bytes32 r, bytes32 vs) =
            ClaimRow.read(rows, index);
        vm.assertEq(from, _address(at, ".payer"), "payer");
        vm.assertEq(cumulative, _uint(at, ".cumulative"), "cumulative");
        vm.assertEq(jobs, _uint(at, ".jobs"), "jobs");
        vm.assertEq(root, _word(at, ".receiptsRoot"), "root");

        address to = _address(at, ".payee");
        bytes32 hash = ClaimRow.digest(separator, from, to, cumulative, jobs, root);
        vm.assertEq(hash, _word(at, ".digest"), "digest");
        vm.assertEq(
            TypedData.voucher(from, to, cumulative, jobs, root), _word(at, ".structHash"), "struct"
        );
        vm.assertEq(ECDSA.recover(hash, r, vs), _address(at, ".signer"), "signer");
    }

    function test_Eip712_CloseAndServiceKeyAreTheSame() public {
        _json = vm.readFile("chain_tests/vectors/eip712.json");
        bytes32 separator = TypedData.domain(_address(".domain", ".verifyingContract"));
        vm.assertEq(separator, _word(".domain", ".separator"), "separator");

        string memory at = ".messages.Close.value";
        bytes32 close = TypedData.close(
            _address(at, ".payer"),
            _address(at, ".payee"),
            _address(at, ".signer"),
            uint96(_uint(at, ".claimed")),
            uint32(_uint(at, ".exitAt"))
        );
        vm.assertEq(close, _word(".messages.Close", ".structHash"), "Close");
        vm.assertEq(
            TypedData.digest(separator, close), _word(".messages.Close", ".digest"), "its digest"
        );

        at = ".messages.ServiceKey";
        bytes32 key = TypedData.serviceKey(_address(at, ".value.owner"), _address(at, ".value.key"));
        vm.assertEq(key, _word(at, ".structHash"), "ServiceKey");
        vm.assertEq(TypedData.digest(separator, key), _word(at, ".digest"), "its digest");
    }

    function test_Requests_DigestIsTheSame() public {
        _json = vm.readFile("chain_tests/vectors/requests.json");
        uint256 id = _uint("", ".id");
        bytes32 seed = keccak256(abi.encode(block.chainid, _address("", ".requests"), id));
        vm.assertEq(seed, _word("", ".seed"), "seed");
        IRequests.Params memory params = _params();
        bytes32 prompt =
            keccak256(abi.encodePacked(requests.PUBLIC_PROMPT_SALT(), _bytes("", ".promptIds")));
        vm.assertEq(params.prompt, prompt, "prompt");

        bytes32 structHash = TypedData.request(params, seed);
        vm.assertEq(structHash, _word("", ".structHash"), "struct");
        bytes32 separator = TypedData.domain(_address(".domain", ".verifyingContract"));
        vm.assertEq(TypedData.digest(separator, structHash), _word("", ".digest"), "digest");
        vm.assertEq(
            requests.digestOf(id, params),
            digest(TypedData.request(params, requests.seedOf(id))),
            "the contract's own"
        );
    }

    function test_Receipts_LeavesAndInclusionAreTheSame() public {
        _json = vm.readFile("chain_tests/vectors/receipts.json");
        uint256 leaves = _count(".leaves");
        bytes32[] memory hashes = new bytes32[](leaves);
        for (uint256 i = 0; i < leaves; ++i) {
            string memory at = _at(".leaves", i);
            hashes[i] = ReceiptsTree.leaf(
                uint8(_uint(at, ".kind")),
                _word(at, ".hash"),
                uint96(_uint(at, ".hopAmount")),
                uint32(_uint(at, ".windowsPaid"))
            );
            vm.assertEq(hashes[i], ReceiptsTree.leafHash(_bytes(at, ".data")), at);
        }
        bytes32[] memory roots = vm.parseJsonBytes32Array(_json, ".roots");
        uint256 proofs = _count(".inclusion");
        vm.assertTrue(proofs != 0, "cases");
        for (uint256 i = 0; i < proofs; ++i) {
            string memory at = _at(".inclusion", i);
            uint256 index = _uint(at, ".index");
            uint256 size = _uint(at, ".size");
            bytes32[] memory proof = vm.parseJsonBytes32Array(_json, string.concat(at, ".proof"));
            vm.assertTrue(this.contains(roots[size], size, index, hashes[index], proof), at);
            vm.assertFalse(this.contains(roots[size], size, index, keccak256("x"), proof), at);
            vm.assertFalse(this.contains(roots[size], size, size, hashes[index], proof), at);
            if (size > 1) {
                proof[0] ^= bytes32(uint256(1));
                vm.assertFalse(this.contains(roots[size], size, index, hashes[index], proof), at);
            }
        }
    }

    function contains(
        bytes32 root,
        uint256 size,
        uint256 index,
        bytes32 hash,
        bytes32[] calldata proof
    ) external pure returns (bool) {
        return ReceiptsTree.contains(root, size, index, hash, proof);
    }

    function _params() private view returns (IRequests.Params memory) {
        string memory at = ".value";
        return IRequests.Params({
            payer: _address(at, ".payer"),
            gateway: _address(at, ".gateway"),
            model: ModelId.wrap(_word(at, ".model")),
            profile: _word(at, ".profiles[0]"),
            prompt: _word(at, ".prompt"),
            sampling: IRequests.Sampling({
                temperature: uint32(_uint(at, ".sampling.temperature")),
                topP: uint32(_uint(at, ".sampling.topP")),
                topK: uint32(_uint(at, ".sampling.topK")),
                stop: _word(at, ".sampling.stop")
            }),
            inputTokens: uint32(_uint(at, ".inputTokens")),
            maxTokens: uint32(_uint(at, ".maxTokens")),
            fee: uint96(_uint(at, ".maxPrice")),
            deadline: uint64(_uint(at, ".deadline"))
        });
    }

    // ---- reading the file

    function _count(string memory list) private view returns (uint256 count) {
        while (vm.keyExistsJson(_json, _at(list, count))) ++count;
    }

    function _at(string memory list, uint256 index) private pure returns (string memory) {
        return string.concat(list, "[", vm.toString(index), "]");
    }

    function _uint(string memory at, string memory field) private view returns (uint256) {
        return vm.parseJsonUint(_json, string.concat(at, field));
    }

    function _address(string memory at, string memory field) private view returns (address) {
        return vm.parseJsonAddress(_json, string.concat(at, field));
    }

    function _word(string memory at, string memory field) private view returns (bytes32) {
        return vm.parseJsonBytes32(_json, string.concat(at, field));
    }

    function _bytes(string memory at, string memory field) private view returns (bytes memory) {
        return vm.parseJsonBytes(_json, string.concat(at, field));
    }
}
