// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {INodeRegistry} from "../../contracts/interfaces/INodeRegistry.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {ITestToken} from "../Fixture.sol";

/// @notice The cheat codes of forge that halmos knows and these checks use.
interface HalmosVm {
    function getCode(string calldata path) external view returns (bytes memory);
    function assume(bool condition) external pure;
    function warp(uint256 timestamp) external;
    function prank(address sender) external;
    function assertTrue(bool condition, string calldata message) external pure;
    function assertEq(uint256 left, uint256 right, string calldata message) external pure;
    function assertLe(uint256 left, uint256 right, string calldata message) external pure;
}

/// @notice The cheat codes of halmos itself.
interface Svm {
    function enableSymbolicStorage(address account) external;
    function createUint(uint256 bits, string calldata name) external returns (uint256);
    function createCalldata(string calldata artifact) external returns (bytes memory);
}

/// @notice The deployed code of all that money flows through, in any state: every storage slot, the
/// fee, the epoch's length and the time are the solver's to choose.
/// @dev What a check assumes of that state it states by `vm.assume`; README.md lists it.
abstract contract Symbolic {
    struct Row {
        address payer;
        uint96 cumulative;
        uint32 jobs;
        bytes32 root;
        bytes32 r;
        bytes32 vs;
    }

    HalmosVm internal constant vm =
        HalmosVm(address(uint160(uint256(keccak256("hevm cheat code")))));
    Svm internal constant svm = Svm(address(uint160(uint256(keccak256("svm cheat code")))));

    uint32 internal constant EXIT_DELAY = 700;
    address internal constant REQUESTS = address(0x7e9);
    address internal constant ARBITER = address(0xa7b);
    address internal constant BURN = 0x000000000000000000000000000000000000dEaD;
    uint256 internal constant BPS = 10_000;

    string private constant _OUT = "build/halmos/contracts/";
    /// @dev Halmos numbers what is created; the constructor of `Channels` refuses a wrong guess.
    address private constant _CHANNELS_AT = address(0xaaaa0004);
    uint256 private constant _HALF_ORDER =
        0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    ITestToken internal token;
    INodeRegistry internal nodes;
    IChannels internal channels;
    uint256 internal feeBps;

    uint256 private _time;
    uint256 private _epoch;

    function setUp() public virtual {
        uint32 epochLength;
        (epochLength, feeBps) = terms();
        token = ITestToken(_make("TestToken.sol/TestToken.json", ""));
        uint64 unbonding = 2 * uint64(epochLength);
        nodes = INodeRegistry(
            _make(
                "NodeRegistry.sol/NodeRegistry.json",
                abi.encode(token, _CHANNELS_AT, ARBITER, uint96(1), unbonding)
            )
        );
        channels = IChannels(
            _make(
                "Channels.sol/Channels.json",
                abi.encode(token, nodes, REQUESTS, ARBITER, epochLength, EXIT_DELAY, feeBps)
            )
        );
        svm.enableSymbolicStorage(address(channels));
        svm.enableSymbolicStorage(address(nodes));
        svm.enableSymbolicStorage(address(token));
    }

    /// @dev The terms of this deployment: a power of two and no fee spare the solver divisions.
    function terms() internal virtual returns (uint32 epochLength, uint256 feeBps_) {
        return (512, 0);
    }

    // ---- time and arithmetic the solver is told instead of finding it out

    /// @dev Time never runs backwards, and `t / n` neither falls with `t` nor exceeds it.
    function moveTo(uint32 time) internal {
        vm.warp(time);
        uint256 epoch = time / channels.epochLength();
        vm.assume(time >= _time && epoch >= _epoch && epoch <= time);
        (_time, _epoch) = (time, epoch);
    }

    function epochNow() internal view returns (uint256) {
        return _epoch;
    }

    /// @dev `fee`, what `Math.ceilDiv` makes of `sum * feeBps`, is the least number of base units
    /// that is not below the rate; a rate of at most a tenth never asks for more than the sum.
    function knowTheFee(uint256 sum) internal view {
        unchecked {
            uint256 fee = Math.ceilDiv(sum * feeBps, BPS);
            vm.assume(isFee(fee, sum));
            vm.assume(fee <= sum);
        }
    }

    function isFee(uint256 fee, uint256 sum) internal view returns (bool) {
        unchecked {
            return both(fee * BPS >= sum * feeBps, fee * BPS < sum * feeBps + BPS);
        }
    }

    // ---- rows

    function pack(Row memory row) internal pure returns (bytes memory) {
        return abi.encodePacked(row.payer, row.cumulative, row.jobs, row.root, row.r, row.vs);
    }

    function signerOf(address payee, Row memory row) internal view returns (address) {
        bytes32 digest =
            channels.voucherDigest(row.payer, payee, row.cumulative, row.jobs, row.root);
        return recover(digest, row.r, row.vs);
    }

    /// @dev Halmos takes ecrecover for any function of its arguments, the real one among them; what
    /// OpenZeppelin's library refuses recovers to nobody.
    function recover(bytes32 digest, bytes32 r, bytes32 vs) internal pure returns (address) {
        uint256 s = uint256(vs) & (type(uint256).max >> 1);
        if (s > _HALF_ORDER) return address(0);
        return ecrecover(digest, uint8((uint256(vs) >> 255) + 27), r, bytes32(s));
    }

    function assumeLow(Row memory row) internal pure {
        vm.assume(_s(row) <= _HALF_ORDER);
    }

    function idOf(address payee, Row memory row) internal view returns (ChannelId) {
        return channels.channelId(row.payer, payee, signerOf(payee, row));
    }

    // ---- what holds of every state that can be reached; AnyCall shows that each call keeps it

    function isSound(IChannels.Channel memory slot) internal pure returns (bool) {
        return slot.claimed <= slot.deposit;
    }

    /// @dev Nothing left that did not come in, and nothing happened later than now. The buckets as
    /// stored may exceed what is left: a release lets them be once their money is mature.
    function isSound(IChannels.Account memory account) internal view returns (bool sound) {
        unchecked {
            uint256 net = account.earned - account.fee;
            sound = both(account.fee <= account.earned, account.released <= net);
            sound = both(sound, account.forfeited <= net - account.released);
            sound = both(sound, maturing(account) <= unreleased(account));
        }
        sound = both(sound, account.burned <= account.fee);
        sound = both(sound, account.releasedNow <= account.released);
        sound = both(sound, both(account.epoch <= _epoch, account.releaseEpoch <= _epoch));
    }

    /// @dev In the order of the contract: a solver does not know that the order of a sum is free.
    function unreleased(IChannels.Account memory account) internal pure returns (uint256) {
        unchecked {
            return account.earned - account.fee - account.released - account.forfeited;
        }
    }

    /// @dev Of that, what came in during the running epoch or the one before.
    function maturing(IChannels.Account memory account) internal view returns (uint256) {
        unchecked {
            uint256 late = pick(uint256(account.epoch) + 1 == _epoch, account.current, 0);
            uint256 all = uint256(account.previous) + account.current;
            return pick(account.epoch == _epoch, all, late);
        }
    }

    /// @dev The assumption of the interface: all amounts that ever flow to one payee fit 96 bits.
    function assumeRoom(IChannels.Account memory account, uint256 sum) internal pure {
        unchecked {
            vm.assume(account.earned + sum <= type(uint96).max);
        }
        vm.assume(account.rows < type(uint64).max - 256);
    }

    /// @dev Branches first: halmos prints a condition that it is handed, in minutes if it is large.
    function hold(bool condition, string memory what) internal pure {
        if (!condition) vm.assertTrue(false, what);
    }

    // ---- no branches, so that the solver meets only those of the contract

    function both(bool a, bool b) internal pure returns (bool c) {
        assembly ("memory-safe") {
            c := and(a, b)
        }
    }

    function either(bool a, bool b) internal pure returns (bool c) {
        assembly ("memory-safe") {
            c := or(a, b)
        }
    }

    function pick(bool condition, uint256 yes, uint256 no) internal pure returns (uint256 picked) {
        assembly ("memory-safe") {
            picked := xor(no, and(sub(0, condition), xor(yes, no)))
        }
    }

    function _s(Row memory row) private pure returns (uint256) {
        return uint256(row.vs) & (type(uint256).max >> 1);
    }

    function _make(string memory artifact, bytes memory arguments) private returns (address made) {
        bytes memory code = bytes.concat(vm.getCode(string.concat(_OUT, artifact)), arguments);
        assembly ("memory-safe") {
            made := create(0, add(code, 32), mload(code))
        }
        require(made != address(0), "not deployed");
    }
}
