"""Reverts to exceptions: the four bytes of a custom error name the class and the values it carries."""

from __future__ import annotations

from eth_abi.abi import decode as abi_decode
from eth_abi.exceptions import DecodingError

from plait.chain.abi import all_errors
from plait.chain.errors import (
    ChannelsError,
    ContractError,
    ModelRegistryError,
    NodeRegistryError,
    ReputationError,
    RequestsError,
    TokenError,
)
from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import to_hex

_CLASSES: dict[str, type[ContractError]] = {
    "Channels": ChannelsError,
    "NodeRegistry": NodeRegistryError,
    "ModelRegistry": ModelRegistryError,
    "Requests": RequestsError,
    "Reputation": ReputationError,
    "ModelNotFound": ModelRegistryError,  # ERC-7992 names it
}
ADVICE = {
    "Channels_AlreadyOpen": "the channel still holds money; top it up",
    "Channels_UnknownChannel": "open the channel first",
    "Channels_Exiting": "withdraw or close the channel, then open it again",
    "Channels_NotExiting": "start the exit first",
    "Channels_CloseTooEarly": "send it again in a later second",
    "Channels_NothingLeft": "all that was deposited is claimed",
    "Channels_ExitNotDue": "wait until exitAt (Unix seconds)",
    "Channels_NothingToRelease": "money matures in one to two epochs; each epoch pays at most half of the stake",
    "Channels_PayeeJailed": "wait until jailedUntil (Unix seconds)",
    "NodeRegistry_AlreadyRegistered": "change roles, endpoint or keys of the node instead",
    "NodeRegistry_UnknownNode": "register the node first",
    "NodeRegistry_KeyTaken": "make a new service key; a key belongs to one node for ever",
    "NodeRegistry_JailTooLong": "jail for at most the unbonding delay",
    "NodeRegistry_StakeTooSmall": "unbond at most the stake",
    "NodeRegistry_StillUnbonding": "wait until unbondedAt (Unix seconds)",
    "ModelRegistry_AlreadyPublished": "the model is on chain already; there is nothing to do",
    "Requests_GatewayNotActive": "name a staked node in the gateway role",
    "Requests_BadPrompt": "a prompt has 1 to 4,096 token ids",
    "Requests_BadTimes": "let the exclusive period last a minute or more, the deadline not before it, within an hour",
    "Requests_CallbackTooCostly": "ask for less callback gas",
    "Requests_CallerNotPayer": "send it from the account that made the request",
    "Requests_StillExclusive": "cancel after exclusiveUntil (Unix seconds); until then only the node ends the request",
    "Requests_TooLittleGas": "send it with more gas: the callback's is promised",
    "Requests_NotOpen": "the request is unknown, answered, cancelled or refunded",
    "Requests_TooLate": "the deadline has passed; the payer is refunded",
    "Requests_NotDue": "refund after the deadline (Unix seconds)",
    "Requests_CallerNotGateway": "send it with a valid service key of the named node",
    "Intake_WrongAmount": "the token takes a fee on transfer or rebases; plait needs one that delivers what is sent",
    "ERC20InsufficientBalance": "the account holds fewer tokens; send it some, or use a smaller amount",
    "ERC20InsufficientAllowance": "approve the contract for this amount first",
    "ERC3009InvalidAuthorizationTime": "carry it between validAfter and validBefore (Unix seconds), both excluded",
    "ERC3009InvalidSignature": "carry it as it was signed: parties, amount, times, salt, token and its chain",
    "ERC3009UsedAuthorization": "it was used or cancelled; the payer signs another one, with a fresh salt",
}
_TOKENS = ("ERC20", "ERC2612", "ERC3009", "Intake_", "SafeERC20")
_TEXT, _PANIC = bytes.fromhex("08c379a0"), bytes.fromhex("4e487b71")


def contract_error(data: bytes, *, message: str = "") -> ContractError:
    """Return the exception for revert data; unknown data gives a plain `ContractError` that shows it."""
    selector, body = data[:4], data[4:]
    try:
        if selector == _TEXT:
            return ContractError("Error", {"reason": abi_decode(["string"], body)[0]})
        if selector == _PANIC:
            return ContractError("Panic", {"number": abi_decode(["uint256"], body)[0]}, "this is a bug of the contract")
        if error := all_errors().get(selector):
            return _class_of(error.name)(error.name, error.decode_inputs(data), ADVICE.get(error.name, ""))
    except (DecodingError, MalformedMessageError):
        pass  # shown raw below
    return ContractError("Reverted", {"data": to_hex(data), "message": message})


def _class_of(error: str) -> type[ContractError]:
    if error.startswith(_TOKENS):
        return TokenError
    return _CLASSES.get(error.partition("_")[0], ContractError)
