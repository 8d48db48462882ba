"""Deposits by signature: ERC-2612 permits, EIP-3009 authorizations. Nothing here talks to a chain.

Both are EIP-712 messages in the token's domain, not in plait's; `ChainReader.token_separator` reads its separator.
Sources: https://eips.ethereum.org/EIPS/eip-2612 and https://eips.ethereum.org/EIPS/eip-3009.
"""

from __future__ import annotations

from dataclasses import dataclass

from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import Address, Hash, Signature, address, authorization_nonce, channel_id, hash32, keccak
from plait.protocol.typed import Key

PERMIT_LIFE_S = 3_600  # long enough for a transaction that waits for cheaper gas; a permit is used up by its deposit

_PERMIT = keccak(b"Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)")
_RECEIVE = keccak(
    b"ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,"
    b"bytes32 nonce)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """A signed ERC-2612 permit as `Channels` takes it; `deadline` in Unix seconds."""

    deadline: int
    signature: Signature

    def encodable(self) -> tuple[object, ...]:
        """Return the fields as the contract's struct has them."""
        return (self.deadline, *_parts(self.signature))


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """A payer's EIP-3009 authorization that fits one channel; whoever has it may carry it to `Channels`, once.

    It opens the channel or tops it up, as its carrier chooses, and moves the money nowhere else. `amount` in base
    units, times in Unix seconds: the token takes it after `valid_after` and before `valid_before`, both excluded.
    Raise `MalformedMessageError` when it is made of anything that does not fit.
    """

    payer: Address
    payee: Address
    signer: Address
    amount: int
    valid_after: int
    valid_before: int
    salt: Hash
    signature: Signature

    def __post_init__(self) -> None:
        for party in (self.payer, self.payee, self.signer):
            address(party)
        hash32(self.salt)
        _check_amount(self.amount)
        if not 0 <= self.valid_after < self.valid_before < 1 << 256:
            raise MalformedMessageError("an authorization is valid after one time and before a later one")
        if len(self.signature) != 64:
            raise MalformedMessageError("a signature has 64 bytes (EIP-2098)")

    @property
    def channel(self) -> Hash:
        """Return the id of the channel that the money can go into."""
        return channel_id(self.payer, self.payee, self.signer)

    @property
    def nonce(self) -> Hash:
        """Return the token's nonce of it, for `authorizationState` and `cancelAuthorization`."""
        return authorization_nonce(self.channel, self.salt)

    def encodable(self) -> tuple[object, ...]:
        """Return the fields as the contract's struct has them."""
        return (self.valid_after, self.valid_before, self.salt, *_parts(self.signature))


def permit_digest(
    token_separator: Hash, *, owner: Address, spender: Address, amount: int, nonce: int, deadline: int
) -> Hash:
    """Return the EIP-712 digest of an ERC-2612 permit.

    `amount` in base units, `deadline` in Unix seconds. Raise `MalformedMessageError` when something does not fit.
    """
    return _digest(
        token_separator, _PERMIT, _party(owner), _party(spender), _uint(amount), _uint(nonce), _uint(deadline)
    )


def sign_permit(key: Key, token_separator: Hash, *, spender: Address, amount: int, nonce: int, deadline: int) -> Permit:
    """Allow `spender` exactly `amount` base units of the key's account until `deadline` (Unix seconds).

    `nonce` is the token's count of the account's permits (`ChainReader.permit_nonce`); the same nonce never serves
    twice. A permit replaces the allowance that was there. Raise `MalformedMessageError` when something does not fit.
    Source: ERC-2612.
    """
    _check_amount(amount)
    hashed = permit_digest(
        token_separator, owner=key.address, spender=spender, amount=amount, nonce=nonce, deadline=deadline
    )
    return Permit(deadline=deadline, signature=key.sign_digest(hashed))


def authorization_digest(
    token_separator: Hash,
    *,
    payer: Address,
    channels: Address,
    amount: int,
    valid_after: int,
    valid_before: int,
    nonce: Hash,
) -> Hash:
    """Return the EIP-712 digest of an EIP-3009 `ReceiveWithAuthorization` from `payer` to the contract `channels`.

    `amount` in base units, times in Unix seconds. Raise `MalformedMessageError` when something does not fit.
    """
    times = (_uint(valid_after), _uint(valid_before))
    return _digest(token_separator, _RECEIVE, _party(payer), _party(channels), _uint(amount), *times, hash32(nonce))


def sign_authorization(
    key: Key,
    token_separator: Hash,
    *,
    channels: Address,
    payee: Address,
    signer: Address,
    amount: int,
    valid_before: int,
    salt: Hash,
    valid_after: int = 0,
) -> Authorization:
    """Let anyone put `amount` base units of the key's account into its channel with `payee` under `signer`.

    The key needs no coin for gas: `ChainWriter.open_channel_for` and `top_up_for` carry it with another key.
    `channels` is the deployment's `Channels`; `salt` is a fresh one each time (`plait.protocol.typed.random_hash`).
    The token takes it after `valid_after` and before `valid_before` (Unix seconds, both excluded). Give it a short
    life: a carrier may hold it back until it ends, and only the token's `cancelAuthorization` ends it sooner. Raise
    `MalformedMessageError` when something does not fit. Source: EIP-3009.
    """
    hashed = authorization_digest(
        token_separator,
        payer=key.address,
        channels=channels,
        amount=amount,
        valid_after=valid_after,
        valid_before=valid_before,
        nonce=authorization_nonce(channel_id(key.address, payee, signer), salt),
    )
    return Authorization(
        payer=key.address,
        payee=payee,
        signer=signer,
        amount=amount,
        valid_after=valid_after,
        valid_before=valid_before,
        salt=salt,
        signature=key.sign_digest(hashed),
    )


def _digest(token_separator: Hash, *words: bytes) -> Hash:
    return keccak(b"\x19\x01", hash32(token_separator), keccak(*words))


def _party(party: Address) -> bytes:
    return bytes(12) + address(party)


def _uint(value: int) -> bytes:
    if not 0 <= value < 1 << 256:
        raise MalformedMessageError(f"{value} does not fit 256 bits without a sign")
    return value.to_bytes(32, "big")


def _check_amount(amount: int) -> None:
    if not 0 < amount < 1 << 96:
        raise MalformedMessageError("a deposit is above 0 and fits 96 bits (base units)")


def _parts(signature: Signature) -> tuple[int, bytes, bytes]:
    """Return v, r and s: tokens take the older form of a signature."""
    vs = int.from_bytes(signature[32:], "big")
    return 27 + (vs >> 255), signature[:32], (vs & ((1 << 255) - 1)).to_bytes(32, "big")
