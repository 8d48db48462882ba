// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC3009} from "@openzeppelin/contracts/interfaces/draft-IERC3009.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IChannels} from "./interfaces/IChannels.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {ClaimRow} from "./libraries/ClaimRow.sol";
import {Intake} from "./libraries/Intake.sol";
import {TypedData} from "./libraries/TypedData.sol";
import {ChannelId} from "./types/Ids.sol";

/// @title Channels
/// @notice Keeps payment channels in one token and what each payee earned through them.
contract Channels is IChannels, EIP712 {
    using Intake for IERC20;
    using SafeCast for uint256;
    using SafeERC20 for IERC20;

    uint256 private constant _MAX_ROWS = 256;
    uint256 private constant _BPS = 10_000;
    uint16 private constant _MAX_FEE_BPS = 1_000;
    uint32 private constant _MAX_EXIT_DELAY = 30 days;

    /// @dev Not every token has a burn function or accepts transfers to the zero address.
    address private constant _BURN_ADDRESS = 0x000000000000000000000000000000000000dEaD;

    IERC20 private immutable _TOKEN;
    INodeRegistry private immutable _NODES;
    address private immutable _REQUESTS;
    address private immutable _ARBITER;
    uint32 private immutable _EPOCH_LENGTH;
    uint32 private immutable _EXIT_DELAY;
    uint16 private immutable _FEE_BPS;

    mapping(ChannelId id => Channel) private _channels;
    mapping(address payee => Account) private _accounts;

    /// @notice Fixes what never changes afterwards.
    /// @param token_ The token of all channels.
    /// @param nodes_ The node registry, deployed before and naming this contract.
    /// @param requests_ Where `Requests` will be deployed.
    /// @param arbiter_ Who may forfeit, zero for nobody.
    /// @param epochLength_ Seconds.
    /// @param exitDelay_ Seconds, at most 30 days.
    /// @param feeBps_ Hundredths of a percent of each increase, at most 1,000.
    constructor(
        address token_,
        address nodes_,
        address requests_,
        address arbiter_,
        uint32 epochLength_,
        uint32 exitDelay_,
        uint16 feeBps_
    ) EIP712("plait", "1") {
        require(
            token_ != address(0) && nodes_ != address(0) && requests_ != address(0),
            Channels_AddressZero()
        );
        require(epochLength_ != 0, Channels_EpochZero());
        require(feeBps_ <= _MAX_FEE_BPS, Channels_FeeTooHigh(feeBps_, _MAX_FEE_BPS));
        require(
            exitDelay_ != 0 && exitDelay_ <= _MAX_EXIT_DELAY,
            Channels_BadExitDelay(exitDelay_, _MAX_EXIT_DELAY)
        );
        address named = INodeRegistry(nodes_).channels();
        require(named == address(this), Channels_RegistryNamesOther(named));
        address staked = INodeRegistry(nodes_).token();
        address judge = INodeRegistry(nodes_).arbiter();
        require(staked == token_ && judge == arbiter_, Channels_RegistryDiffers(staked, judge));
        uint64 unbonding = INodeRegistry(nodes_).unbondingDelay();
        require(
            unbonding >= 2 * uint64(epochLength_),
            Channels_UnbondingTooShort(unbonding, epochLength_)
        );

        _TOKEN = IERC20(token_);
        _NODES = INodeRegistry(nodes_);
        _REQUESTS = requests_;
        _ARBITER = arbiter_;
        _EPOCH_LENGTH = epochLength_;
        _EXIT_DELAY = exitDelay_;
        _FEE_BPS = feeBps_;
    }

    /// @inheritdoc IChannels
    function open(address payee, address signer, uint96 amount) external returns (ChannelId id) {
        id = _open(msg.sender, payee, signer, amount);
        _TOKEN.pull(amount);
    }

    /// @inheritdoc IChannels
    function openWithPermit(address payee, address signer, uint96 amount, Permit calldata permit)
        external
        returns (ChannelId id)
    {
        id = _open(msg.sender, payee, signer, amount);
        _pullWithPermit(amount, permit);
    }

    /// @inheritdoc IChannels
    function openWithAuthorization(
        address payer,
        address payee,
        address signer,
        uint96 amount,
        Authorization calldata authorization
    ) external returns (ChannelId id) {
        id = _open(payer, payee, signer, amount);
        _pullWithAuthorization(id, payer, amount, authorization);
    }

    /// @inheritdoc IChannels
    function topUp(address payee, address signer, uint96 amount) external {
        _topUp(msg.sender, payee, signer, amount);
        _TOKEN.pull(amount);
    }

    /// @inheritdoc IChannels
    function topUpWithPermit(address payee, address signer, uint96 amount, Permit calldata permit)
        external
    {
        _topUp(msg.sender, payee, signer, amount);
        _pullWithPermit(amount, permit);
    }

    /// @inheritdoc IChannels
    function topUpWithAuthorization(
        address payer,
        address payee,
        address signer,
        uint96 amount,
        Authorization calldata authorization
    ) external {
        ChannelId id = _topUp(payer, payee, signer, amount);
        _pullWithAuthorization(id, payer, amount, authorization);
    }

    /// @inheritdoc IChannels
    function claim(address payee, bytes calldata rows) external returns (uint96 earned) {
        return _claim(payee, rows);
    }

    /// @inheritdoc IChannels
    function collect(address payee, bytes calldata rows)
        external
        returns (uint96 earned, uint96 paid)
    {
        earned = _claim(payee, rows);
        (uint96 stake, uint64 jailedUntil) = _NODES.bondOf(payee);
        if (block.timestamp < jailedUntil) return (earned, 0);
        (uint96 mature, uint96 allowance) = _releasable(_accounts[payee], stake);
        paid = mature < allowance ? mature : allowance;
        if (paid != 0) _pay(payee, paid);
    }

    /// @inheritdoc IChannels
    function exit(address payee, address signer) external {
        ChannelId id = channelId(msg.sender, payee, signer);
        Channel storage slot = _channels[id];
        require(slot.deposit != 0, Channels_UnknownChannel(id));
        require(slot.exitAt == 0, Channels_Exiting(id, slot.exitAt));
        require(slot.deposit != slot.claimed, Channels_NothingLeft(id));

        uint32 exitAt = (block.timestamp + _EXIT_DELAY).toUint32();
        slot.exitAt = exitAt;

        emit ExitStarted(id, msg.sender, exitAt);
    }

    /// @inheritdoc IChannels
    function withdraw(address payee, address signer) external {
        ChannelId id = channelId(msg.sender, payee, signer);
        Channel storage slot = _channels[id];
        require(slot.exitAt != 0, Channels_NotExiting(id));
        require(block.timestamp >= slot.exitAt, Channels_ExitNotDue(id, slot.exitAt));

        uint96 rest = _end(slot);

        emit ChannelWithdrawn(id, msg.sender, rest);

        _TOKEN.safeTransfer(msg.sender, rest);
    }

    /// @inheritdoc IChannels
    function close(address payer, address payee, address signer, bytes32 r, bytes32 vs) external {
        ChannelId id = channelId(payer, payee, signer);
        Channel storage slot = _channels[id];
        (uint96 claimed, uint32 exitAt) = (slot.claimed, slot.exitAt);
        require(exitAt != 0, Channels_NotExiting(id));
        // Every later exit then ends later, so a consent never fits a second one.
        require(block.timestamp + _EXIT_DELAY > exitAt, Channels_CloseTooEarly(id, exitAt));
        bytes32 digest = closeDigest(payer, payee, signer, claimed, exitAt);
        (address recovered,,) = ECDSA.tryRecover(digest, r, vs);
        (address owner,, uint48 revokedAt) = _NODES.serviceKey(recovered);
        require(owner == payee && revokedAt == 0, Channels_BadClose(id, claimed, exitAt, recovered));

        uint96 rest = _end(slot);

        emit ChannelClosed(id, payer, rest);

        _TOKEN.safeTransfer(payer, rest);
    }

    /// @inheritdoc IChannels
    function credit(address payee, uint96 amount) external {
        require(msg.sender == _REQUESTS, Channels_CallerNotRequests(msg.sender));
        require(amount != 0, Channels_AmountZero());

        _accrue(payee, amount, 1);
    }

    /// @inheritdoc IChannels
    function release(address payee) external returns (uint96 amount) {
        (uint96 stake, uint64 jailedUntil) = _NODES.bondOf(payee);
        require(block.timestamp >= jailedUntil, Channels_PayeeJailed(payee, jailedUntil));
        (uint96 mature, uint96 allowance) = _releasable(_accounts[payee], stake);
        amount = mature < allowance ? mature : allowance;
        require(amount != 0, Channels_NothingToRelease(payee, mature, allowance));

        _pay(payee, amount);
    }

    /// @inheritdoc IChannels
    function burn(address payee) external returns (uint96 amount) {
        Account storage account = _accounts[payee];
        uint96 fee = account.fee;
        amount = fee - account.burned;
        require(amount != 0, Channels_NothingToBurn(payee));

        account.burned = fee;

        emit FeeBurned(payee, amount, fee);

        _TOKEN.safeTransfer(_BURN_ADDRESS, amount);
    }

    /// @inheritdoc IChannels
    function forfeit(address payee) external returns (uint96 amount) {
        require(msg.sender == _ARBITER, Channels_CallerNotArbiter(msg.sender));
        Account storage account = _accounts[payee];
        amount = _unreleased(account);
        require(amount != 0, Channels_NothingPending(payee));

        uint96 forfeited = account.forfeited + amount;
        account.forfeited = forfeited;
        account.previous = 0;
        account.current = 0;

        emit Forfeited(payee, amount, forfeited);

        _TOKEN.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc IChannels
    function channel(ChannelId id) external view returns (Channel memory) {
        return _channels[id];
    }

    /// @inheritdoc IChannels
    function accountOf(address payee) external view returns (Account memory) {
        return _accounts[payee];
    }

    /// @inheritdoc IChannels
    function pendingOf(address payee) external view returns (uint96 maturing, uint96 mature) {
        return _pending(_accounts[payee], epochNow());
    }

    /// @inheritdoc IChannels
    function voucherDigest(
        address payer,
        address payee,
        uint96 cumulative,
        uint32 jobs,
        bytes32 receiptsRoot
    ) external view returns (bytes32) {
        return _hashTypedDataV4(TypedData.voucher(payer, payee, cumulative, jobs, receiptsRoot));
    }

    /// @inheritdoc IChannels
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    /// @inheritdoc IChannels
    function token() external view returns (address) {
        return address(_TOKEN);
    }

    /// @inheritdoc IChannels
    function nodes() external view returns (address) {
        return address(_NODES);
    }

    /// @inheritdoc IChannels
    function requests() external view returns (address) {
        return _REQUESTS;
    }

    /// @inheritdoc IChannels
    function arbiter() external view returns (address) {
        return _ARBITER;
    }

    /// @inheritdoc IChannels
    function epochLength() external view returns (uint32) {
        return _EPOCH_LENGTH;
    }

    /// @inheritdoc IChannels
    function feeBps() external view returns (uint16) {
        return _FEE_BPS;
    }

    /// @inheritdoc IChannels
    function exitDelay() external view returns (uint32) {
        return _EXIT_DELAY;
    }

    /// @inheritdoc IChannels
    function closeDigest(
        address payer,
        address payee,
        address signer,
        uint96 claimed,
        uint32 exitAt
    ) public view returns (bytes32) {
        return _hashTypedDataV4(TypedData.close(payer, payee, signer, claimed, exitAt));
    }

    /// @inheritdoc IChannels
    function epochNow() public view returns (uint32) {
        return (block.timestamp / _EPOCH_LENGTH).toUint32();
    }

    /// @inheritdoc IChannels
    function authorizationNonce(ChannelId id, bytes32 salt) public pure returns (bytes32) {
        return keccak256(abi.encode(id, salt));
    }

    /// @inheritdoc IChannels
    function channelId(address payer, address payee, address signer)
        public
        pure
        returns (ChannelId)
    {
        return ChannelId.wrap(keccak256(abi.encode(payer, payee, signer)));
    }

    function _open(address payer, address payee, address signer, uint96 amount)
        private
        returns (ChannelId id)
    {
        id = channelId(payer, payee, signer);
        Channel storage slot = _channels[id];
        require(payee != address(0) && signer != address(0), Channels_BadParty(payee, signer));
        require(slot.deposit == slot.claimed, Channels_AlreadyOpen(id));

        uint96 deposit = _deposit(id, slot, amount);

        emit ChannelOpened(id, payer, payee, signer, amount, deposit);
    }

    function _topUp(address payer, address payee, address signer, uint96 amount)
        private
        returns (ChannelId id)
    {
        id = channelId(payer, payee, signer);
        Channel storage slot = _channels[id];
        require(slot.deposit != 0, Channels_UnknownChannel(id));

        uint96 deposit = _deposit(id, slot, amount);

        emit ChannelToppedUp(id, payer, amount, deposit);
    }

    /// @dev Anyone may use a permit first; then the allowance is there and the call that finds the
    /// permit used goes on.
    function _pullWithPermit(uint96 amount, Permit calldata permit) private {
        try IERC20Permit(address(_TOKEN))
            .permit(
                msg.sender, address(this), amount, permit.deadline, permit.v, permit.r, permit.s
            ) {}
            catch {}
        _TOKEN.pull(amount);
    }

    /// @dev The nonce names the channel, so whoever carries the authorization here can put the money
    /// nowhere else.
    function _pullWithAuthorization(
        ChannelId id,
        address payer,
        uint96 amount,
        Authorization calldata authorization
    ) private {
        uint256 before = _TOKEN.balanceOf(address(this));
        IERC3009(address(_TOKEN))
            .receiveWithAuthorization(
                payer,
                address(this),
                amount,
                authorization.validAfter,
                authorization.validBefore,
                authorizationNonce(id, authorization.salt),
                authorization.v,
                authorization.r,
                authorization.s
            );
        _TOKEN.check(before, amount);
    }

    function _deposit(ChannelId id, Channel storage slot, uint96 amount)
        private
        returns (uint96 deposit)
    {
        uint96 held = slot.deposit;
        require(amount != 0, Channels_AmountZero());
        require(slot.exitAt == 0, Channels_Exiting(id, slot.exitAt));
        require(amount <= type(uint96).max - held, Channels_DepositTooLarge(id, held, amount));

        deposit = held + amount;
        slot.deposit = deposit;
    }

    /// @dev `claimed` stays, so that old vouchers never replay once the channel is topped up again.
    function _end(Channel storage slot) private returns (uint96 rest) {
        uint96 claimed = slot.claimed;
        rest = slot.deposit - claimed;
        slot.deposit = claimed;
        slot.exitAt = 0;
    }

    function _claim(address payee, bytes calldata rows) private returns (uint96 earned) {
        uint256 count = rows.length / ClaimRow.LENGTH;
        require(
            count != 0 && count <= _MAX_ROWS && rows.length == count * ClaimRow.LENGTH,
            Channels_BadRows(rows.length, _MAX_ROWS)
        );

        bytes32 separator = _domainSeparatorV4();
        uint256 sum = 0;
        uint256 skipped = 0;
        uint64 accepted = 0;
        for (uint256 i = 0; i < count; ++i) {
            uint256 increase = _claimRow(separator, payee, rows, i);
            if (increase == 0) {
                skipped |= 1 << i;
            } else {
                sum += increase;
                ++accepted;
            }
        }

        earned = sum.toUint96();
        if (skipped != 0) emit RowsSkipped(payee, skipped);
        if (accepted != 0) _accrue(payee, earned, accepted);
    }

    /// @dev Returns zero for a bad row, which changes nothing. A recovered zero address is the
    /// signer of no channel.
    function _claimRow(bytes32 separator, address payee, bytes calldata rows, uint256 index)
        private
        returns (uint256 increase)
    {
        (address payer, uint96 cumulative, uint32 jobs, bytes32 root, bytes32 r, bytes32 vs) =
            ClaimRow.read(rows, index);
        bytes32 digest = ClaimRow.digest(separator, payer, payee, cumulative, jobs, root);
        (address signer,,) = ECDSA.tryRecover(digest, r, vs);
        ChannelId id = ChannelId.wrap(ClaimRow.channel(payer, payee, signer));
        Channel storage slot = _channels[id];
        (uint96 deposit, uint96 claimed) = (slot.deposit, slot.claimed);
        if (cumulative <= claimed || cumulative > deposit) return 0;

        slot.claimed = cumulative;
        slot.jobs = jobs;
        // Above `claimed`, checked.
        unchecked {
            increase = cumulative - claimed;
        }

        emit VoucherClaimed(id, payee, cumulative, jobs, root);
    }

    function _accrue(address payee, uint96 amount, uint64 rows) private {
        Account storage account = _accounts[payee];
        uint32 epoch = epochNow();
        uint96 fee = _feeRoundedUp(amount);
        (uint96 previous, uint96 current) = _buckets(account, epoch);
        (uint96 earned, uint96 fees) = (account.earned + amount, account.fee + fee);
        rows += account.rows;

        account.previous = previous;
        account.current = current + (amount - fee);
        account.epoch = epoch;
        account.earned = earned;
        account.fee = fees;
        account.rows = rows;

        emit Accrued(payee, epoch, earned, fees, rows);
    }

    function _pay(address payee, uint96 amount) private {
        Account storage account = _accounts[payee];
        uint32 epoch = epochNow();
        uint96 released = account.released + amount;
        account.released = released;
        account.releasedNow = _releasedNow(account, epoch) + amount;
        account.releaseEpoch = epoch;

        emit Released(payee, epoch, amount, released);

        _TOKEN.safeTransfer(payee, amount);
    }

    /// @dev At most `amount`, because the rate is at most a tenth.
    function _feeRoundedUp(uint96 amount) private view returns (uint96) {
        return uint96(Math.ceilDiv(uint256(amount) * _FEE_BPS, _BPS));
    }

    function _releasable(Account storage account, uint96 stake)
        private
        view
        returns (uint96 mature, uint96 allowance)
    {
        uint32 epoch = epochNow();
        (, mature) = _pending(account, epoch);
        allowance = uint96(Math.saturatingSub(stake / 2, _releasedNow(account, epoch)));
    }

    function _releasedNow(Account storage account, uint32 epoch) private view returns (uint96) {
        return account.releaseEpoch == epoch ? account.releasedNow : 0;
    }

    function _pending(Account storage account, uint32 epoch)
        private
        view
        returns (uint96 maturing, uint96 mature)
    {
        (uint96 previous, uint96 current) = _buckets(account, epoch);
        maturing = previous + current;
        mature = _unreleased(account) - maturing;
    }

    function _buckets(Account storage account, uint32 epoch)
        private
        view
        returns (uint96 previous, uint96 current)
    {
        uint32 past = epoch - account.epoch;
        if (past == 0) return (account.previous, account.current);
        if (past == 1) return (account.current, 0);
        return (0, 0);
    }

    function _unreleased(Account storage account) private view returns (uint96) {
        return account.earned - account.fee - account.released - account.forfeited;
    }
}
