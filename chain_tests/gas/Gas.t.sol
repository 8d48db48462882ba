// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {ReceiptsTree} from "../../contracts/libraries/ReceiptsTree.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {Fixture} from "../Fixture.sol";
import {Vm} from "../Vm.sol";

interface IAnswerKeeper {
    function askByCommitment(IRequests.Order calldata order, bytes32 prompt, uint32 inputTokens)
        external
        returns (uint256 id);
    function answers(uint256 id) external view returns (bytes32);
}

/// @notice Measures whole transactions and holds them to their targets; `bench/gas.py` makes the table.
/// @dev Steady state: slots have a history and the epoch has just turned. Every call is a transaction
/// of its own here, so that gas is what a sender pays, calldata and refunds included.
/// forge-config: default.isolate = true
contract GasTest is Fixture {
    uint256 private constant _PAYERS = 100;
    uint256 private constant _DEPTH = 17;
    uint256 private constant _POOR_KEY = 0x900D;
    bytes32 private constant _PROMPT = keccak256("prompt");

    bytes private rows;
    bytes private later;
    bytes private stale;
    bytes private answer;
    address private receiptCheck;
    IAnswerKeeper private keeper;

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
        for (uint256 i = 0; i < 64; ++i) {
            answer = bytes.concat(answer, abi.encodePacked(uint32(4_097 + 701 * i)));
        }
        receiptCheck = vm.deployCode("ReceiptCheck.sol:ReceiptCheck", "");
        keeper = IAnswerKeeper(vm.deployCode("AnswerKeeper.sol:AnswerKeeper", abi.encode(requests)));
        token.mint(address(keeper), RICH);
        // Another request waits, as one always does on a busy network.
        vm.prank(payer);
        requests.requestByCommitment(order(), _PROMPT, 32);
    }

    // ---- claims

    function test_Claim_HundredRows() public {
        bytes memory all = rows;
        channels.claim(payee, all);
        _hold("claim_row_at_100", _used() / _PAYERS, 15_500);
    }

    function test_Claim_OneRow() public {
        bytes memory one = _rows(rows, 0, 1);
        channels.claim(payee, one);
        _hold("claim_single", _used(), 51_000);
    }

    function test_Claim_BadRows() public {
        bytes memory forged = _rows(later, 99, 1);
        forged[131] ^= 0x01;
        uint256 snapshot = vm.snapshotState();
        uint256 clean = _claim(_rows(later, 0, 99));
        vm.revertToState(snapshot);
        uint256 withForged = _claim(bytes.concat(_rows(later, 0, 99), forged));
        vm.revertToState(snapshot);
        uint256 withStale = _claim(bytes.concat(_rows(later, 0, 99), stale));

        _hold("forged_row_cost", withForged - clean, 11_000);
        _hold("stale_row_cost", withStale - clean, 11_000);
    }

    function test_Release() public {
        channels.claim(payee, _rows(rows, 0, 1));
        nextEpoch();
        nextEpoch();
        channels.release(payee);
        channels.claim(payee, _rows(later, 0, 1));
        nextEpoch();
        nextEpoch();
        channels.release(payee);
        _tell("release", _used());
    }

    /// @dev What was claimed two epochs ago leaves in the transaction that claims anew.
    function test_ClaimAndRelease() public {
        channels.claim(payee, _rows(rows, 0, 1));
        nextEpoch();
        nextEpoch();
        channels.release(payee);
        channels.claim(payee, _rows(rows, 1, 1));
        nextEpoch();
        nextEpoch();
        channels.collect(payee, _rows(later, 0, 1));
        _tell("collect", _used());
    }

    // ---- channels

    function test_Open() public {
        fund(stranger);
        vm.prank(stranger);
        channels.open(payee, signer, 5e6);
        _hold("open", _used(), 72_000);
    }

    function test_OpenWithPermit() public {
        address poor = vm.addr(_POOR_KEY);
        token.mint(poor, RICH);
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 5e6);
        vm.prank(poor);
        channels.openWithPermit(payee, signer, 5e6, permit);
        _hold("open_permit", _used(), 110_000);
    }

    function test_OpenWithAuthorization() public {
        address poor = vm.addr(_POOR_KEY);
        token.mint(poor, RICH);
        IChannels.Authorization memory authorization =
            authorizationFor(_POOR_KEY, idOf(poor, signer), 5e6, "");
        vm.prank(stranger);
        channels.openWithAuthorization(poor, payee, signer, 5e6, authorization);
        _hold("open_3009", _used(), 110_000);
    }

    function test_TopUp() public {
        vm.prank(payer);
        channels.open(payee, signer, 5e6);
        vm.prank(payer);
        channels.topUp(payee, signer, 5e6);
        _tell("top_up", _used());
    }

    function test_ExitAndWithdraw() public {
        vm.prank(payer);
        channels.open(payee, signer, 5e6);
        vm.prank(payer);
        channels.exit(payee, signer);
        _tell("exit", _used());
        vm.warp(block.timestamp + EXIT_DELAY);
        vm.prank(payer);
        channels.withdraw(payee, signer);
        _tell("withdraw", _used());
    }

    // ---- disputes

    function test_InclusionCheck() public {
        bytes32[] memory proof = new bytes32[](_DEPTH);
        uint32 size = uint32(1 << _DEPTH);
        uint32 index = 0x1_5555;
        bytes32 leaf = ReceiptsTree.leaf(0, keccak256("receipt"), 1e6, 3);
        bytes32 root = leaf;
        for (uint256 i = 0; i < _DEPTH; ++i) {
            proof[i] = keccak256(abi.encode(i));
            bytes memory pair = index >> i & 1 == 1
                ? abi.encodePacked(bytes1(0x01), proof[i], root)
                : abi.encodePacked(bytes1(0x01), root, proof[i]);
            root = keccak256(pair);
        }
        bytes memory all = abi.encodePacked(root, leaf, size, index, proof);
        (bool included,) = receiptCheck.call(all);
        vm.assertTrue(included, "the proof holds");
        _hold("inclusion_check", _used(), 46_000);
    }

    // ---- requests

    function test_RequestAndFulfil() public {
        vm.recordLogs();
        IRequests.Order memory what = order();
        vm.prank(payer);
        uint256 id = requests.requestByCommitment(what, _PROMPT, 32);
        uint256 asked = _used();
        uint256 answered = _fulfil(id);
        _tell("request", asked);
        _tell("fulfil", answered);
        _hold("request_plus_fulfil", asked + answered, 150_000);
    }

    function test_RequestAndFulfil_PublicPrompt() public {
        bytes memory ids = _cut(answer, 32 * 4);
        vm.recordLogs();
        IRequests.Order memory what = order();
        vm.prank(payer);
        uint256 id = requests.request(what, ids);
        uint256 asked = _used();
        _tell("request_plus_fulfil_public_32", asked + _fulfil(id));
    }

    function test_RequestAndFulfil_Callback() public {
        vm.recordLogs();
        IRequests.Order memory what = order();
        what.callbackGas = 60_000;
        uint256 id = keeper.askByCommitment(what, _PROMPT, 32);
        uint256 asked = _used();
        uint256 answered = _fulfil(id);
        vm.assertEq(keeper.answers(id), keccak256(answer), "the callback stored a word");
        _hold("request_plus_fulfil_callback", asked + answered, 185_000);
    }

    function test_CancelAndRefund() public {
        IRequests.Order memory what = order();
        IRequests.Params memory params = paramsOf(payer, what, _PROMPT, 32);
        vm.prank(payer);
        uint256 first = requests.requestByCommitment(what, _PROMPT, 32);
        vm.prank(payer);
        uint256 second = requests.requestByCommitment(what, _PROMPT, 32);
        vm.warp(what.exclusiveUntil + 1);
        vm.prank(payer);
        requests.cancel(first, params);
        _tell("cancel", _used());
        vm.warp(what.deadline + 1);
        requests.refund(second, params);
        _tell("refund", _used());
    }

    // ---- nodes

    function test_NodeLife() public {
        address owner = stranger;
        fund(owner);
        vm.prank(owner);
        nodes.register(7, "https://node.example:8443 dht://node.example:6881", bytes32(uint256(1)));
        _tell("node_register", _used());
        addKey(owner, OTHER_NODE_KEY);
        _tell("node_add_key", _used());
        vm.prank(owner);
        nodes.stake(MIN_STAKE);
        _tell("node_stake", _used());
    }

    function _claim(bytes memory some) private returns (uint256) {
        channels.claim(payee, some);
        return _used();
    }

    function _fulfil(uint256 id) private returns (uint256) {
        IRequests.Params memory params = loggedParams();
        bytes memory output = answer;
        vm.prank(nodeKey);
        requests.fulfil(id, params, keccak256("receipt"), output);
        return _used();
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

    function _cut(bytes memory all, uint256 length) private pure returns (bytes memory some) {
        some = new bytes(length);
        for (uint256 i = 0; i < length; ++i) {
            some[i] = all[i];
        }
    }

    function _used() private view returns (uint256) {
        Vm.Gas memory last = vm.lastCallGas();
        // Refunds are never negative at the end of a transaction.
        return last.gasTotalUsed - uint64(last.gasRefunded);
    }

    function _tell(string memory what, uint256 used) private {
        vm.snapshotValue("gas", what, used);
    }

    function _hold(string memory what, uint256 used, uint256 target) private {
        _tell(what, used);
        vm.assertLe(used, target, what);
    }
}
