"""Hypothesis plays payers, payees, a forger and the arbiter; every step is compared with the plain model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import clock
from brownie import chain
from channel_model import Line, Model, Place, RefusedError, Voucher
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from signing import Row
from world import BURN, MIN_STAKE, World, refused

START = 2_000_000_400  # an epoch begins 200 seconds earlier
# Always the same examples, as forge's seed is fixed too: a failure comes back, and gas can be compared.
SETTINGS = settings(max_examples=25, stateful_step_count=35, deadline=None, derandomize=True)
DONE = {"open", "topUp", "claim", "exit", "withdraw", "close", "release", "burn", "forfeit", "stake", "unbond"}
PLACES: list[Place] = [(0, 0), (0, 1), (1, 0), (1, 1)]

SIDES = st.integers(0, 1)
# Hypothesis draws first values most often; the first of each makes steps succeed.
AIMS = st.integers(0, 3 * len(PLACES))
AMOUNTS = st.sampled_from([MIN_STAKE, 5 * MIN_STAKE + 7, MIN_STAKE // 3, 101, 0])
STAKES = st.sampled_from([MIN_STAKE // 3, 1, MIN_STAKE, 5 * MIN_STAKE, 0])
EIGHTHS = st.sampled_from([3, 8, 1, 9, 0])
EPOCHS = st.sampled_from([2, 1, 0])
PICKS = st.lists(st.integers(0, 30), min_size=1, max_size=5)
FORGERIES = st.sampled_from(["parity", "half", "r", "key", "payer", "payee", "cumulative", "jobs"])
WAITS = st.sampled_from([0, 1, None])
YES = st.sampled_from([True, False])
STEPS: dict[str, tuple[Any, ...]] = {
    "put": (AIMS, AMOUNTS),
    "claim_new": (AIMS, EIGHTHS),
    "claim_old": (SIDES, PICKS),
    "claim_forged": (AIMS, EIGHTHS, FORGERIES),
    "exit": (AIMS,),
    "withdraw": (AIMS, WAITS),
    "close": (AIMS, YES),
    "release": (SIDES, EPOCHS),
    "burn": (SIDES,),
    "forfeit": (SIDES,),
    "stake": (SIDES, STAKES),
    "unbond": (SIDES, STAKES),
}


class Stage:
    """What all examples share: the people, by number, and the ids of the four channels between them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.payers = (world.payer, world.other_payer)
        self.owners = (world.payee, world.other_payee)
        self.keys = (world.signer, world.other_signer)
        self.node_keys = (world.node_key, world.other_node_key)
        self.done: Counter[str] = Counter()
        self.ids = {place: world.channels.channelId(*self.parties(place)) for place in PLACES}

    def parties(self, place: Place) -> tuple[Any, Any, str]:
        payer, payee = place
        return self.payers[payer], self.owners[payee], self.keys[payer].address


