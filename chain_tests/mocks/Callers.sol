// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {Callback} from "../../contracts/libraries/Callback.sol";
import {Intake} from "../../contracts/libraries/Intake.sol";
import {ReceiptsTree} from "../../contracts/libraries/ReceiptsTree.sol";
import {RequestParams} from "../../contracts/libraries/RequestParams.sol";

/// @notice Calls back as `Requests` does.
contract CallbackCaller {
    error TooLittle(uint256 left, uint256 needed);

    event Failed();

    function callBack(address target, uint256 callGas, bytes calldata data)
        external
        returns (bool success)
    {
        uint256 needed = Callback.gasNeeded(callGas);
        uint256 left = gasleft();
        require(left >= needed, TooLittle(left, needed));
        success = Callback.tryCall(target, callGas, data);
        if (!success) emit Failed();
    }
}

/// @notice Takes tokens in as the contracts do.
contract IntakeCaller {
    using Intake for IERC20;

    function pull(IERC20 token, uint256 amount) external {
        token.pull(amount);
    }

    function check(IERC20 token, uint256 before, uint256 amount) external view {
        token.check(before, amount);
    }
}

/// @notice Puts arguments into memory or leaves them in calldata, as a library wants them.
contract PureCaller {
    function hash(IRequests.Params memory params) external pure returns (bytes32) {
        return RequestParams.hash(params);
    }

    function hashCalldata(IRequests.Params calldata params) external pure returns (bytes32) {
        return RequestParams.hashCalldata(params);
    }

    function contains(
        bytes32 root,
        uint256 size,
        uint256 index,
        bytes32 leaf,
        bytes32[] calldata proof
    ) external pure returns (bool) {
        return ReceiptsTree.contains(root, size, index, leaf, proof);
    }
}
