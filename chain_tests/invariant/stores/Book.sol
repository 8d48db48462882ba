// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../../contracts/interfaces/IChannels.sol";
import {IRequests} from "../../../contracts/interfaces/IRequests.sol";
import {ChannelId} from "../../../contracts/types/Ids.sol";

/// @notice What an outsider who saw every action would know.
contract Book {
    struct Line {
        address payer;
        uint256 payerKey;
        address payee;
        uint256 key;
        address signer;
        ChannelId id;
        uint256 putIn;
        uint256 cameBack;
        uint256 best;
        bytes[] rows;
        IChannels.Channel seen;
    }

    struct Ask {
        uint256 id;
        IRequests.Params params;
    }

    Line[] internal _lines;
    Ask[] internal _asks;
    uint256[] public settled;
    mapping(address where => uint256) public donated;
    mapping(address payee => uint256) public credited;
    mapping(address payee => mapping(uint256 epoch => uint256)) public paidIn;
    mapping(address payee => mapping(uint256 epoch => uint256)) public highestStakeIn;
    mapping(bytes32 action => uint256) public done;

    /// @dev Of money that a broken rule let through; each must stay zero.
    uint256 public replayed;
    uint256 public blocked;
    uint256 public movedExits;
    uint256 public fallenTotals;

    function lineCount() external view returns (uint256) {
        return _lines.length;
    }

    /// @dev Without the vouchers, which would have to be copied after every action.
    function line(uint256 i) external view returns (uint256 putIn, uint256 cameBack, uint256 best) {
        return (_lines[i].putIn, _lines[i].cameBack, _lines[i].best);
    }

    function askCount() external view returns (uint256) {
        return _asks.length;
    }

    function ask(uint256 i) external view returns (Ask memory) {
        return _asks[i];
    }

    function settledCount() external view returns (uint256) {
        return settled.length;
    }
}
