// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {ERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";

import {IERC8004Reputation} from "../../contracts/interfaces/IERC8004.sol";

/// @notice ERC-8004's identity registry as far as it is used here; agents count from 0.
contract Agents is ERC721("agents", "AGENT") {
    uint256 public count;
    mapping(uint256 agentId => string uri) public uris;

    function register(string calldata agentURI) external returns (uint256 agentId) {
        agentId = count++;
        uris[agentId] = agentURI;
        _safeMint(msg.sender, agentId);
    }
}

/// @notice ERC-8004's reputation registry as far as it is used here.
contract Feedback is IERC8004Reputation {
    struct Entry {
        address client;
        uint256 agentId;
        int128 value;
        uint8 decimals;
        string tag1;
        string tag2;
        string endpoint;
        string uri;
        bytes32 hash;
        bool revoked;
    }

    Agents private immutable _AGENTS;

    Entry private _last;
    /// @dev Feedback counts from 1, so what has index 1 is in place 0.
    mapping(uint256 agentId => mapping(address client => Entry[] given)) private _given;

    error SelfFeedback();
    error TooManyDecimals();
    error NoSuchFeedback();
    error AlreadyRevoked();

    constructor(Agents agents) {
        _AGENTS = agents;
    }

    function giveFeedback(
        uint256 agentId,
        int128 value,
        uint8 valueDecimals,
        string calldata tag1,
        string calldata tag2,
        string calldata endpoint,
        string calldata feedbackURI,
        bytes32 feedbackHash
    ) external {
        require(valueDecimals <= 18, TooManyDecimals());
        address owner = _AGENTS.ownerOf(agentId);
        require(
            msg.sender != owner && !_AGENTS.isApprovedForAll(owner, msg.sender)
                && _AGENTS.getApproved(agentId) != msg.sender,
            SelfFeedback()
        );
        _last.client = msg.sender;
        _last.agentId = agentId;
        _last.value = value;
        _last.decimals = valueDecimals;
        _last.tag1 = tag1;
        _last.tag2 = tag2;
        _last.endpoint = endpoint;
        _last.uri = feedbackURI;
        _last.hash = feedbackHash;
        _given[agentId][msg.sender].push(_last);
    }

    function revokeFeedback(uint256 agentId, uint64 feedbackIndex) external {
        Entry[] storage given = _given[agentId][msg.sender];
        require(feedbackIndex != 0 && feedbackIndex <= given.length, NoSuchFeedback());
        Entry storage entry = given[feedbackIndex - 1];
        require(!entry.revoked, AlreadyRevoked());
        entry.revoked = true;
    }

    function last() external view returns (Entry memory) {
        return _last;
    }

    function getLastIndex(uint256 agentId, address clientAddress) external view returns (uint64) {
        return uint64(_given[agentId][clientAddress].length);
    }

    /// @dev What `getSummary` of ERC-8004 says for one client and any tags, all decimals being alike.
    function summary(uint256 agentId, address client)
        external
        view
        returns (uint64 live, int128 average)
    {
        Entry[] storage given = _given[agentId][client];
        for (uint256 i = 0; i < given.length; ++i) {
            if (given[i].revoked) continue;
            ++live;
            average += given[i].value;
        }
        if (live != 0) average /= int128(uint128(live));
    }

    function getIdentityRegistry() external view returns (address) {
        return address(_AGENTS);
    }
}
