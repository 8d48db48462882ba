// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// @title Intake
/// @notice Takes tokens in and refuses a token that delivers another amount than was asked for.
/// @dev The caller has booked the amount before; a transfer that reverts takes the booking with it.
library Intake {
    using SafeERC20 for IERC20;

    /// @notice The token delivered `received` instead of `expected` base units: it takes a fee on
    /// transfer, rebases, or called back and moved more money meanwhile.
    error Intake_WrongAmount(uint256 expected, uint256 received);

    /// @notice Moves exactly `amount` base units from the caller to this contract.
    /// @param token The token.
    /// @param amount Base units.
    function pull(IERC20 token, uint256 amount) internal {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        check(token, before, amount);
    }

    /// @notice Reverts unless this contract holds exactly `amount` more than `before`.
    /// @param token The token.
    /// @param before Base units this contract held before.
    /// @param amount Base units.
    function check(IERC20 token, uint256 before, uint256 amount) internal view {
        uint256 held = token.balanceOf(address(this));
        uint256 received = held < before ? 0 : held - before;
        require(received == amount, Intake_WrongAmount(amount, received));
    }
}
