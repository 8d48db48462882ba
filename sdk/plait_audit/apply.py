"""One function per event: what it changes, and what would be wrong with it. Pure; nothing here asks a chain."""

from __future__ import annotations

from plait.protocol.ids import channel_id, to_hex
from plait_audit.entry import Entry, Rule, account_of, expect, find, nothing
from plait_audit.requests import callback_failed, fulfilled, given_back, prompt_published, requested
from plait_audit.state import TOKEN, Account, Channel, Model, Node, ServiceKey, State

_BPS = 10_000


def apply(state: State, entry: Entry) -> None:
    """Change the state by one event; what does not fit is added to `state.findings`."""
    rule = RULES.get((entry.contract, entry.name))
    if rule is None and entry.contract == TOKEN:
        return  # an ERC-20 may have events of its own; its transfers are all that counts here
    if rule is None:
        find(state, "known-events", entry, f"{entry.contract} emitted an event that its interface does not know")
        return
    rule(state, entry)


# channels


def _channel(state: State, entry: Entry) -> Channel | None:
    found = state.channels.get(entry.values["id"])
    if found is None:
        find(state, "channels-known", entry, f"{entry.name} of a channel that was never opened")
    else:
        found.place = entry.place
    return found


def _opened(state: State, entry: Entry) -> None:
    values = entry.values
    payer, payee, signer = values["payer"], values["payee"], values["signer"]
    if channel_id(payer, payee, signer) != values["id"]:
        find(state, "channel-id", entry, f"channel {to_hex(values['id'])} is not the hash of its parties")
    fresh = Channel(payer=payer, payee=payee, signer=signer, place=entry.place)
    channel = state.channels.setdefault(values["id"], fresh)
    _deposit(state, entry, channel)


def _topped_up(state: State, entry: Entry) -> None:
    channel = _channel(state, entry)
    if channel:
        _deposit(state, entry, channel)


def _deposit(state: State, entry: Entry, channel: Channel) -> None:
    channel.place = entry.place
    channel.deposit += entry.values["amount"]
    if channel.exit_at:
        find(state, "channel-transitions", entry, "money was added while an exit ran")
    expect(state, "deposits", entry, "deposit", logged=entry.values["deposit"], rebuilt=channel.deposit)


def _claimed(state: State, entry: Entry) -> None:
    channel = _channel(state, entry)
    if channel is None:
        return
    cumulative, jobs = entry.values["cumulative"], entry.values["jobs"]
    if cumulative <= channel.claimed:
        find(state, "vouchers-only-grow", entry, f"claimed {cumulative} after {channel.claimed}: paid twice")
    if cumulative > channel.deposit:
        find(state, "claims-within-deposit", entry, f"claimed {cumulative} of a deposit of {channel.deposit}")
    if channel.payee != entry.values["payee"]:
        find(state, "claims-to-payee", entry, f"claimed for {to_hex(entry.values['payee'])}, not the channel's payee")
    account_of(state, channel.payee, entry).unaccrued += cumulative - channel.claimed
    channel.claimed, channel.jobs, channel.root = cumulative, jobs, entry.values["receiptsRoot"]


def _exit_started(state: State, entry: Entry) -> None:
    channel = _channel(state, entry)
    if channel:
        if channel.exit_at:
            find(state, "channel-transitions", entry, "an exit began while another ran")
        channel.exit_at = entry.values["exitAt"]


def _ended(state: State, entry: Entry) -> None:
    channel = _channel(state, entry)
    if channel is None:
        return
    if not channel.exit_at:
        find(state, "channel-transitions", entry, "a channel ended without an exit")
    if entry.name == "ChannelWithdrawn" and entry.time < channel.exit_at:
        find(state, "channel-transitions", entry, f"withdrawn at {entry.time}, before the exit ended")
    rest = channel.deposit - channel.claimed
    expect(state, "deposits", entry, "money returned", logged=entry.values["amount"], rebuilt=rest)
    channel.deposit, channel.exit_at = channel.claimed, 0


