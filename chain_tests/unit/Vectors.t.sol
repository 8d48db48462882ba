// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {ClaimRow} from "../../contracts/libraries/ClaimRow.sol";
import {ReceiptsTree} from "../../contracts/libraries/ReceiptsTree.sol";
import {RequestParams} from "../../contracts/libraries/RequestParams.sol";
import {TypedData} from "../../contracts/libraries/TypedData.sol";
import {ChannelId, ModelId} from "../../contracts/types/Ids.sol";
import {Fixture} from "../Fixture.sol";

/// @notice Holds Solidity to the vectors that Python is held to.
contract VectorsTest is Fixture {
    string private _json;

    function test_Ids_ChannelsAreTheSame() public {
        _json = vm.readFile("chain_tests/vectors/ids.json");
        uint256 count = _count(".channels");
        vm.assertTrue(count != 0, "cases");
        for (uint256 i = 0; i < count; ++i) {
            string memory place = _at(".channels", i);
            vm.assertEq(
                ClaimRow.channel(
                    _address(place, ".payer"), _address(place, ".payee"), _address(place, ".signer")
                ),
                _word(place, ".id"),
                place
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
        string memory place = _at(".rows", index);
        (address from, uint96 cumulative, uint32 jobs, bytes32 root, bytes32 r, bytes32 vs) =
            ClaimRow.read(rows, index);
        vm.assertEq(from, _address(place, ".payer"), "payer");
        vm.assertEq(cumulative, _uint(place, ".cumulative"), "cumulative");
        vm.assertEq(jobs, _uint(place, ".jobs"), "jobs");
        vm.assertEq(root, _word(place, ".receiptsRoot"), "root");

        address to = _address(place, ".payee");
        bytes32 hash = ClaimRow.digest(separator, from, to, cumulative, jobs, root);
        vm.assertEq(hash, _word(place, ".digest"), "digest");
        vm.assertEq(
            TypedData.voucher(from, to, cumulative, jobs, root),
            _word(place, ".structHash"),
            "struct"
        );
        vm.assertEq(ECDSA.recover(hash, r, vs), _address(place, ".signer"), "signer");
    }

    function test_Eip712_CloseAndServiceKeyAreTheSame() public {
        _json = vm.readFile("chain_tests/vectors/eip712.json");
        bytes32 separator = TypedData.domain(_address(".domain", ".verifyingContract"));
        vm.assertEq(separator, _word(".domain", ".separator"), "separator");

        string memory place = ".messages.Close.value";
        bytes32 close = TypedData.close(
            _address(place, ".payer"),
            _address(place, ".payee"),
            _address(place, ".signer"),
            uint96(_uint(place, ".claimed")),
            uint32(_uint(place, ".exitAt"))
        );
        vm.assertEq(close, _word(".messages.Close", ".structHash"), "Close");
        vm.assertEq(
            TypedData.digest(separator, close), _word(".messages.Close", ".digest"), "its digest"
        );

        place = ".messages.ServiceKey";
        bytes32 key =
            TypedData.serviceKey(_address(place, ".value.owner"), _address(place, ".value.key"));
        vm.assertEq(key, _word(place, ".structHash"), "ServiceKey");
        vm.assertEq(TypedData.digest(separator, key), _word(place, ".digest"), "its digest");
    }

    function test_Requests_DigestIsTheSame() public {
        _json = vm.readFile("chain_tests/vectors/requests.json");
        _checkRequest("");
        _checkRequest(".commitment");
    }

    function _checkRequest(string memory place) private view {
        uint256 id = _uint(place, ".id");
        bytes32 seed = keccak256(abi.encode(block.chainid, _address("", ".requests"), id));
        vm.assertEq(seed, _word(place, ".seed"), "seed");
        IRequests.Params memory params = _params(string.concat(place, ".params"));
        bytes memory prompt =
            abi.encodePacked(_word(place, ".promptSalt"), _bytes(place, ".promptIds"));
        vm.assertEq(params.prompt, keccak256(prompt), "prompt");
        vm.assertEq(RequestParams.hash(params), _word(place, ".paramsHash"), "what storage keeps");

        bytes32 structHash = TypedData.request(params, seed);
        vm.assertEq(structHash, _word(place, ".structHash"), "struct");
        bytes32 separator = TypedData.domain(_address(".domain", ".verifyingContract"));
        vm.assertEq(TypedData.digest(separator, structHash), _word(place, ".digest"), "digest");
        vm.assertEq(
            requests.digestOf(id, params),
            digest(TypedData.request(params, requests.seedOf(id))),
            "the contract's own"
        );
    }

    function test_PublicPromptSaltIsTheSame() public {
        _json = vm.readFile("chain_tests/vectors/requests.json");
        vm.assertEq(requests.PUBLIC_PROMPT_SALT(), _word("", ".promptSalt"), "salt");
    }

    function test_Ids_AuthorizationNoncesAreTheSame() public {
        _json = vm.readFile("chain_tests/vectors/ids.json");
        uint256 count = _count(".authorizations");
        vm.assertTrue(count != 0, "cases");
        for (uint256 i = 0; i < count; ++i) {
            string memory place = _at(".authorizations", i);
            ChannelId id = ChannelId.wrap(_word(place, ".channel"));
            vm.assertEq(
                channels.authorizationNonce(id, _word(place, ".salt")),
                _word(place, ".nonce"),
                place
            );
        }
    }

    function test_Receipts_LeavesAndInclusionAreTheSame() public {
        _json = vm.readFile("chain_tests/vectors/receipts.json");
        uint256 leaves = _count(".leaves");
        bytes32[] memory hashes = new bytes32[](leaves);
        for (uint256 i = 0; i < leaves; ++i) {
            string memory place = _at(".leaves", i);
            hashes[i] = ReceiptsTree.leaf(
                uint8(_uint(place, ".kind")),
                _word(place, ".hash"),
                uint96(_uint(place, ".hopAmount")),
                uint32(_uint(place, ".windowsPaid"))
            );
            vm.assertEq(hashes[i], ReceiptsTree.leafHash(_bytes(place, ".data")), place);
        }
        bytes32[] memory roots = vm.parseJsonBytes32Array(_json, ".roots");
        uint256 proofs = _count(".inclusion");
        vm.assertTrue(proofs != 0, "cases");
        for (uint256 i = 0; i < proofs; ++i) {
            string memory place = _at(".inclusion", i);
            uint256 index = _uint(place, ".index");
            uint256 size = _uint(place, ".size");
            bytes32[] memory proof = vm.parseJsonBytes32Array(_json, string.concat(place, ".proof"));
            vm.assertTrue(this.contains(roots[size], size, index, hashes[index], proof), place);
            vm.assertFalse(this.contains(roots[size], size, index, keccak256("x"), proof), place);
            vm.assertFalse(this.contains(roots[size], size, size, hashes[index], proof), place);
            if (size > 1) {
                proof[0] ^= bytes32(uint256(1));
                vm.assertFalse(this.contains(roots[size], size, index, hashes[index], proof), place);
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

    function _params(string memory place) private view returns (IRequests.Params memory) {
        return IRequests.Params({
            payer: _address(place, ".payer"),
            gateway: _address(place, ".gateway"),
            model: ModelId.wrap(_word(place, ".model")),
            profile: _word(place, ".profile"),
            prompt: _word(place, ".prompt"),
            temperature: uint32(_uint(place, ".temperature")),
            topP: uint32(_uint(place, ".topP")),
            topK: uint32(_uint(place, ".topK")),
            inputTokens: uint32(_uint(place, ".inputTokens")),
            maxTokens: uint32(_uint(place, ".maxTokens")),
            fee: uint96(_uint(place, ".fee")),
            exclusiveUntil: uint64(_uint(place, ".exclusiveUntil")),
            deadline: uint64(_uint(place, ".deadline")),
            callbackGas: uint32(_uint(place, ".callbackGas"))
        });
    }

    function _count(string memory list) private view returns (uint256 count) {
        while (vm.keyExistsJson(_json, _at(list, count))) ++count;
    }

    function _at(string memory list, uint256 index) private pure returns (string memory) {
        return string.concat(list, "[", vm.toString(index), "]");
    }

    function _uint(string memory place, string memory field) private view returns (uint256) {
        return vm.parseJsonUint(_json, string.concat(place, field));
    }

    function _address(string memory place, string memory field) private view returns (address) {
        return vm.parseJsonAddress(_json, string.concat(place, field));
    }

    function _word(string memory place, string memory field) private view returns (bytes32) {
        return vm.parseJsonBytes32(_json, string.concat(place, field));
    }

    function _bytes(string memory place, string memory field) private view returns (bytes memory) {
        return vm.parseJsonBytes(_json, string.concat(place, field));
    }
}
