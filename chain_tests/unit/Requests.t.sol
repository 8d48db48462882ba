// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {ModelId} from "../../contracts/types/Ids.sol";
import {Fixture} from "../Fixture.sol";

contract RequestsTest is Fixture {
    bytes private constant _IDS = hex"000000010000000200000003";
    bytes private constant _OUTPUT = hex"0000000700000008";
    bytes32 private constant _RECEIPT = keccak256("receipt");
    uint64 private constant _DEADLINE = uint64(START + 600);

    function setUp() public override {
        super.setUp();
        join(payee, NODE_KEY, MIN_STAKE);
    }

    // ---- request

    function test_Request_TakesTheFeeAndSaysAll() public {
        IRequests.Params memory params = _params();
        bytes32 digest = requests.digestOf(1, params);

        vm.expectEmit(address(requests));
        emit IRequests.Requested(1, payee, digest, params, _IDS);
        uint256 id = _request(_order());

        vm.assertEq(id, 1, "id");
        vm.assertEq(requests.requestCount(), 1, "count");
        vm.assertEq(requests.openRequest(1), digest, "what is kept");
        vm.assertEq(token.balanceOf(address(requests)), 1e6, "escrow");
        vm.assertEq(
            requests.seedOf(1), keccak256(abi.encode(block.chainid, address(requests), 1)), "seed"
        );
    }

    function test_Request_TwiceTheSame_GivesTwoDigests() public {
        uint256 first = _request(_order());
        uint256 second = _request(_order());

        vm.assertFalse(requests.openRequest(first) == requests.openRequest(second), "digests");
    }

    function test_Request_RevertWhen_FeeZero() public {
        IRequests.Order memory order = _order();
        order.fee = 0;
        _expectRequestReverts(
            order, _IDS, abi.encodeWithSelector(IRequests.Requests_FeeZero.selector)
        );
    }

    function test_Request_RevertWhen_NoOutput() public {
        IRequests.Order memory order = _order();
        order.maxTokens = 0;
        _expectRequestReverts(
            order, _IDS, abi.encodeWithSelector(IRequests.Requests_NoOutput.selector)
        );
    }

    function test_Request_RevertWhen_BadSampling() public {
        IRequests.Order memory order = _order();
        bytes4 selector = IRequests.Requests_BadSampling.selector;
        order.sampling.topP = 0;
        _expectRequestReverts(order, _IDS, abi.encodeWithSelector(selector, 0, bytes32(0)));
        order.sampling.topP = 1_000_001;
        _expectRequestReverts(order, _IDS, abi.encodeWithSelector(selector, 1_000_001, bytes32(0)));
        order.sampling.topP = 1;
        order.sampling.stop = keccak256("stop");
        _expectRequestReverts(order, _IDS, abi.encodeWithSelector(selector, 1, keccak256("stop")));
    }

    function test_Request_RevertWhen_BadDeadline() public {
        IRequests.Order memory order = _order();
        bytes4 selector = IRequests.Requests_BadDeadline.selector;
        order.deadline = uint64(START);
        _expectRequestReverts(order, _IDS, abi.encodeWithSelector(selector, START, START + 3600));
        order.deadline = uint64(START + 3601);
        _expectRequestReverts(
            order, _IDS, abi.encodeWithSelector(selector, START + 3601, START + 3600)
        );
    }

    function test_Request_RevertWhen_BadPrompt() public {
        bytes4 selector = IRequests.Requests_BadPrompt.selector;
        _expectRequestReverts(_order(), "", abi.encodeWithSelector(selector, 0, 16_384));
        _expectRequestReverts(_order(), hex"000001", abi.encodeWithSelector(selector, 3, 16_384));
        _expectRequestReverts(
            _order(), new bytes(16_388), abi.encodeWithSelector(selector, 16_388, 16_384)
        );
    }

    // ---- fulfil

    function test_Fulfil_CreditsTheGatewayAndSaysSo() public {
        uint256 id = _request(_order());
        bytes32 digest = requests.openRequest(id);
        IRequests.Params memory params = _params();

        vm.expectEmit(address(requests));
        emit IRequests.Fulfilled(id, payee, digest, _RECEIPT, keccak256(_OUTPUT), 2, 1e6);
        vm.expectEmit(address(channels));
        emit IChannels.Accrued(payee, uint32(START / EPOCH), 1e6, 10_000, 1);
        _fulfil(nodeKey, id, params);

        vm.assertEq(token.balanceOf(address(requests)), 0, "escrow");
        vm.assertEq(token.balanceOf(address(channels)), 1e6, "the money moved along");
        (uint96 maturing,) = channels.pendingOf(payee);
        vm.assertEq(maturing, 990_000, "pending");
        vm.assertEq(requests.openRequest(id), 0, "settled");
    }

    function test_Fulfil_RevertGiven_Unknown() public {
        _expectFulfilReverts(_params(), _notOpen(9), 9);
    }

    function test_Fulfil_RevertGiven_Fulfilled() public {
        uint256 id = _request(_order());
        IRequests.Params memory params = _params();
        _fulfil(nodeKey, id, params);

        _expectFulfilReverts(params, _notOpen(id), id);
    }

    function test_Fulfil_RevertWhen_ParamsChanged() public {
        uint256 id = _request(_order());
        IRequests.Params memory params = _params();
        params.fee += 1;
        _expectFulfilReverts(params, _notOpen(id), id);
        params = _params();
        params.gateway = stranger;
        _expectFulfilReverts(params, _notOpen(id), id);
        params = _params();
        params.payer = payee;
        _expectFulfilReverts(params, _notOpen(id), id);
    }

    function test_Fulfil_RevertWhen_CallerNotServiceKey() public {
        uint256 id = _request(_order());
        IRequests.Params memory params = _params();

        vm.expectRevert(
            abi.encodeWithSelector(
                IRequests.Requests_CallerNotGateway.selector, id, stranger, payee
            )
        );
        _fulfil(stranger, id, params);
        // Nor the owner itself: its key is cold.
        vm.expectRevert(
            abi.encodeWithSelector(IRequests.Requests_CallerNotGateway.selector, id, payee, payee)
        );
        _fulfil(payee, id, params);
    }

    function test_Fulfil_RevertWhen_KeyRevoked() public {
        uint256 id = _request(_order());
        IRequests.Params memory params = _params();
        vm.prank(payee);
        nodes.revokeServiceKey(nodeKey);

        vm.expectRevert(
            abi.encodeWithSelector(IRequests.Requests_CallerNotGateway.selector, id, nodeKey, payee)
        );
        _fulfil(nodeKey, id, params);
    }

    function test_Fulfil_RevertGiven_NoGateway() public {
        uint256 id = _request(_order());
        IRequests.Params memory params = _params();
        vm.prank(payee);
        nodes.setRoles(6);

        _expectFulfilReverts(
            params, abi.encodeWithSelector(IRequests.Requests_GatewayNotActive.selector, payee), id
        );
    }

    function test_Fulfil_RevertGiven_ZeroGateway() public {
        IRequests.Order memory order = _order();
        order.gateway = address(0);
        uint256 id = _request(order);
        IRequests.Params memory params = _params();
        params.gateway = address(0);

        // An unknown key's owner is zero as well; nobody is ever active as zero.
        vm.expectRevert(
            abi.encodeWithSelector(IRequests.Requests_GatewayNotActive.selector, address(0))
        );
        _fulfil(stranger, id, params);
    }

    function test_Fulfil_RevertGiven_TooLate() public {
        uint256 id = _request(_order());
        IRequests.Params memory params = _params();
        vm.warp(_DEADLINE + 1);

        _expectFulfilReverts(
            params, abi.encodeWithSelector(IRequests.Requests_TooLate.selector, id, _DEADLINE), id
        );
    }

    function test_Fulfil_AtTheDeadline() public {
        uint256 id = _request(_order());
        vm.warp(_DEADLINE);

        IRequests.Params memory params = _params();
        _fulfil(nodeKey, id, params);

        vm.assertEq(requests.openRequest(id), 0, "settled");
    }

    function test_Fulfil_RevertWhen_ReceiptZero() public {
        uint256 id = _request(_order());
        IRequests.Params memory params = _params();

        vm.expectRevert(abi.encodeWithSelector(IRequests.Requests_ReceiptZero.selector, id));
        vm.prank(nodeKey);
        requests.fulfil(id, params, 0, _OUTPUT);
    }

    function test_Fulfil_RevertWhen_BadOutput() public {
        uint256 id = _request(_order());
        IRequests.Params memory params = _params();
        bytes4 selector = IRequests.Requests_BadOutput.selector;
        vm.startPrank(nodeKey);

        vm.expectRevert(abi.encodeWithSelector(selector, id, 12, 2));
        requests.fulfil(id, params, _RECEIPT, _IDS);
        vm.expectRevert(abi.encodeWithSelector(selector, id, 7, 2));
        requests.fulfil(id, params, _RECEIPT, new bytes(7));
    }

    function test_Fulfil_WithNoOutput() public {
        uint256 id = _request(_order());
        IRequests.Params memory params = _params();

        vm.prank(nodeKey);
        requests.fulfil(id, params, _RECEIPT, "");

        vm.assertEq(requests.openRequest(id), 0, "settled");
    }

    // ---- refund

    function test_Refund_PaysThePayerAndSaysSo() public {
        uint256 id = _request(_order());
        IRequests.Params memory params = _params();
        vm.warp(_DEADLINE + 1);

        vm.expectEmit(address(requests));
        emit IRequests.Refunded(id, payer, 1e6);
        vm.prank(stranger);
        requests.refund(id, params);

        vm.assertEq(token.balanceOf(payer), RICH, "payer's balance");
        vm.expectRevert(_notOpen(id));
        requests.refund(id, params);
    }

    function test_Refund_RevertGiven_NotDue() public {
        uint256 id = _request(_order());
        IRequests.Params memory params = _params();
        vm.warp(_DEADLINE);

        vm.expectRevert(abi.encodeWithSelector(IRequests.Requests_NotDue.selector, id, _DEADLINE));
        requests.refund(id, params);
    }

    function test_Refund_RevertGiven_Fulfilled() public {
        uint256 id = _request(_order());
        IRequests.Params memory params = _params();
        _fulfil(nodeKey, id, params);
        vm.warp(_DEADLINE + 1);

        vm.expectRevert(_notOpen(id));
        requests.refund(id, params);
    }

    function test_Refund_RevertWhen_PayerChanged() public {
        uint256 id = _request(_order());
        IRequests.Params memory params = _params();
        params.payer = stranger;
        vm.warp(_DEADLINE + 1);

        vm.expectRevert(_notOpen(id));
        requests.refund(id, params);
    }

    function _expectFulfilReverts(IRequests.Params memory params, bytes memory reason, uint256 id)
        private
    {
        vm.expectRevert(reason);
        _fulfil(nodeKey, id, params);
    }

    function _notOpen(uint256 id) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IRequests.Requests_NotOpen.selector, id);
    }

    function _params() private view returns (IRequests.Params memory) {
        IRequests.Order memory order = _order();
        return IRequests.Params({
            payer: payer,
            gateway: payee,
            model: order.model,
            profile: order.profile,
            prompt: keccak256(abi.encodePacked(requests.PUBLIC_PROMPT_SALT(), _IDS)),
            sampling: order.sampling,
            inputTokens: 3,
            maxTokens: order.maxTokens,
            fee: order.fee,
            deadline: order.deadline
        });
    }

    function _order() private view returns (IRequests.Order memory) {
        return IRequests.Order({
            gateway: payee,
            model: ModelId.wrap(keccak256("model")),
            profile: keccak256("profile"),
            sampling: IRequests.Sampling(700_000, 900_000, 40, 0),
            maxTokens: 2,
            fee: 1e6,
            deadline: _DEADLINE
        });
    }

    function _request(IRequests.Order memory order) private returns (uint256) {
        vm.prank(payer);
        return requests.request(order, _IDS);
    }

    function _fulfil(address caller, uint256 id, IRequests.Params memory params) private {
        vm.prank(caller);
        requests.fulfil(id, params, _RECEIPT, _OUTPUT);
    }

    function _expectRequestReverts(
        IRequests.Order memory order,
        bytes memory ids,
        bytes memory reason
    ) private {
        vm.expectRevert(reason);
        vm.prank(payer);
        requests.request(order, ids);
    }
}
