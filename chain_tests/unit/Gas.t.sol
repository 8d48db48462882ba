// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {Fixture} from "../Fixture.sol";
import {Vm} from "../Vm.sol";
import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {ModelId} from "../../contracts/types/Ids.sol";

/// @notice Holds the gas targets of whole transactions; steady state: slots have a history, the
/// epoch has just turned.
/// @dev Every call is a transaction of its own here, so that gas is what a sender pays.
/// forge-config: default.isolate = true
contract GasTest is Fixture {
    uint256 private constant _PAYERS = 100;
    bytes private rows;
    bytes private later;
    bytes private stale;
    IRequests.Order private order;

    event Gas(string what, uint256 gas);

    function setUp() public override {
        super.setUp();
        join(payee, NODE_KEY, MIN_STAKE);
        bytes memory first = "";
        for (uint256 i = 0; i < _PAYERS; ++i) {
            address from = address(uint160(0x10_0000 + i));
            fund(from);
            vm.prank(from);
            channels.open(payee, vm.addr(i + 1), 10e6);
            first = bytes.concat(first, row(from, i + 1, 1e6, 1, keccak256("root")));
            rows = bytes.concat(rows, row(from, i + 1, 2e6, 5, keccak256("root")));
            later = bytes.concat(later, row(from, i + 1, 3e6, 5, keccak256("root")));
        }
        channels.claim(payee, first);
        stale = _rows(first, 99, 1);
        nextEpoch();
        order = IRequests.Order({
            gateway: payee,
            model: ModelId.wrap(keccak256("model")),
            profile: keccak256("profile"),
            sampling: IRequests.Sampling(0, 1_000_000, 0, 0),
            maxTokens: 64,
            fee: 1e6,
            deadline: uint64(block.timestamp + 600)
        });
        vm.prank(payer);
        requests.request(order, hex"00000001");
    }

    function test_Claim_HundredRows() public {
        bytes memory all = rows;
        channels.claim(payee, all);
        uint256 used = _used("claim, a row of 100");
        vm.assertLe(used / _PAYERS, 15_500, "a row at 100 rows");
    }

    function test_Claim_OneRow() public {
        bytes memory one = _rows(rows, 0, 1);
        channels.claim(payee, one);
        vm.assertLe(_used("claim, one row"), 51_000, "one row");
    }

    function test_Claim_BadRows() public {
        bytes memory forged = _rows(later, 99, 1);
        forged[131] ^= 0x01;
        uint256 snapshot = vm.snapshotState();
        uint256 clean = _claim(_rows(later, 0, 99), "claim, 99 rows");
        vm.revertToState(snapshot);
        uint256 withForged = _claim(bytes.concat(_rows(later, 0, 99), forged), "and a forged row");
        vm.revertToState(snapshot);
        uint256 withStale = _claim(bytes.concat(_rows(later, 0, 99), stale), "and a stale row");

        vm.assertLe(withForged - clean, 11_000, "a forged row");
        vm.assertLe(withStale - clean, 11_000, "a stale row");
    }

    function test_Open() public {
        fund(stranger);
        vm.prank(stranger);
        channels.open(payee, signer, 5e6);
        vm.assertLe(_used("open, by approve"), 72_000, "open");
    }

    function test_RequestAndFulfil() public {
        bytes memory ids = new bytes(8 * 4);
        for (uint256 i = 0; i < ids.length; ++i) {
            if (i % 4 > 1) ids[i] = 0x11;
        }
        IRequests.Order memory what = order;
        vm.recordLogs();
        vm.prank(payer);
        uint256 id = requests.request(what, ids);
        uint256 asked = _used("request, prompt of 8 tokens");
        (IRequests.Params memory params,) =
            abi.decode(vm.getRecordedLogs()[0].data, (IRequests.Params, bytes));
        vm.prank(nodeKey);
        requests.fulfil(id, params, keccak256("receipt"), ids);
        uint256 answered = _used("fulfil, answer of 8 tokens");
        vm.assertLe(asked + answered, 150_000, "request and fulfil");
    }

    function _claim(bytes memory some, string memory what) private returns (uint256) {
        channels.claim(payee, some);
        return _used(what);
    }

    function _rows(bytes memory all, uint256 from, uint256 count)
        private
        pure
        returns (bytes memory some)
    {
        some = new bytes(count * 132);
        for (uint256 i = 0; i < some.length; ++i) {
            some[i] = all[from * 132 + i];
        }
    }

    function _used(string memory what) private returns (uint256 gas) {
        Vm.Gas memory last = vm.lastCallGas();
        // Refunds are never negative at the end of a transaction.
        gas = last.gasTotalUsed - uint64(last.gasRefunded);
        emit Gas(what, gas);
    }
}