def _accrued(state: State, entry: Entry) -> None:
    values = entry.values
    account, epoch = account_of(state, values["payee"], entry), values["epoch"]
    amount = account.unaccrued
    fee = -(-amount * state.fee_bps // _BPS)
    expect(state, "earnings", entry, "earned", logged=values["earned"], rebuilt=account.earned + amount)
    expect(state, "fees", entry, "fee", logged=values["fee"], rebuilt=account.fee + fee)
    expect(state, "epochs", entry, "epoch", logged=epoch, rebuilt=entry.time // state.epoch_length)
    past = epoch - account.epoch
    previous, current = {0: (account.previous, account.current), 1: (account.current, 0)}.get(past, (0, 0))
    account.previous, account.current, account.epoch = previous, current + amount - fee, epoch
    account.earned, account.fee, account.unaccrued = account.earned + amount, account.fee + fee, 0
    account.rows = values["rows"]


def _released(state: State, entry: Entry) -> None:
    account, amount, epoch = (
        account_of(state, entry.values["payee"], entry),
        entry.values["amount"],
        entry.values["epoch"],
    )
    account.released += amount
    account.released_now = amount + (account.released_now if account.release_epoch == epoch else 0)
    account.release_epoch = epoch
    expect(state, "releases", entry, "released", logged=entry.values["released"], rebuilt=account.released)
    _release_within_rules(state, entry, account)


def _release_within_rules(state: State, entry: Entry, account: Account) -> None:
    past = entry.values["epoch"] - account.epoch
    maturing = {0: account.previous + account.current, 1: account.current}.get(past, 0)
    if account.earned - account.fee - account.released - account.forfeited < maturing:
        find(state, "releases-mature", entry, "money was released before it matured")
    node = state.nodes.get(entry.values["payee"])
    stake = node.stake if node else 0
    if account.released_now > stake // 2:
        text = f"{account.released_now} released in one epoch with a stake of {stake}: more than half of it"
        find(state, "releases-within-stake", entry, text)


def _burned(state: State, entry: Entry) -> None:
    account = account_of(state, entry.values["payee"], entry)
    account.burned += entry.values["amount"]
    expect(state, "fees", entry, "burned", logged=entry.values["burned"], rebuilt=account.burned)
    if account.burned > account.fee:
        find(state, "fees", entry, f"burned {account.burned} of {account.fee}")


def _forfeited(state: State, entry: Entry) -> None:
    account = account_of(state, entry.values["payee"], entry)
    account.forfeited += entry.values["amount"]
    account.previous = account.current = 0
    expect(state, "forfeits", entry, "forfeited", logged=entry.values["forfeited"], rebuilt=account.forfeited)


# nodes


def _node(state: State, entry: Entry) -> Node | None:
    found = state.nodes.get(entry.values["owner"])
    if found is None:
        find(state, "nodes-known", entry, f"{entry.name} of a node that never registered")
    else:
        found.place = entry.place
    return found


def _registered(state: State, entry: Entry) -> None:
    values = entry.values
    if values["owner"] in state.nodes:
        find(state, "nodes-known", entry, "a node registered twice")
    node = Node(place=entry.place, roles=values["roles"], endpoint=values["endpoint"], dht_key=values["dhtKey"])
    state.nodes[values["owner"]] = node


def _set(field: str, value: str) -> Rule:
    def rule(state: State, entry: Entry) -> None:
        node = _node(state, entry)
        if node:
            setattr(node, field, entry.values[value])

    return rule


def _staked(state: State, entry: Entry) -> None:
    node = _node(state, entry)
    if node:
        node.stake += entry.values["amount"]
        expect(state, "stakes", entry, "stake", logged=entry.values["stake"], rebuilt=node.stake)


def _unbonded(state: State, entry: Entry) -> None:
    node, values = _node(state, entry), entry.values
    if node:
        node.stake -= values["amount"]
        node.unbonding += values["amount"]
        node.unbonded_at = values["unbondedAt"]
        expect(state, "stakes", entry, "stake", logged=values["stake"], rebuilt=node.stake)
        expect(state, "stakes", entry, "unbonding", logged=values["unbonding"], rebuilt=node.unbonding)


def _stake_withdrawn(state: State, entry: Entry) -> None:
    node = _node(state, entry)
    if node:
        expect(state, "stakes", entry, "withdrawn", logged=entry.values["amount"], rebuilt=node.unbonding)
        if entry.time < node.unbonded_at:
            find(state, "stakes", entry, "stake left before its unbonding ended")
        node.unbonding = node.unbonded_at = 0


def _slashed(state: State, entry: Entry) -> None:
    node, values = _node(state, entry), entry.values
    if node:
        taken = node.stake + node.unbonding - values["stake"] - values["unbonding"]
        expect(state, "stakes", entry, "slashed", logged=values["amount"], rebuilt=taken)
        node.stake, node.unbonding = values["stake"], values["unbonding"]
        node.verdicts += 1
        expect(state, "verdicts", entry, "verdicts", logged=values["verdicts"], rebuilt=node.verdicts)


def _jailed(state: State, entry: Entry) -> None:
    node, until = _node(state, entry), entry.values["jailedUntil"]
    if node:
        latest = entry.time + state.unbonding_delay
        if until > latest:
            find(state, "jails", entry, f"jailed until {until}, {until - latest} s longer than the unbonding delay")
        node.jailed_until = until


def _key_added(state: State, entry: Entry) -> None:
    key, owner = entry.values["key"], entry.values["owner"]
    if key in state.keys:
        find(state, "keys-for-ever", entry, f"service key {to_hex(key)} was given a second owner")
    fresh = ServiceKey(owner=owner, valid_from=entry.values["validFrom"], revoked_at=0, place=entry.place)
    state.keys.setdefault(key, fresh)


def _key_revoked(state: State, entry: Entry) -> None:
    key = state.keys.get(entry.values["key"])
    if key is None or key.owner != entry.values["owner"] or key.revoked_at:
        find(state, "keys-for-ever", entry, "a key was revoked that its node did not hold")
    else:
        key.revoked_at, key.place = entry.values["revokedAt"], entry.place


# models, token


def _published(state: State, entry: Entry) -> None:
    values = entry.values
    if values["model"] in state.models:
        find(state, "models-immutable", entry, f"model {to_hex(values['model'])} was published twice")
        return
    state.models[values["model"]] = Model(
        place=entry.place,
        publisher=values["publisher"],
        blocks=values["blocks"],
        profiles=tuple(values["profiles"]),
        uri=values["uri"],
    )


def _calibrated(state: State, entry: Entry) -> None:
    values = entry.values
    model = state.models.get(values["model"])
    if model is None or values["profile"] not in model.profiles:
        find(state, "models-immutable", entry, "a calibration of an unknown model or profile")
        return
    known = model.calibrations.setdefault(values["profile"], [])
    expect(state, "models-immutable", entry, "calibration's index", logged=values["index"], rebuilt=len(known))
    known.append(values["calibration"])


def _transferred(state: State, entry: Entry) -> None:
    sender, receiver, amount = (entry.values[name] for name in ("from", "to", "value"))
    for holder, change in ((sender, -amount), (receiver, amount)):
        if holder in state.holders:
            state.balances[holder] = state.balances.get(holder, 0) + change
            if state.balances[holder] < 0:
                find(state, "token", entry, f"{to_hex(holder)} spent tokens it did not have")


RULES: dict[tuple[str, str], Rule] = {
    ("Channels", "ChannelOpened"): _opened,
    ("Channels", "ChannelToppedUp"): _topped_up,
    ("Channels", "VoucherClaimed"): _claimed,
    ("Channels", "ExitStarted"): _exit_started,
    ("Channels", "ChannelWithdrawn"): _ended,
    ("Channels", "ChannelClosed"): _ended,
    ("Channels", "Accrued"): _accrued,
    ("Channels", "Released"): _released,
    ("Channels", "FeeBurned"): _burned,
    ("Channels", "Forfeited"): _forfeited,
    ("Channels", "RowsSkipped"): nothing,
    ("Channels", "EIP712DomainChanged"): nothing,
    ("NodeRegistry", "NodeRegistered"): _registered,
    ("NodeRegistry", "RolesSet"): _set("roles", "roles"),
    ("NodeRegistry", "EndpointSet"): _set("endpoint", "endpoint"),
    ("NodeRegistry", "DhtKeySet"): _set("dht_key", "dhtKey"),
    ("NodeRegistry", "NodeJailed"): _jailed,
    ("NodeRegistry", "Staked"): _staked,
    ("NodeRegistry", "Unbonded"): _unbonded,
    ("NodeRegistry", "StakeWithdrawn"): _stake_withdrawn,
    ("NodeRegistry", "NodeSlashed"): _slashed,
    ("NodeRegistry", "ServiceKeyAdded"): _key_added,
    ("NodeRegistry", "ServiceKeyRevoked"): _key_revoked,
    ("ModelRegistry", "ModelPublished"): _published,
    ("ModelRegistry", "CalibrationAdded"): _calibrated,
    ("Requests", "Requested"): requested,
    ("Requests", "PromptPublished"): prompt_published,
    ("Requests", "Fulfilled"): fulfilled,
    ("Requests", "Cancelled"): given_back,
    ("Requests", "Refunded"): given_back,
    ("Requests", "CallbackFailed"): callback_failed,
    (TOKEN, "Transfer"): _transferred,
    (TOKEN, "Approval"): nothing,
    (TOKEN, "AuthorizationCanceled"): nothing,
    (TOKEN, "AuthorizationUsed"): nothing,
    (TOKEN, "EIP712DomainChanged"): nothing,
}
