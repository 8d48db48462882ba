// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {Fixture} from "../Fixture.sol";
import {Vm} from "../Vm.sol";

/// @notice What a job costs over all hops of a three-stage route, when payers and jobs are many.
/// @dev Hops: payer -> gateway -> worker -> each of three stages, every one another operator's; each
/// payee claims once and takes its money out once. Deposits are not counted. Steady state, every call
/// a transaction of its own.
/// forge-config: default.isolate = true
contract RouteGasTest is Fixture {
    uint96 private constant _BEFORE = 1e6;

    address[5] private _hops =
        [address(0xA1), address(0xA2), address(0xA3), address(0xA4), address(0xA5)];
    /// @dev The session key of hop i's channels; payer j has key 1000 + j.
    uint256[5] private _keys = [uint256(0), 0xB1, 0xB1, 0xB1, 0xB1];

    function test_OnePayer_OneJob() public {
        _measure("route_1x1", 1, 1);
    }

    function test_OnePayer_HundredJobs() public {
        _measure("route_1x100", 1, 100);
    }

    function test_OnePayer_TenThousandJobs() public {
        _measure("route_1x10000", 1, 10_000);
    }

    function test_HundredPayers_HundredJobs() public {
        _measure("route_100x100", 100, 100);
    }

    function _measure(string memory name, uint256 payers, uint32 jobs) private {
        for (uint256 i = 0; i < 5; ++i) {
            fund(_hops[i]);
            join(_hops[i], 0xC0 + i, 1_000e6);
            _claim(i, i == 0 ? payers : 1, _BEFORE, 1, true);
        }
        _ripen();
        for (uint256 i = 0; i < 5; ++i) {
            channels.release(_hops[i]);
        }
        uint256 claims = 0;
        for (uint256 i = 0; i < 5; ++i) {
            uint32 rowJobs = i == 0 ? jobs : jobs * uint32(payers);
            claims += _claim(i, i == 0 ? payers : 1, 2 * _BEFORE, 1 + rowJobs, false);
        }
        _ripen();
        uint256 releases = 0;
        for (uint256 i = 0; i < 5; ++i) {
            channels.release(_hops[i]);
            releases += _used();
        }
        vm.snapshotValue("route", string.concat(name, "_claims"), claims);
        vm.snapshotValue("route", string.concat(name, "_releases"), releases);
    }

    function _claim(uint256 hop, uint256 rows, uint96 cumulative, uint32 jobs, bool fresh)
        private
        returns (uint256)
    {
        payee = _hops[hop];
        bytes memory all = "";
        for (uint256 i = 0; i < rows; ++i) {
            (address from, uint256 key) = _payerOf(hop, i);
            if (fresh) {
                if (hop == 0) fund(from);
                vm.prank(from);
                channels.open(payee, vm.addr(key), 10 * _BEFORE);
            }
            all = bytes.concat(all, row(from, key, cumulative, jobs, keccak256(abi.encode(jobs))));
        }
        channels.claim(payee, all);
        return _used();
    }

    /// @dev The gateway pays the worker, the worker its stages.
    function _payerOf(uint256 hop, uint256 i) private view returns (address from, uint256 key) {
        if (hop == 0) return (address(uint160(0x10_0000 + i)), 1000 + i);
        return (_hops[hop == 1 ? 0 : 1], _keys[hop]);
    }

    function _ripen() private {
        nextEpoch();
        nextEpoch();
    }

    function _used() private view returns (uint256) {
        Vm.Gas memory last = vm.lastCallGas();
        return last.gasTotalUsed - uint64(last.gasRefunded);
    }
}
