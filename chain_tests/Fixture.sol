// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {IChannels} from "../contracts/interfaces/IChannels.sol";
import {IModelRegistry} from "../contracts/interfaces/IModelRegistry.sol";
import {INodeRegistry} from "../contracts/interfaces/INodeRegistry.sol";
import {IReputation} from "../contracts/interfaces/IReputation.sol";
import {IRequests} from "../contracts/interfaces/IRequests.sol";
import {ChannelId, ModelId} from "../contracts/types/Ids.sol";
import {Vm} from "./Vm.sol";

interface ITestToken is IERC20 {
    function mint(address to, uint256 amount) external;
    function nonces(address owner) external view returns (uint256);
    function DOMAIN_SEPARATOR() external view returns (bytes32);
    function decimals() external view returns (uint8);
}

/// @notice One deployment as contracts/README.md has it, and the people of these tests.
abstract contract Fixture {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint96 internal constant MIN_STAKE = 100e6;
    uint64 internal constant UNBONDING = 1200;
    uint32 internal constant EPOCH = 600;
    uint32 internal constant EXIT_DELAY = 700;
    uint16 internal constant FEE_BPS = 100;
    uint96 internal constant TIER_UNIT = 1000;
    uint256 internal constant START = 1_800_000_000;
    address internal constant BURN = 0x000000000000000000000000000000000000dEaD;
    /// @dev Far above any amount used, far below 2^96.
    uint96 internal constant RICH = 1e18;

    uint256 internal constant SIGNER_KEY = 0xA11CE;
    uint256 internal constant NODE_KEY = 0xB0B;
    uint256 internal constant OTHER_NODE_KEY = 0xB0C;

    ITestToken internal token;
    IModelRegistry internal models;
    INodeRegistry internal nodes;
    IChannels internal channels;
    IRequests internal requests;
    IReputation internal reputation;

    address internal payer = address(uint160(uint256(keccak256("payer"))));
    address internal payee = address(uint160(uint256(keccak256("payee"))));
    address internal stranger = address(uint160(uint256(keccak256("stranger"))));
    address internal arbiter = address(uint160(uint256(keccak256("arbiter"))));
    address internal signer;
    address internal nodeKey;
    /// @dev Kept, so that making a signature is no call between `prank` and its target.
    bytes32 internal domain;

    function setUp() public virtual {
        vm.warp(START);
        signer = vm.addr(SIGNER_KEY);
        nodeKey = vm.addr(NODE_KEY);
        deploy();
        fund(payer);
        fund(payee);
    }

    function deploy() internal {
        deployOver(ITestToken(vm.deployCode("TestToken.sol:TestToken", "")));
    }

    /// @dev From here on the fixture's functions mean this deployment.
    function deployOver(ITestToken token_) internal {
        uint256 nonce = vm.getNonce(address(this));
        address channelsAt = vm.computeCreateAddress(address(this), nonce + 2);
        address requestsAt = vm.computeCreateAddress(address(this), nonce + 3);
        token = token_;
        models = IModelRegistry(vm.deployCode("ModelRegistry.sol:ModelRegistry", ""));
        nodes = INodeRegistry(
            vm.deployCode(
                "NodeRegistry.sol:NodeRegistry",
                abi.encode(token, channelsAt, arbiter, MIN_STAKE, UNBONDING)
            )
        );
        channels = IChannels(
            vm.deployCode(
                "Channels.sol:Channels",
                abi.encode(token, nodes, requestsAt, arbiter, EPOCH, EXIT_DELAY, FEE_BPS)
            )
        );
        requests = IRequests(vm.deployCode("Requests.sol:Requests", abi.encode(channels)));
        reputation = IReputation(
            vm.deployCode("Reputation.sol:Reputation", abi.encode(channels, TIER_UNIT))
        );
        domain = channels.domainSeparator();
    }

    // ---- people

    function fund(address who) internal {
        token.mint(who, RICH);
        vm.startPrank(who);
        token.approve(address(channels), type(uint256).max);
        token.approve(address(nodes), type(uint256).max);
        token.approve(address(requests), type(uint256).max);
        vm.stopPrank();
    }

    function join(address owner, uint256 key, uint96 stake) internal {
        vm.prank(owner);
        nodes.register(7, "http://127.0.0.1:1", bytes32(uint256(1)));
        addKey(owner, key);
        if (stake != 0) {
            vm.prank(owner);
            nodes.stake(stake);
        }
    }

    function addKey(address owner, uint256 key) internal {
        (bytes32 r, bytes32 vs) = vm.signCompact(key, keyDigest(owner, vm.addr(key)));
        vm.prank(owner);
        nodes.addServiceKey(vm.addr(key), r, vs);
    }

    function keyDigest(address owner, address key) internal view returns (bytes32) {
        bytes32 typehash = keccak256("ServiceKey(address owner,address key)");
        return digest(keccak256(abi.encode(typehash, owner, key)));
    }

    function digest(bytes32 structHash) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }

    // ---- channels

    function open(uint96 amount) internal returns (ChannelId) {
        vm.prank(payer);
        return channels.open(payee, signer, amount);
    }

    /// @dev A permit of the key's account for `Channels`, good for an hour.
    function permitFor(uint256 key, uint96 amount) internal view returns (IChannels.Permit memory) {
        uint256 deadline = block.timestamp + 1 hours;
        address owner = vm.addr(key);
        bytes32 typehash = keccak256(
            "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
        );
        bytes32 hash =
            keccak256(abi.encode(typehash, owner, channels, amount, token.nonces(owner), deadline));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, _tokenDigest(hash));
        return IChannels.Permit({deadline: deadline, v: v, r: r, s: s});
    }

    /// @dev An EIP-3009 authorization of the key's account for one channel, good for an hour.
    function authorizationFor(uint256 key, ChannelId id, uint96 amount, bytes32 salt)
        internal
        view
        returns (IChannels.Authorization memory)
    {
        uint256 validBefore = block.timestamp + 1 hours;
        bytes32 typehash = keccak256(
            "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,"
            "uint256 validBefore,bytes32 nonce)"
        );
        bytes32 nonce = keccak256(abi.encode(id, salt));
        bytes32 hash =
            keccak256(abi.encode(typehash, vm.addr(key), channels, amount, 0, validBefore, nonce));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, _tokenDigest(hash));
        return IChannels.Authorization({
            validAfter: 0, validBefore: validBefore, salt: salt, v: v, r: r, s: s
        });
    }

    function _tokenDigest(bytes32 structHash) private view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), structHash));
    }

    // ---- requests

    /// @dev Asks `payee` for at most 64 tokens within ten minutes, for one token.
    function order() internal view returns (IRequests.Order memory) {
        return IRequests.Order({
            gateway: payee,
            model: ModelId.wrap(keccak256("model")),
            profile: keccak256("profile"),
            temperature: 700_000,
            topP: 900_000,
            topK: 40,
            maxTokens: 64,
            fee: 1e6,
            exclusiveUntil: uint64(block.timestamp + 300),
            deadline: uint64(block.timestamp + 600),
            callbackGas: 0
        });
    }

    function paramsOf(address from, IRequests.Order memory what, bytes32 prompt, uint32 inputTokens)
        internal
        pure
        returns (IRequests.Params memory)
    {
        return IRequests.Params({
            payer: from,
            gateway: what.gateway,
            model: what.model,
            profile: what.profile,
            prompt: prompt,
            temperature: what.temperature,
            topP: what.topP,
            topK: what.topK,
            inputTokens: inputTokens,
            maxTokens: what.maxTokens,
            fee: what.fee,
            exclusiveUntil: what.exclusiveUntil,
            deadline: what.deadline,
            callbackGas: what.callbackGas
        });
    }

    /// @dev The parameters in the first `Requested` event since `vm.recordLogs`.
    function loggedParams() internal returns (IRequests.Params memory params) {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].topics[0] == IRequests.Requested.selector) {
                return abi.decode(logs[i].data, (IRequests.Params));
            }
        }
    }

    function idOf(address from, address key) internal view returns (ChannelId) {
        return ChannelId.wrap(keccak256(abi.encode(from, payee, key)));
    }

    function row(address from, uint256 key, uint96 cumulative, uint32 jobs, bytes32 root)
        internal
        view
        returns (bytes memory)
    {
        bytes32 typehash = keccak256(
            "Voucher(address payer,address payee,uint96 cumulative,uint32 jobs,bytes32 receiptsRoot)"
        );
        (bytes32 r, bytes32 vs) = vm.signCompact(
            key, digest(keccak256(abi.encode(typehash, from, payee, cumulative, jobs, root)))
        );
        return abi.encodePacked(from, cumulative, jobs, root, r, vs);
    }

    function row(uint96 cumulative) internal view returns (bytes memory) {
        return row(payer, SIGNER_KEY, cumulative, 1, bytes32(uint256(cumulative)));
    }

    function claim(uint96 cumulative) internal {
        channels.claim(payee, row(cumulative));
    }

    function consent(uint256 key, uint96 claimed, uint32 exitAt)
        internal
        view
        returns (bytes32 r, bytes32 vs)
    {
        bytes32 typehash = keccak256(
            "Close(address payer,address payee,address signer,uint96 claimed,uint32 exitAt)"
        );
        return vm.signCompact(
            key, digest(keccak256(abi.encode(typehash, payer, payee, signer, claimed, exitAt)))
        );
    }

    function slot() internal view returns (IChannels.Channel memory) {
        return channels.channel(idOf(payer, signer));
    }

    function feeUp(uint256 amount) internal pure returns (uint96) {
        return uint96((amount * FEE_BPS + 9_999) / 10_000);
    }

    function err(bytes4 selector, ChannelId id) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(selector, id);
    }

    /// @dev Values within the bounds stay, so that the fuzzer's edge cases survive.
    function bound(uint256 x, uint256 least, uint256 most) internal pure returns (uint256) {
        return x >= least && x <= most ? x : least + x % (most - least + 1);
    }

    function nextEpoch() internal {
        vm.warp((uint256(channels.epochNow()) + 1) * EPOCH);
    }
}
