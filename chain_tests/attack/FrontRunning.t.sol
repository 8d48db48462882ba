// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {IERC3009} from "@openzeppelin/contracts/interfaces/draft-IERC3009.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {IChannels} from "../../contracts/interfaces/IChannels.sol";
import {IRequests} from "../../contracts/interfaces/IRequests.sol";
import {RequestsFixture} from "../RequestsFixture.sol";

/// @notice Somebody sees a transaction and is faster.
contract FrontRunningAttackTest is RequestsFixture {
    uint256 private constant _POOR_KEY = 0x900D;

    address private poor;

    function setUp() public override {
        super.setUp();
        poor = vm.addr(_POOR_KEY);
        token.mint(poor, RICH);
    }

    // ---- claims

    function test_StrangerClaimsFirst_PayeeHasTheSame() public {
        open(5e6);
        bytes memory rows = row(2e6);
        vm.prank(stranger);
        channels.claim(payee, rows);
        bytes32 account = keccak256(abi.encode(channels.accountOf(payee)));

        vm.expectEmit(address(channels));
        emit IChannels.RowsSkipped(payee, 1);
        vm.prank(payee);
        uint96 earned = channels.claim(payee, rows);

        vm.assertEq(earned, 0, "nothing twice");
        vm.assertEq(channels.accountOf(payee).earned, 2e6, "the payee is paid");
        vm.assertEq(keccak256(abi.encode(channels.accountOf(payee))), account, "once");
        vm.assertEq(token.balanceOf(stranger), 0, "the stranger is not");
    }

    function test_StrangerClaimsPart_TheRestOfTheBatchLands() public {
        fund(stranger);
        open(5e6);
        vm.prank(stranger);
        channels.open(payee, signer, 5e6);
        bytes memory batch = bytes.concat(row(2e6), row(stranger, SIGNER_KEY, 3e6, 1, "root"));
        vm.prank(stranger);
        channels.claim(payee, row(2e6));

        vm.assertEq(channels.claim(payee, batch), 3e6, "the other row");

        vm.assertEq(channels.accountOf(payee).earned, 5e6, "the payee is paid");
    }

    function test_StrangerReleasesAndBurnsFirst_PayeeHasTheMoney() public {
        open(5e6);
        claim(2e6);
        nextEpoch();
        nextEpoch();
        vm.startPrank(stranger);

        channels.release(payee);
        channels.burn(payee);

        vm.assertEq(token.balanceOf(payee), RICH - MIN_STAKE + 1_980_000, "the payee is paid");
        vm.assertEq(token.balanceOf(stranger), 0, "the stranger is not");
    }

    // ---- fulfilments

    function test_CopiedFulfilment_OfAnotherAccount_IsRefused() public {
        (uint256 id, IRequests.Params memory params) = ask();

        _expectNotGateway(id, stranger);
        fulfil(stranger, id, params);
        fulfil(nodeKey, id, params);

        vm.assertEq(channels.accountOf(payee).earned, 1e6, "the node is paid");
        vm.assertEq(channels.accountOf(stranger).earned, 0, "the copier is not");
    }

    function test_CopiedFulfilment_OfAnotherNode_IsRefused() public {
        fund(stranger);
        join(stranger, OTHER_NODE_KEY, MIN_STAKE);
        (uint256 id, IRequests.Params memory params) = ask();

        _expectNotGateway(id, vm.addr(OTHER_NODE_KEY));
        fulfil(vm.addr(OTHER_NODE_KEY), id, params);
        params.gateway = stranger;
        vm.expectRevert(notOpen(id));
        fulfil(vm.addr(OTHER_NODE_KEY), id, params);

        vm.assertEq(channels.accountOf(stranger).earned, 0, "the copier is not paid");
        vm.assertEq(token.balanceOf(address(requests)), 1e6, "the fee waits for the node");
    }

    function test_CancelBeforeAFulfilment_InTheExclusivePeriod_IsRefused() public {
        (uint256 id, IRequests.Params memory params) = ask();
        vm.warp(EXCLUSIVE_UNTIL);

        vm.expectRevert(
            abi.encodeWithSelector(IRequests.Requests_StillExclusive.selector, id, EXCLUSIVE_UNTIL)
        );
        cancel(payer, id, params);
        fulfil(nodeKey, id, params);

        vm.assertEq(channels.accountOf(payee).earned, 1e6, "the node is paid");
        vm.assertEq(token.balanceOf(payer), RICH - 1e6, "by the payer");
    }

    function test_CancelBeforeAFulfilment_LaterOn_LeavesTheFeeWithOne() public {
        (uint256 id, IRequests.Params memory params) = ask();
        vm.warp(EXCLUSIVE_UNTIL + 1);

        cancel(payer, id, params);
        vm.expectRevert(notOpen(id));
        fulfil(nodeKey, id, params);

        vm.assertEq(token.balanceOf(payer), RICH, "the payer has it back");
        vm.assertEq(channels.accountOf(payee).earned, 0, "the node took that risk");
    }

    function test_FulfilmentBeforeACancel_LeavesTheFeeWithOne() public {
        (uint256 id, IRequests.Params memory params) = ask();
        vm.warp(EXCLUSIVE_UNTIL + 1);

        fulfil(nodeKey, id, params);
        vm.expectRevert(notOpen(id));
        cancel(payer, id, params);

        vm.assertEq(token.balanceOf(payer), RICH - 1e6, "the payer has paid");
        vm.assertEq(channels.accountOf(payee).earned, 1e6, "the node is paid");
    }

    // ---- permits and authorizations

    function test_GrieferUsesThePermitFirst_OpenStillWorks() public {
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 5e6);
        _usePermit(permit, 5e6);

        vm.prank(poor);
        channels.openWithPermit(payee, signer, 5e6, permit);

        vm.assertEq(channels.channel(idOf(poor, signer)).deposit, 5e6, "deposit");
    }

    function test_GrieferUsesThePermitFirst_TopUpStillWorks() public {
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 5e6);
        vm.prank(poor);
        channels.openWithPermit(payee, signer, 5e6, permit);
        permit = permitFor(_POOR_KEY, 2e6);
        _usePermit(permit, 2e6);

        vm.prank(poor);
        channels.topUpWithPermit(payee, signer, 2e6, permit);

        vm.assertEq(channels.channel(idOf(poor, signer)).deposit, 7e6, "deposit");
    }

    function test_GrieferOpensWithTheVictimsPermit_IsRefused() public {
        IChannels.Permit memory permit = permitFor(_POOR_KEY, 5e6);
        token.mint(stranger, RICH);

        vm.expectRevert(
            abi.encodeWithSelector(
                IERC20Errors.ERC20InsufficientAllowance.selector, address(channels), 0, 5e6
            )
        );
        vm.prank(stranger);
        channels.openWithPermit(stranger, stranger, 5e6, permit);

        vm.assertEq(token.balanceOf(poor), RICH, "the victim has lost nothing");
    }

    function test_StrangerCarriesTheAuthorizationFirst_ThePayerHasTheSame() public {
        IChannels.Authorization memory authorization =
            authorizationFor(_POOR_KEY, idOf(poor, signer), 5e6, "salt");
        vm.prank(stranger);
        channels.openWithAuthorization(poor, payee, signer, 5e6, authorization);

        vm.expectRevert(err(IChannels.Channels_AlreadyOpen.selector, idOf(poor, signer)));
        vm.prank(poor);
        channels.openWithAuthorization(poor, payee, signer, 5e6, authorization);

        vm.assertEq(channels.channel(idOf(poor, signer)).deposit, 5e6, "its channel is open");
        vm.assertEq(token.balanceOf(poor), RICH - 5e6, "it paid once");
    }

    /// @dev Outside Channels nobody can use it: the token pays only the caller whom it names.
    function test_StrangerTakesTheAuthorizationToTheToken_IsRefused() public {
        IChannels.Authorization memory authorization =
            authorizationFor(_POOR_KEY, idOf(poor, signer), 5e6, "salt");
        bytes32 nonce = channels.authorizationNonce(idOf(poor, signer), "salt");

        vm.expectRevert(
            abi.encodeWithSelector(IERC20Errors.ERC20InvalidReceiver.selector, address(channels))
        );
        vm.prank(stranger);
        IERC3009(address(token))
            .receiveWithAuthorization(
                poor,
                address(channels),
                5e6,
                authorization.validAfter,
                authorization.validBefore,
                nonce,
                authorization.v,
                authorization.r,
                authorization.s
            );

        vm.assertEq(token.balanceOf(poor), RICH, "the payer has lost nothing");
    }

    function _usePermit(IChannels.Permit memory permit, uint96 amount) private {
        vm.prank(stranger);
        IERC20Permit(address(token))
            .permit(poor, address(channels), amount, permit.deadline, permit.v, permit.r, permit.s);
    }

    function _expectNotGateway(uint256 id, address caller) private {
        vm.expectRevert(
            abi.encodeWithSelector(IRequests.Requests_CallerNotGateway.selector, id, caller, payee)
        );
    }
}
