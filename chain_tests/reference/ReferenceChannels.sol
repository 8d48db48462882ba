// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

/// @title ReferenceChannels
/// @notice A slow, plain re-statement of the payment maths: no packing, no tricks, one list of all
/// that ever came in. The contracts are fuzzed against it.
contract ReferenceChannels {
    struct Inflow {
        uint256 epoch;
        uint256 net;
    }

    mapping(bytes32 id => uint256) public deposit;
    mapping(bytes32 id => uint256) public claimed;

    Inflow[] private _inflows;
    uint256 public earned;
    uint256 public fee;
    uint256 public released;
    uint256 public forfeited;
    mapping(uint256 epoch => uint256) private _releasedIn;
    uint256 private immutable _FEE_BPS;

    constructor(uint256 feeBps) {
        _FEE_BPS = feeBps;
    }

    function put(bytes32 id, uint256 amount) external {
        deposit[id] += amount;
    }

    /// @notice Takes one row; returns by how much it grows what is claimed, zero for a bad one.
    function take(bytes32 id, uint256 cumulative) external returns (uint256 increase) {
        if (cumulative > deposit[id]) return 0;
        if (cumulative <= claimed[id]) return 0;
        increase = cumulative - claimed[id];
        claimed[id] = cumulative;
    }

    /// @notice Books the sum of one claim.
    function book(uint256 epoch, uint256 sum) external {
        if (sum == 0) return;
        uint256 part = sum * _FEE_BPS / 10_000;
        if (part * 10_000 < sum * _FEE_BPS) part += 1;
        earned += sum;
        fee += part;
        _inflows.push(Inflow({epoch: epoch, net: sum - part}));
    }

    function takeOut(bytes32 id) external returns (uint256 rest) {
        rest = deposit[id] - claimed[id];
        deposit[id] = claimed[id];
    }

    /// @notice Money of an epoch is mature once two more epochs have begun.
    function maturing(uint256 epoch) public view returns (uint256 sum) {
        for (uint256 i = 0; i < _inflows.length; ++i) {
            if (_inflows[i].epoch + 2 > epoch) sum += _inflows[i].net;
        }
    }

    function mature(uint256 epoch) public view returns (uint256) {
        return earned - fee - released - forfeited - maturing(epoch);
    }

    /// @notice Takes all that was not paid, mature or not.
    function forfeit() external returns (uint256 amount) {
        amount = earned - fee - released - forfeited;
        forfeited += amount;
        delete _inflows;
    }

    /// @notice Pays at most half of the stake per epoch.
    function pay(uint256 epoch, uint256 stake) external returns (uint256 amount) {
        uint256 used = _releasedIn[epoch];
        uint256 left = stake / 2 > used ? stake / 2 - used : 0;
        amount = mature(epoch);
        if (amount > left) amount = left;
        released += amount;
        _releasedIn[epoch] += amount;
    }
}
