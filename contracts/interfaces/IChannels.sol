// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {ChannelId} from "../types/Ids.sol";

/// @title IChannels
/// @notice Keeps payment channels in one token: a payer deposits, a session key signs cumulative
/// vouchers, the payee claims them in batches, claimed money is pending for one to two epochs.
/// @dev Trust assumptions on the token: no rebasing, a failed transfer reverts or returns false, all
/// amounts that ever flow to one payee fit 96 bits. A token that takes a fee on transfer or delivers
/// less for another reason is refused (`Intake_WrongAmount`); one that begins to later, or that can
/// pause or block accounts, can hold back what is in here, and nothing here helps against it. A
/// token that calls back is harmless: every function settles its books before tokens move.
/// Nobody owns this contract; the arbiter may forfeit pending money, nothing else.
interface IChannels {
    /// @notice One channel: one storage slot.
    /// @param deposit Base units ever put in, less what was withdrawn; never below `claimed`.
    /// @param claimed Base units ever claimed; never falls, not even when the channel closes.
    /// @param exitAt Unix seconds from which the payer may withdraw, zero while no exit runs.
    /// @param jobs Jobs the last claimed voucher stands for.
    struct Channel {
        uint96 deposit;
        uint96 claimed;
        uint32 exitAt;
        uint32 jobs;
    }

    /// @notice What one payee earned and where it is; totals only grow.
    /// @dev Unreleased money is `earned - fee - released - forfeited`; of it `previous + current`
    /// is not mature yet. The buckets are as of `epoch`, the last epoch in which money came in.
    /// @param previous Net base units that came in during `epoch - 1`.
    /// @param current Net base units that came in during `epoch`.
    /// @param epoch Number of the epoch the buckets are as of.
    /// @param earned Base units ever claimed or credited, fee included.
    /// @param fee Base units of that which are destroyed, burned already or owed.
    /// @param rows Claim rows ever accepted, credits included.
    /// @param released Base units ever paid out.
    /// @param releasedNow Base units paid out during `releaseEpoch`.
    /// @param releaseEpoch Number of the epoch of the last payout.
    /// @param forfeited Base units ever forfeited.
    /// @param burned Base units of `fee` that were sent to the burn address.
    struct Account {
        uint96 previous;
        uint96 current;
        uint32 epoch;
        uint96 earned;
        uint96 fee;
        uint64 rows;
        uint96 released;
        uint96 releasedNow;
        uint32 releaseEpoch;
        uint96 forfeited;
        uint96 burned;
    }

    /// @notice A payer's ERC-2612 permit of exactly the amount to this contract.
    /// @param deadline Unix seconds.
    struct Permit {
        uint256 deadline;
        uint8 v;
        bytes32 r;
        bytes32 s;
    }

    /// @notice A payer's EIP-3009 `ReceiveWithAuthorization` of exactly the amount to this contract,
    /// whose nonce is `authorizationNonce(channel, salt)`.
    /// @param validAfter Unix seconds.
    /// @param validBefore Unix seconds.
    /// @param salt What makes the nonce of this authorization a fresh one.
    struct Authorization {
        uint256 validAfter;
        uint256 validBefore;
        bytes32 salt;
        uint8 v;
        bytes32 r;
        bytes32 s;
    }

