// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IRequestReceiver} from "../contracts/interfaces/IRequestReceiver.sol";
import {IRequests} from "../contracts/interfaces/IRequests.sol";
import {RequestsFixture} from "./RequestsFixture.sol";

interface IAnswerKeeper is IRequestReceiver {
    event Answered(uint256 indexed id, bytes32 hash);
    event NotAnswered(uint256 indexed id, uint96 fee);

    error AnswerKeeper_CallerNotOwner(address caller);

    function ask(IRequests.Order calldata order, bytes calldata ids) external returns (uint256 id);
    function askByCommitment(IRequests.Order calldata order, bytes32 prompt, uint32 inputTokens)
        external
        returns (uint256 id);
    function giveUp(uint256 id, IRequests.Params calldata params) external;
    function withdraw(uint256 amount) external;
    function answers(uint256 id) external view returns (bytes32);
    function requests() external view returns (address);
    function REFUNDED() external view returns (bytes32);
}

/// @notice A deployment with a contract that asks; the test owns it.
abstract contract KeeperFixture is RequestsFixture {
    uint32 internal constant CALLBACK_GAS = 60_000;

    IAnswerKeeper internal keeper;

    function setUp() public virtual override {
        super.setUp();
        keeper = IAnswerKeeper(vm.deployCode("AnswerKeeper.sol:AnswerKeeper", abi.encode(requests)));
        token.mint(address(keeper), RICH);
    }

    function asKeeper() internal returns (uint256 id, IRequests.Params memory params) {
        IRequests.Order memory what = order();
        what.callbackGas = CALLBACK_GAS;
        params = askedBy(address(keeper), what);
        id = keeper.ask(what, IDS);
    }

    function notOwner() internal view returns (bytes memory) {
        return abi.encodeWithSelector(IAnswerKeeper.AnswerKeeper_CallerNotOwner.selector, stranger);
    }
}
