// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {IERC721Receiver} from "@openzeppelin/contracts/token/ERC721/IERC721Receiver.sol";

import {IAgentExport} from "../interfaces/IAgentExport.sol";
import {IChannels} from "../interfaces/IChannels.sol";
import {IERC8004Identity, IERC8004Reputation} from "../interfaces/IERC8004.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";
import {IReputation} from "../interfaces/IReputation.sol";

/// @title AgentExport
/// @notice Exports nodes and their scores to the registries of ERC-8004.
contract AgentExport is IAgentExport, IERC721Receiver {
    uint8 private constant _MAX_DECIMALS = 18;

    /// @dev `agent` is the agent's id plus one, zero for none. Neither this nor `_owners` ever changes.
    mapping(address owner => uint256 agent) private _agents;
    mapping(uint256 agentId => address owner) private _owners;
    /// @dev The score last exported.
    mapping(address owner => uint96 score) private _exported;

    IReputation private immutable _REPUTATION;
    INodeRegistry private immutable _NODES;
    IERC8004Identity private immutable _IDENTITY;
    IERC8004Reputation private immutable _FEEDBACK;
    uint8 private immutable _DECIMALS;

    /// @notice Fixes what never changes afterwards.
    /// @param reputation_ The deployment's `Reputation`.
    /// @param feedback_ ERC-8004's reputation registry on this chain.
    constructor(address reputation_, address feedback_) {
        require(reputation_ != address(0) && feedback_ != address(0), AgentExport_AddressZero());
        IChannels channels = IChannels(IReputation(reputation_).channels());
        uint8 decimals = IERC20Metadata(channels.token()).decimals();
        require(decimals <= _MAX_DECIMALS, AgentExport_TooManyDecimals(decimals, _MAX_DECIMALS));
        _REPUTATION = IReputation(reputation_);
        _NODES = INodeRegistry(channels.nodes());
        _FEEDBACK = IERC8004Reputation(feedback_);
        _IDENTITY = IERC8004Identity(IERC8004Reputation(feedback_).getIdentityRegistry());
        _DECIMALS = decimals;
    }

    /// @inheritdoc IAgentExport
    function register(string calldata agentURI) external returns (uint256 agentId) {
        agentId = _IDENTITY.register(agentURI);
        _link(msg.sender, agentId);
        _IDENTITY.transferFrom(address(this), msg.sender, agentId);
    }

    /// @inheritdoc IAgentExport
    function link(uint256 agentId) external {
        require(
            _IDENTITY.ownerOf(agentId) == msg.sender,
            AgentExport_CallerNotAgentOwner(agentId, msg.sender)
        );
        _link(msg.sender, agentId);
    }

    /// @inheritdoc IAgentExport
    function exportScore(address owner) external returns (uint96 score) {
        (uint256 agentId, bool linked) = agentOf(owner);
        require(linked, AgentExport_NotLinked(owner));
        require(_IDENTITY.ownerOf(agentId) == owner, AgentExport_AgentMoved(agentId, owner));
        score = _REPUTATION.scoreOf(owner);
        require(score != _exported[owner], AgentExport_Unchanged(owner, score));
        _exported[owner] = score;
        bytes32 hash =
            keccak256(abi.encode(block.chainid, address(_REPUTATION), owner, score, block.number));

        emit ScoreExported(owner, agentId, score);

        // Only the last can stand: each export revokes the one before, and nobody else can.
        uint64 last = _FEEDBACK.getLastIndex(agentId, address(this));
        if (last != 0) _FEEDBACK.revokeFeedback(agentId, last);
        // The cast is safe: 96 bits fit into 127.
        _FEEDBACK.giveFeedback(
            agentId, int128(uint128(score)), _DECIMALS, "plait", "burned-fee", "", "", hash
        );
    }

    /// @inheritdoc IERC721Receiver
    function onERC721Received(address operator, address, uint256 tokenId, bytes calldata)
        external
        view
        returns (bytes4)
    {
        // This contract is the operator only while it registers.
        require(
            msg.sender == address(_IDENTITY) && operator == address(this),
            AgentExport_UnexpectedToken(msg.sender, tokenId)
        );
        return IERC721Receiver.onERC721Received.selector;
    }

    /// @inheritdoc IAgentExport
    function agentOf(address owner) public view returns (uint256 agentId, bool linked) {
        uint256 agent = _agents[owner];
        return agent == 0 ? (0, false) : (agent - 1, true);
    }

    function _link(address owner, uint256 agentId) private {
        require(_NODES.nodeOf(owner).registeredAt != 0, AgentExport_UnknownNode(owner));
        (uint256 linkedTo, bool linked) = agentOf(owner);
        require(!linked, AgentExport_AlreadyLinked(owner, linkedTo));
        address other = _owners[agentId];
        require(other == address(0), AgentExport_AgentTaken(agentId, other));
        _agents[owner] = agentId + 1;
        _owners[agentId] = owner;

        emit AgentLinked(owner, agentId);
    }
}
