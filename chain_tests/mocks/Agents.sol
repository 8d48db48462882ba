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

/// @notice ERC-8004's reputation registry as far as it is used here; it keeps the last feedback.
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
    }

    Agents private immutable _AGENTS;

    Entry private _last;

    error SelfFeedback();

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
    }

    function last() external view returns (Entry memory) {
        return _last;
    }

    function getIdentityRegistry() external view returns (address) {
        return address(_AGENTS);
    }
}
