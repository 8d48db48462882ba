// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IRequests} from "../contracts/interfaces/IRequests.sol";
import {Fixture} from "./Fixture.sol";

/// @notice A deployment in which `payee` serves, and what a test of requests does again and again.
abstract contract RequestsFixture is Fixture {
    uint64 internal constant EXCLUSIVE_UNTIL = uint64(START + 300);
    uint64 internal constant DEADLINE = uint64(START + 600);
    bytes32 internal constant RECEIPT = keccak256("receipt");
    /// @dev Three token ids.
    bytes internal constant IDS = hex"000000010000000200000003";
    /// @dev Two token ids.
    bytes internal constant OUTPUT = hex"0000000700000008";

    function setUp() public virtual override {
        super.setUp();
        join(payee, NODE_KEY, MIN_STAKE);
    }

    function ask() internal returns (uint256 id, IRequests.Params memory params) {
        return ask(payer, order());
    }

    function ask(address from, IRequests.Order memory what)
        internal
        returns (uint256 id, IRequests.Params memory params)
    {
        params = askedBy(from, what);
        vm.prank(from);
        id = requests.request(what, IDS);
    }

    function askedBy(address from, IRequests.Order memory what)
        internal
        view
        returns (IRequests.Params memory)
    {
        bytes32 prompt = keccak256(abi.encodePacked(requests.PUBLIC_PROMPT_SALT(), IDS));
        return paramsOf(from, what, prompt, 3);
    }

    function fulfil(address key, uint256 id, IRequests.Params memory params) internal {
        vm.prank(key);
        requests.fulfil(id, params, RECEIPT, OUTPUT);
    }

    function cancel(address from, uint256 id, IRequests.Params memory params) internal {
        vm.prank(from);
        requests.cancel(id, params);
    }

    function notOpen(uint256 id) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IRequests.Requests_NotOpen.selector, id);
    }
}
