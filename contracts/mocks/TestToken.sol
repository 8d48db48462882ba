// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";

/// @title TestToken
/// @notice A token with six decimals, permits (ERC-2612) and authorizations (EIP-3009) that anybody
/// may mint, for local chains only.
/// @dev Warning: it is worth nothing anywhere, and whoever mints 2^96 base units can make the totals
/// of a payee overflow, after which claims for that payee revert.
contract TestToken is ERC20, ERC20Permit, ERC3009 {
    constructor() ERC20("plait test token", "tPLAIT") ERC20Permit("plait test token") {}

    /// @notice Mints `amount` base units to `to`; anybody may.
    /// @param to Who gets the tokens.
    /// @param amount Base units.
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    /// @inheritdoc ERC20
    function decimals() public pure override returns (uint8) {
        return 6;
    }
}