    /// @notice A channel is opened, for the first time or again; its deposit becomes `deposit`.
    /// @param id The channel.
    /// @param payer Who pays.
    /// @param payee The node's owner, who is paid.
    /// @param signer The session key whose signature spends the channel.
    /// @param amount Base units put in now.
    /// @param deposit Base units in the channel, claimed ones included.
    event ChannelOpened(
        ChannelId indexed id,
        address indexed payer,
        address indexed payee,
        address signer,
        uint96 amount,
        uint96 deposit
    );
    /// @notice A channel is topped up; its deposit becomes `deposit`.
    /// @param id The channel.
    /// @param payer Who pays.
    /// @param amount Base units put in now.
    /// @param deposit Base units in the channel, claimed ones included.
    event ChannelToppedUp(
        ChannelId indexed id, address indexed payer, uint96 amount, uint96 deposit
    );
    /// @notice A voucher is claimed; the channel's claimed total and jobs become these values.
    /// @param id The channel.
    /// @param payee The node's owner, who is paid.
    /// @param cumulative Base units signed for on this channel so far.
    /// @param jobs Jobs the voucher stands for.
    /// @param receiptsRoot Root over the leaves of those jobs.
    event VoucherClaimed(
        ChannelId indexed id,
        address indexed payee,
        uint96 cumulative,
        uint32 jobs,
        bytes32 receiptsRoot
    );
    /// @notice Rows of one claim were bad and changed nothing; bit i stands for row i.
    /// @param payee The node's owner, who is paid.
    /// @param bitmap Bit i stands for row i.
    event RowsSkipped(address indexed payee, uint256 bitmap);
    /// @notice Claims or an on-chain request brought a payee money during `epoch`; its totals become
    /// these values.
    /// @param payee The node's owner, who is paid.
    /// @param epoch Number of the epoch: Unix seconds over its length.
    /// @param earned Base units ever claimed or credited, fee included.
    /// @param fee Base units of that which are destroyed or will be.
    /// @param rows Claim rows ever accepted, credits included.
    event Accrued(
        address indexed payee, uint32 indexed epoch, uint96 earned, uint96 fee, uint64 rows
    );
    /// @notice A payer starts to leave; it may withdraw from `exitAt` on.
    /// @param id The channel.
    /// @param payer Who pays.
    /// @param exitAt Unix seconds from which the payer may withdraw.
    event ExitStarted(ChannelId indexed id, address indexed payer, uint32 exitAt);
    /// @notice A payer takes `amount` out after its exit; the deposit becomes what is claimed.
    /// @param id The channel.
    /// @param payer Who pays.
    /// @param amount Base units paid back.
    event ChannelWithdrawn(ChannelId indexed id, address indexed payer, uint96 amount);
    /// @notice Payee and payer agree to end a channel; the deposit becomes what is claimed.
    /// @param id The channel.
    /// @param payer Who pays.
    /// @param amount Base units paid back.
    event ChannelClosed(ChannelId indexed id, address indexed payer, uint96 amount);
    /// @notice Pending money is paid out; `released` is the total so far.
    /// @param payee The node's owner, who is paid.
    /// @param epoch Number of the epoch: Unix seconds over its length.
    /// @param amount Base units paid now.
    /// @param released Base units ever paid out.
    event Released(address indexed payee, uint32 indexed epoch, uint96 amount, uint96 released);
    /// @notice Fees leave for the burn address; `burned` is the total so far.
    /// @param payee The node's owner, who is paid.
    /// @param amount Base units burned now.
    /// @param burned Base units ever burned.
    event FeeBurned(address indexed payee, uint96 amount, uint96 burned);
    /// @notice The arbiter takes all that a payee has not been paid; `forfeited` is the total.
    /// @param payee The node's owner, who is paid.
    /// @param amount Base units forfeited now.
    /// @param forfeited Base units ever forfeited.
    event Forfeited(address indexed payee, uint96 amount, uint96 forfeited);

