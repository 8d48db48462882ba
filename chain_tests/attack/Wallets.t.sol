// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {RequestsFixture} from "../RequestsFixture.sol";
import {Receiver} from "../mocks/Receiver.sol";

/// @notice Payers that are contracts, friendly and not.
contract WalletsAttackTest is RequestsFixture {
    Receiver private wallet;

    function setUp() public override {
        super.setUp();
        wallet = new Receiver();
        fund(address(wallet));
    }

    function test_Wallet_LivesAWholeChannel() public {
        address from = address(wallet);
        ChannelId id = idOf(from, signer);
        _do(address(channels), abi.encodeCall(IChannels.open, (payee, signer, 5e6)));
        _do(address(channels), abi.encodeCall(IChannels.topUp, (payee, signer, 2e6)));
        channels.claim(payee, row(from, SIGNER_KEY, 3e6, 1, "root"));
        _do(address(channels), abi.encodeCall(IChannels.exit, (payee, signer)));
        vm.warp(START + EXIT_DELAY);
        _do(address(channels), abi.encodeCall(IChannels.withdraw, (payee, signer)));

        vm.assertEq(token.balanceOf(from), RICH - 3e6, "the wallet has the rest");
        vm.assertEq(channels.channel(id).deposit, 3e6, "deposit");
        vm.assertEq(channels.accountOf(payee).earned, 3e6, "the node is paid");
    }

    function test_Wallet_ThatClosesTheChannelWithConsent() public {
        payer = address(wallet);
        open(5e6);
        _do(address(channels), abi.encodeCall(IChannels.exit, (payee, signer)));
        (bytes32 r, bytes32 vs) = consent(NODE_KEY, 0, uint32(START + EXIT_DELAY));
        vm.warp(START + 1);
        channels.close(payer, payee, signer, r, vs);

        vm.assertEq(token.balanceOf(payer), RICH, "the wallet has all");
    }

    function test_FailingConsumer_StillPaysTheNode() public {
        Receiver.Manner[4] memory manners = [
            Receiver.Manner.Revert,
            Receiver.Manner.RevertHuge,
            Receiver.Manner.Burn,
            Receiver.Manner.ReturnHuge
        ];
        for (uint256 i = 0; i < manners.length; ++i) {
            (uint256 id, IRequests.Params memory params) = _askAs(manners[i]);
            fulfil(nodeKey, id, params);
            vm.assertEq(channels.accountOf(payee).earned, (i + 1) * 1e6, "the node is paid");
        }
        vm.assertEq(token.balanceOf(address(wallet)), RICH - 4e6, "the consumer has paid");
    }

    function test_FailingConsumer_StillGetsItsRefund() public {
        (uint256 id, IRequests.Params memory params) = _askAs(Receiver.Manner.Burn);
        vm.warp(DEADLINE + 1);

        requests.refund(id, params);

        vm.assertEq(token.balanceOf(address(wallet)), RICH, "the consumer has it back");
    }

    function test_ReenteringWallet_GetsItsRefundOnce() public {
        (uint256 first, IRequests.Params memory params) = _askAs(Receiver.Manner.Reenter);
        IRequests.Order memory what = order();
        what.callbackGas = 100_000;
        (uint256 second, IRequests.Params memory itsParams) = ask(address(wallet), what);
        Receiver.Call[] memory calls = new Receiver.Call[](4);
        bytes memory data = abi.encodeCall(IRequests.refund, (first, params));
        calls[0] = Receiver.Call(address(requests), data);
        data = abi.encodeCall(IRequests.cancel, (first, params));
        calls[1] = Receiver.Call(address(requests), data);
        // Its other request is its own to end.
        data = abi.encodeCall(IRequests.refund, (second, itsParams));
        calls[2] = Receiver.Call(address(requests), data);
        data = abi.encodeCall(IRequests.fulfil, (first, params, RECEIPT, OUTPUT));
        calls[3] = Receiver.Call(address(requests), data);
        wallet.plan(calls);
        (uint256 other, IRequests.Params memory otherParams) = ask();
        vm.warp(DEADLINE + 1);

        requests.refund(first, params);

        vm.assertEq(wallet.landed(), 1, "only the other request was ended");
        vm.assertEq(requests.openRequest(second), 0, "by itself");
        vm.assertEq(token.balanceOf(address(requests)), 1e6, "the other payer's fee waits");
        requests.refund(other, otherParams);
        vm.assertEq(token.balanceOf(address(wallet)), RICH, "each fee came back once");
        vm.assertEq(token.balanceOf(payer), RICH, "the other payer is whole");
    }

    /// @dev It spends its allowance elsewhere; the node sees no money, and no deposit either.
    function test_WalletWithoutAllowance_OpensNothing() public {
        _do(address(token), abi.encodeCall(token.approve, (address(channels), 0)));
        bytes memory data = abi.encodeCall(IChannels.open, (payee, signer, 5e6));

        (bool success,) =
            address(wallet).call(abi.encodeCall(Receiver.execute, (address(channels), data)));

        vm.assertFalse(success, "refused");
        vm.assertEq(channels.channel(idOf(address(wallet), signer)).deposit, 0, "no deposit");
    }

    function _do(address target, bytes memory data) private {
        wallet.execute(target, data);
    }

    function _askAs(Receiver.Manner manner)
        private
        returns (uint256 id, IRequests.Params memory params)
    {
        wallet.behave(manner);
        IRequests.Order memory what = order();
        what.callbackGas = 500_000;
        return ask(address(wallet), what);
    }
}