class ChannelMachine(RuleBasedStateMachine):
    """Each step does the same in the model and on the chain."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        chain.revert()
        self.stage = stage
        self.world = stage.world
        self.channels = stage.world.channels
        self.model = Model(START, MIN_STAKE)
        self.signed: list[tuple[Voucher, Row]] = []
        self.consents: dict[Place, tuple[int, int]] = {}

    @initialize()
    def open_three(self) -> None:
        """Let lives go on, not only begin."""
        for place in PLACES[1:]:
            self._open(place, MIN_STAKE)

    @rule(step=st.one_of(*(st.tuples(st.just(name), *draws) for name, draws in STEPS.items())))
    def take(self, step: tuple[Any, ...]) -> None:
        """Take any step. Were each a rule, Hypothesis would leave half of them out of every example (its swarms)."""
        name, *arguments = step
        getattr(self, f"step_{name}")(*arguments)

    def step_put(self, aim: int, amount: int) -> None:
        """Open where a channel is spent, top up where it is not; every third time, the other way round."""
        place = self._aim(aim, lambda line: not line.exit_at)
        line = self.model.lines[place]
        if (line.deposit == line.claimed) == (aim % 3 != 2):
            self._open(place, amount)
        else:
            self._by_payer(place, self.channels.topUp, lambda: self.model.top_up(place, amount), amount)

    def step_claim_new(self, aim: int, eighths: int) -> None:
        place = self._aim(aim, lambda line: line.deposit > line.claimed)
        self._claim(place[1], [self._sign(place, eighths)])

    def step_claim_old(self, payee: int, picks: list[int]) -> None:
        """Bring vouchers signed earlier again, perhaps one twice, perhaps of the other payee."""
        if self.signed:
            self._claim(payee, [self.signed[pick % len(self.signed)] for pick in picks])

    def step_claim_forged(self, aim: int, eighths: int, forgery: str) -> None:
        """Put a forged row in front of the row that it was made from."""
        place = self._aim(aim, lambda line: line.deposit > line.claimed)
        voucher, row = self._sign(place, eighths)
        self._claim(place[1], [(None, self._forge(forgery, voucher, row)), (voucher, row)])

    def step_exit(self, aim: int) -> None:
        place = self._aim(aim, lambda line: line.deposit > line.claimed and not line.exit_at)
        self._by_payer(place, self.channels.exit, lambda: self.model.exit(place))
        line = self.model.lines[place]
        self.consents[place] = (line.claimed, line.exit_at)

    def step_withdraw(self, aim: int, wait: int | None) -> None:
        """Try in the second in which the exit is due, in the one before, or now."""
        place = self._aim(aim, lambda line: line.exit_at)
        if wait is not None:
            self._go_to(self.model.lines[place].exit_at - wait)
        self._by_payer(place, self.channels.withdraw, lambda: self.model.withdraw(place))

    def step_close(self, aim: int, fresh: bool) -> None:
        """Close with a consent over the present state, or over that of the last exit."""
        place = self._aim(aim, lambda line: line.exit_at)
        line = self.model.lines[place]
        state = (line.claimed, line.exit_at) if fresh else self.consents.get(place, (0, 0))
        payer, payee, _ = self.stage.parties(place)
        who = {"payer": payer, "payee": payee, "signer": self.stage.keys[place[0]]}
        consent = self.world.consent(self.stage.node_keys[place[1]], *state, **who)
        self._both(self.channels.close, lambda: self.model.close(place, *state), *consent)

    def step_release(self, payee: int, epochs: int) -> None:
        self._go_to((self.model.epoch + epochs) * clock.EPOCH_S)
        self._both(self.channels.release, lambda: self.model.release(payee), self.stage.owners[payee])

    def step_burn(self, payee: int) -> None:
        self._both(self.channels.burn, lambda: self.model.burn(payee), self.stage.owners[payee])

    def step_forfeit(self, payee: int) -> None:
        owner, arbiter = self.stage.owners[payee], self.world.arbiter
        self._both(self.channels.forfeit, lambda: self.model.forfeit(payee), owner, sender=arbiter)

    def step_stake(self, payee: int, amount: int) -> None:
        owner = self.stage.owners[payee]
        self._both(self.world.nodes.stake, lambda: self.model.stake(payee, amount), amount, sender=owner)

    def step_unbond(self, payee: int, amount: int) -> None:
        owner = self.stage.owners[payee]
        self._both(self.world.nodes.unbond, lambda: self.model.unbond(payee, amount), amount, sender=owner)

    @invariant()
    def chain_is_as_the_model_and_covers_what_it_owes(self) -> None:
        balance = self.world.token.balanceOf
        held, owed = balance(self.channels), self._owed_by_channels() + self._owed_to_payees()
        assert held == self.model.held()
        assert held >= owed
        assert [balance(payer) for payer in self.stage.payers] == self.model.wallets
        assert balance(BURN) == sum(payee.burned for payee in self.model.payees)
        assert balance(self.world.arbiter) == sum(payee.forfeited for payee in self.model.payees)

    def _owed_by_channels(self) -> int:
        """Compare each channel; return what payers may take back, as the contract says."""
        owed = 0
        for place, line in self.model.lines.items():
            channel = self.channels.channel(self.stage.ids[place])
            assert tuple(channel) == (line.deposit, line.claimed, line.exit_at, line.jobs)
            owed += channel["deposit"] - channel["claimed"]
        return owed

    def _owed_to_payees(self) -> int:
        """Compare each account; return what is pending and what is to be burned, as the contract says."""
        owed = 0
        for owner, payee in zip(self.stage.owners, self.model.payees, strict=True):
            account, pending = self.channels.accountOf(owner), self.channels.pendingOf(owner)
            totals = [account[name] for name in ("earned", "fee", "released", "forfeited", "burned")]
            assert totals == [payee.earned, payee.fee, payee.released, payee.forfeited, payee.burned]
            maturing = payee.maturing(self.model.epoch)
            assert tuple(pending) == (maturing, payee.unreleased - maturing)
            owed += sum(pending) + account["fee"] - account["burned"]
        return owed

    def _aim(self, aim: int, fits: Callable[[Line], Any]) -> Place:
        """Return a channel for which a step makes sense if there is one; every third time, any."""
        fitting = [place for place, line in self.model.lines.items() if fits(line)]
        among = fitting if fitting and aim % 3 != 2 else PLACES
        return among[aim // 3 % len(among)]

    def _open(self, place: Place, amount: int) -> None:
        self._by_payer(place, self.channels.open, lambda: self.model.open(place, amount), amount)

    def _by_payer(self, place: Place, method: Any, planned: Callable[[], Any], *arguments: Any) -> None:
        payer, payee, signer = self.stage.parties(place)
        self._both(method, planned, payee, signer, *arguments, sender=payer)

    def _both(self, method: Any, planned: Callable[[], Any], *arguments: Any, sender: Any = None) -> None:
        """Do a step in the model and on the chain: both do it, or the chain refuses it for the model's reason."""
        me = {"from": sender or self.world.stranger}
        try:
            planned()
        except RefusedError as error:
            self.stage.done["no " + method.abi["name"]] += 1
            with refused(str(error)):
                method.call(*arguments, me)
            return
        clock.next_block_at(self.model.now)
        method(*arguments, me)
        self.stage.done[method.abi["name"]] += 1

    def _claim(self, payee: int, rows: list[tuple[Voucher | None, Row]]) -> None:
        earned, skipped = self.model.claim(payee, [voucher for voucher, _ in rows])
        clock.next_block_at(self.model.now)
        done = self.world.claim(*(row for _, row in rows), payee=self.stage.owners[payee], sender=self.world.stranger)
        bitmaps = [event["bitmap"] for event in done.events if event.name == "RowsSkipped"]
        assert bitmaps == ([skipped] if skipped else [])
        self.stage.done["claim" if earned else "claim of nothing"] += 1

    def _sign(self, place: Place, eighths: int) -> tuple[Voucher, Row]:
        """Sign the next voucher of a channel: nothing at 0, all that is left at 8, more than that at 9."""
        line = self.model.lines[place]
        cumulative = line.claimed + (line.deposit - line.claimed) * eighths // 8
        voucher = Voucher(place, cumulative, len(self.signed) + 1)
        row = self._row(voucher)
        self.signed.append((voucher, row))
        return voucher, row

    def _row(self, voucher: Voucher, key: Any = None) -> Row:
        payer, payee = voucher.place
        who = {"payer": self.stage.payers[payer], "payee": self.stage.owners[payee]}
        return self.world.row(voucher.cumulative, voucher.jobs, key=key or self.stage.keys[payer], **who)

    def _forge(self, forgery: str, voucher: Voucher, row: Row) -> Row:
        payer, payee = voucher.place
        other_payee = replace(voucher, place=(payer, 1 - payee))
        ways: dict[str, Callable[[], Row]] = {
            "parity": row.other_parity,
            "half": row.other_half,
            "r": row.other_r,
            "key": lambda: self._row(voucher, key=self.stage.node_keys[payee]),
            "payer": lambda: replace(row, payer=self.stage.payers[1 - payer].address),
            "payee": lambda: self._row(other_payee),
            "cumulative": lambda: replace(row, cumulative=row.cumulative + 1),
            "jobs": lambda: replace(row, jobs=row.jobs + 1),
        }
        return ways[forgery]()

    def _go_to(self, when: int) -> None:
        if when > self.model.now:
            self.model.now = when
            clock.go_to(when)


def test_channels_do_what_the_plain_model_does(world: World) -> None:
    world.join(world.other_payee, world.other_node_key)
    clock.go_to(START)
    stage = Stage(world)
    chain.snapshot()

    # Not brownie's `state_machine`: compiled, as 1.22 ships it, it refuses every machine (README.md).
    run_state_machine_as_test(lambda: ChannelMachine(stage), settings=SETTINGS)

    assert stage.done.keys() >= DONE, "every step succeeded at least once, or the run says little"