    /// @notice A contract this one depends on has the zero address.
    error Channels_AddressZero();
    /// @notice An epoch lasts at least a second.
    error Channels_EpochZero();
    /// @notice The fee is above `max` hundredths of a percent.
    error Channels_FeeTooHigh(uint16 feeBps, uint16 max);
    /// @notice The exit delay is zero or above `max` seconds.
    error Channels_BadExitDelay(uint32 exitDelay, uint32 max);
    /// @notice The node registry names another `Channels`; an address was predicted wrongly.
    error Channels_RegistryNamesOther(address channels);
    /// @notice Unbonding is shorter than two epochs, so stake could leave before pending money.
    error Channels_UnbondingTooShort(uint64 unbondingDelay, uint32 epochLength);
    /// @notice The node registry has another stake token or another arbiter.
    error Channels_RegistryDiffers(address token, address arbiter);
    /// @notice A channel is not closed in the very second of its exit.
    error Channels_CloseTooEarly(ChannelId id, uint32 exitAt);
    /// @notice The payee or the signer is zero.
    error Channels_BadParty(address payee, address signer);
    /// @notice The amount is zero.
    error Channels_AmountZero();
    /// @notice The deposit would not fit 96 bits.
    error Channels_DepositTooLarge(ChannelId id, uint96 deposit, uint96 amount);
    /// @notice The channel still holds money; it is topped up, not opened.
    error Channels_AlreadyOpen(ChannelId id);
    /// @notice No money was ever put into this channel, or none of it was ever claimed and all of it left.
    error Channels_UnknownChannel(ChannelId id);
    /// @notice An exit runs; the channel is withdrawn or closed before money is added.
    error Channels_Exiting(ChannelId id, uint32 exitAt);
    /// @notice No exit runs.
    error Channels_NotExiting(ChannelId id);
    /// @notice All that was put into this channel is claimed.
    error Channels_NothingLeft(ChannelId id);
    /// @notice The payer may withdraw from `exitAt` on.
    error Channels_ExitNotDue(ChannelId id, uint32 exitAt);
    /// @notice The rows are no whole number between 1 and `max` of 132-byte rows.
    error Channels_BadRows(uint256 length, uint256 max);
    /// @notice The close was not signed by a valid service key of the payee over exactly this state.
    error Channels_BadClose(ChannelId id, uint96 claimed, uint32 exitAt, address recovered);
    /// @notice Nothing of the payee's money is mature, or its stake allows no more this epoch.
    error Channels_NothingToRelease(address payee, uint96 mature, uint96 allowance);
    /// @notice The payee is jailed; its money stays until then.
    error Channels_PayeeJailed(address payee, uint64 jailedUntil);
    /// @notice All fees of this payee are burned.
    error Channels_NothingToBurn(address payee);
    /// @notice All of the payee's money was paid out or forfeited.
    error Channels_NothingPending(address payee);
    /// @notice Only the arbiter may forfeit.
    error Channels_CallerNotArbiter(address caller);
    /// @notice Only `Requests` may credit.
    error Channels_CallerNotRequests(address caller);

    /// @notice Opens a channel from the caller to a payee, or opens it again once all is spent and no
    /// exit runs.
    /// @dev Warning: vouchers signed earlier under the same key count against the new deposit as
    /// far as they exceed what is claimed. A payer who fears them uses a fresh signer.
    /// @param payee The node's owner who will be paid.
    /// @param signer The session key whose signature spends the channel; never zero.
    /// @param amount Base units, approved for this contract beforehand.
    /// @return id The channel.
    function open(address payee, address signer, uint96 amount) external returns (ChannelId id);

    /// @notice Opens a channel as `open` does, with a permit in place of an allowance.
    /// @dev A permit that somebody else used before, or that the token refuses, is passed over; what
    /// counts is the allowance. Warning: a permit replaces the allowance that was there, and the
    /// deposit uses it up. Accounts that are contracts use `open`.
    /// @param payee The payee.
    /// @param signer The session key.
    /// @param amount Base units, exactly what the permit names.
    /// @param permit The caller's permit.
    /// @return id The channel.
    function openWithPermit(address payee, address signer, uint96 amount, Permit calldata permit)
        external
        returns (ChannelId id);

    /// @notice Opens a channel of `payer` as `open` does; anyone may carry the authorization here.
    /// @dev The authorization's nonce binds the money to this one channel. Warning: whoever carries it
    /// chooses when, and whether it opens or tops up; give it a short life.
    /// @param payer Who signed the authorization and owns the channel.
    /// @param payee The payee.
    /// @param signer The session key.
    /// @param amount Base units, exactly what the authorization names.
    /// @param authorization The payer's authorization.
    /// @return id The channel.
    function openWithAuthorization(
        address payer,
        address payee,
        address signer,
        uint96 amount,
        Authorization calldata authorization
    ) external returns (ChannelId id);

