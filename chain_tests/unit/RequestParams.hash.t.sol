// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {Fixture} from "../Fixture.sol";
import {PureCaller} from "../mocks/Callers.sol";

contract RequestParamsHashTest is Fixture {
    PureCaller private caller = new PureCaller();

    function testFuzz_IsThatOfTheEncoding(IRequests.Params memory params) public view {
        vm.assertEq(caller.hash(params), keccak256(abi.encode(params)), "hash");
    }
}
