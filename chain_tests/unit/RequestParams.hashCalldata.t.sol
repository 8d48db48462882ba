// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {Fixture} from "../Fixture.sol";
import {PureCaller} from "../mocks/Callers.sol";

contract RequestParamsHashCalldataTest is Fixture {
    PureCaller private caller = new PureCaller();

    function testFuzz_IsThatOfTheEncoding(IRequests.Params memory params) public view {
        vm.assertEq(caller.hashCalldata(params), keccak256(abi.encode(params)), "hash");
        vm.assertEq(caller.hashCalldata(params), caller.hash(params), "as in memory");
    }

    function testFuzz_TakesUnusedBitsAsTheyAre(
        IRequests.Params memory params,
        uint256 place,
        uint8 bit
    ) public view {
        bytes memory data = abi.encodeCall(PureCaller.hashCalldata, (params));
        data[4 + place % 448] ^= bytes1(uint8(1) << bit % 8);

        (bool success, bytes memory answer) = address(caller).staticcall(data);

        vm.assertTrue(success, "success");
        vm.assertTrue(
            abi.decode(answer, (bytes32)) != keccak256(abi.encode(params)), "another hash"
        );
    }
}