    /// @notice Adds to one of the caller's channels while no exit runs.
    /// @dev Warning: as with `open`, vouchers signed earlier count as far as they exceed what is claimed.
    /// @param payee The payee.
    /// @param signer The session key.
    /// @param amount Base units, approved for this contract beforehand.
    function topUp(address payee, address signer, uint96 amount) external;

    /// @notice Adds to one of the caller's channels as `topUp` does, with a permit in place of an
    /// allowance.
    /// @param payee The payee.
    /// @param signer The session key.
    /// @param amount Base units, exactly what the permit names.
    /// @param permit The caller's permit.
    function topUpWithPermit(address payee, address signer, uint96 amount, Permit calldata permit)
        external;

    /// @notice Adds to a channel of `payer` as `topUp` does; anyone may carry the authorization here.
    /// @dev Warning: an authorization that a channel cannot take now, because an exit runs, can be
    /// carried here until it expires; give it a short life.
    /// @param payer Who signed the authorization and owns the channel.
    /// @param payee The payee.
    /// @param signer The session key.
    /// @param amount Base units, exactly what the authorization names.
    /// @param authorization The payer's authorization.
    function topUpWithAuthorization(
        address payer,
        address payee,
        address signer,
        uint96 amount,
        Authorization calldata authorization
    ) external;

    /// @notice Claims vouchers of many channels of one payee; anyone may call.
    /// @dev A row is payer 20 · cumulative 12 · jobs 4 · receiptsRoot 32 · r 32 · vs 32 bytes. The
    /// signer is recovered from it. A row of an unknown channel, or whose cumulative is not above
    /// what is claimed or is above the deposit, is skipped and reported in `RowsSkipped`.
    /// The fee is rounded up once per call, over the sum of all rows: whoever claims rows one by one
    /// makes the payee lose up to one base unit each, so the token should have six decimals or more.
    /// @param payee The payee of all rows.
    /// @param rows 1 to 256 rows.
    /// @return earned Base units by which the claimed totals grew, fee included.
    function claim(address payee, bytes calldata rows) external returns (uint96 earned);

    /// @notice Claims as `claim` does and then pays out what is mature and allowed, if anything;
    /// anyone may call.
    /// @dev Unlike a release of its own, nothing to pay or a jail stops nothing here.
    /// @param payee The payee of all rows.
    /// @param rows 1 to 256 rows.
    /// @return earned Base units by which the claimed totals grew, fee included.
    /// @return paid Base units paid out.
    function collect(address payee, bytes calldata rows)
        external
        returns (uint96 earned, uint96 paid);

    /// @notice Starts the caller's exit from a channel; its time never moves.
    /// @param payee The payee.
    /// @param signer The session key.
    function exit(address payee, address signer) external;

    /// @notice Pays the caller what is left in a channel once its exit is due.
    /// @param payee The payee.
    /// @param signer The session key.
    function withdraw(address payee, address signer) external;

    /// @notice Pays the payer what is left at once, with the payee's consent; anyone may call.
    /// @dev The payee's service key signs `Close` over the slot as it stands: a claim in between,
    /// or another exit, voids the consent; no close happens in the exit's own second, so a later exit
    /// always ends later. Warning: a payee that consented accepts no voucher on this channel until it
    /// was closed and topped up; a close voids no voucher, see `open`. Any valid service key of the
    /// payee consents, so a stolen one can give away what is not claimed yet.
    /// @param payer The payer, who is paid.
    /// @param payee The payee.
    /// @param signer The session key.
    /// @param r First word of the payee's signature.
    /// @param vs Second word of the payee's signature.
    function close(address payer, address payee, address signer, bytes32 r, bytes32 vs) external;

