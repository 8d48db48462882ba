// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";

/// @notice What `HookToken` calls before and after it moves money.
interface ITokenHook {
    function beforeTransfer() external;
    function afterTransfer() external;
}

/// @notice The test token, open to vices.
abstract contract MockToken is ERC20, ERC20Permit, ERC3009 {
    constructor() ERC20("mock", "MOCK") ERC20Permit("mock") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function decimals() public pure override returns (uint8) {
        return 6;
    }
}

/// @notice A token that calls back as ERC-777 does, and on every transfer, whoever is concerned.
contract HookToken is MockToken {
    ITokenHook private _hook;

    function watch(ITokenHook hook) external {
        _hook = hook;
    }

    function _update(address from, address to, uint256 value) internal override {
        if (address(_hook) != address(0)) _hook.beforeTransfer();
        super._update(from, to, value);
        if (address(_hook) != address(0)) _hook.afterTransfer();
    }
}

/// @notice A token that can begin to keep a hundredth of each transfer.
contract FeeToken is MockToken {
    bool private _taking;

    function takeFees(bool taking) external {
        _taking = taking;
    }

    function _update(address from, address to, uint256 value) internal override {
        bool moves = from != address(0) && to != address(0);
        uint256 fee = _taking && moves ? value / 100 : 0;
        super._update(from, to, value - fee);
        if (fee != 0) super._update(from, address(0), fee);
    }
}

/// @notice A token that can block accounts.
contract BlockingToken is MockToken {
    mapping(address account => bool) private _blocked;

    error Blocked(address account);

    function block_(address account, bool blocked) external {
        _blocked[account] = blocked;
    }

    function _update(address from, address to, uint256 value) internal override {
        require(!_blocked[from], Blocked(from));
        require(!_blocked[to], Blocked(to));
        super._update(from, to, value);
    }
}

/// @notice A token whose transfers answer nothing, like some of the oldest.
contract SilentToken is MockToken {
    function transfer(address to, uint256 value) public override returns (bool) {
        super.transfer(to, value);
        assembly ("memory-safe") {
            return(0, 0)
        }
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        super.transferFrom(from, to, value);
        assembly ("memory-safe") {
            return(0, 0)
        }
    }
}

/// @notice A token without permits or authorizations whose fallback takes every call for good.
contract CompliantToken is ERC20("compliant", "YES") {
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    fallback() external {}
}
