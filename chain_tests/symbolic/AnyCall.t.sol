// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {Symbolic} from "./Symbolic.sol";

/// @notice Whatever anybody calls, with whatever arguments, nothing runs backwards.
/// @custom:halmos --array-lengths rows={132}
contract AnyCallSymbolic is Symbolic {
    function check_Channel(ChannelId id, address caller, uint32 time) external {
        moveTo(time);
        IChannels.Channel memory a = channels.channel(id);
        vm.assume(isSound(a));

        _callAnything(caller);

        IChannels.Channel memory b = channels.channel(id);
        bool kept = both(isSound(b), b.claimed >= a.claimed);
        bool ended = both(b.exitAt == 0, b.deposit == b.claimed);
        bool grew = both(b.deposit >= a.deposit, either(b.exitAt == a.exitAt, a.exitAt == 0));
        hold(both(kept, either(grew, both(ended, a.exitAt != 0))), "channel");
    }

    function _callAnything(address caller) private {
        bytes memory data = svm.createCalldata("Channels");
        vm.prank(caller);
        (bool done,) = address(channels).call(data);
        vm.assume(done);
    }
}