    /// @notice Adds money of a fulfilled on-chain request to a payee's pending money.
    /// @dev Only `Requests` calls, right after it has sent the money; pulling it would cost every
    /// request 2,300 gas more. `Requests` never changes, and an invariant holds it to this.
    /// @param payee The payee.
    /// @param amount Base units, fee included.
    function credit(address payee, uint96 amount) external;

    /// @notice Pays a payee what is mature, at most half of its stake per epoch; anyone may call.
    /// @param payee The payee.
    /// @return amount Base units paid.
    function release(address payee) external returns (uint96 amount);

    /// @notice Sends a payee's fees to the burn address; anyone may call.
    /// @param payee The payee.
    /// @return amount Base units burned.
    function burn(address payee) external returns (uint96 amount);

    /// @notice Moves all that a payee has not been paid to the arbiter.
    /// @param payee The payee.
    /// @return amount Base units moved.
    function forfeit(address payee) external returns (uint96 amount);

    /// @notice Returns the id of a channel, opened or not.
    /// @param payer Who pays.
    /// @param payee The node's owner, who is paid.
    /// @param signer The session key whose signature spends the channel.
    function channelId(address payer, address payee, address signer)
        external
        pure
        returns (ChannelId);

    /// @notice Returns the nonce of an EIP-3009 authorization that puts money into a channel.
    /// @param id The channel.
    /// @param salt Chosen by the payer, so that each authorization is used once.
    function authorizationNonce(ChannelId id, bytes32 salt) external pure returns (bytes32);

    /// @notice Returns a channel; all fields are zero for an unknown one.
    /// @param id The channel.
    function channel(ChannelId id) external view returns (Channel memory);

    /// @notice Returns a payee's account as stored.
    /// @param payee The node's owner, who is paid.
    function accountOf(address payee) external view returns (Account memory);

    /// @notice Returns what a payee has not been paid, as of now.
    /// @param payee The node's owner, who is paid.
    /// @return maturing Base units not mature yet.
    /// @return mature Base units that `release` may pay as far as the stake allows.
    function pendingOf(address payee) external view returns (uint96 maturing, uint96 mature);

    /// @notice Returns the digest that a session key signs for a voucher.
    /// @param payer Who pays.
    /// @param payee The node's owner, who is paid.
    /// @param cumulative Base units signed for on this channel so far.
    /// @param jobs Jobs the voucher stands for.
    /// @param receiptsRoot Root over the leaves of those jobs.
    function voucherDigest(
        address payer,
        address payee,
        uint96 cumulative,
        uint32 jobs,
        bytes32 receiptsRoot
    ) external view returns (bytes32);

    /// @notice Returns the digest that a payee's service key signs for a close.
    /// @param payer Who pays.
    /// @param payee The node's owner, who is paid.
    /// @param signer The session key whose signature spends the channel.
    /// @param claimed Base units claimed on this channel so far.
    /// @param exitAt Unix seconds from which the payer may withdraw.
    function closeDigest(
        address payer,
        address payee,
        address signer,
        uint96 claimed,
        uint32 exitAt
    ) external view returns (bytes32);

    /// @notice Returns the EIP-712 domain separator of everything that plait signs.
    function domainSeparator() external view returns (bytes32);

    /// @notice Returns the number of the running epoch: Unix seconds over the epoch's length.
    function epochNow() external view returns (uint32);

    /// @notice Returns the token.
    function token() external view returns (address);

    /// @notice Returns the node registry.
    function nodes() external view returns (address);

    /// @notice Returns the contract that may credit.
    function requests() external view returns (address);

    /// @notice Returns the contract that may forfeit, zero for none.
    function arbiter() external view returns (address);

    /// @notice Returns the length of an epoch, in seconds.
    function epochLength() external view returns (uint32);

    /// @notice Returns the fee in hundredths of a percent of each increase.
    function feeBps() external view returns (uint16);

    /// @notice Returns how long an exit takes, in seconds.
    function exitDelay() external view returns (uint32);
}
