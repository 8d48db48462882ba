"""What the contracts should do, in plain Python: no packing, no buckets, one list of all that ever came in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from clock import EPOCH_S
from world import EXIT_DELAY_S, RICH, fee_rounded_up

Place = tuple[int, int]  # which payer, which payee


class RefusedError(Exception):
    """The contract must refuse this step with the error of this name."""


@dataclass
class Line:
    """One channel."""

    deposit: int = 0
    claimed: int = 0
    exit_at: int = 0
    jobs: int = 0


@dataclass
class Payee:
    """What one payee earned and where it went."""

    stake: int
    inflows: list[tuple[int, int]] = field(default_factory=list)  # epoch and net amount
    paid_in: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # by epoch
    earned: int = 0
    fee: int = 0
    burned: int = 0
    forfeited: int = 0
    forfeited_inflows: int = 0

    @property
    def released(self) -> int:
        return sum(self.paid_in.values())

    @property
    def unreleased(self) -> int:
        return self.earned - self.fee - self.released - self.forfeited

    def maturing(self, epoch: int) -> int:
        """Return what came in during this epoch and the one before, unless it was forfeited."""
        return sum(net for when, net in self.inflows[self.forfeited_inflows :] if when + 2 > epoch)


@dataclass(frozen=True)
class Voucher:
    place: Place
    cumulative: int
    jobs: int


class Model:
    """Two payers, two payees, one channel between each."""

    def __init__(self, now: int, stake: int) -> None:
        self.now = now
        self.lines = {(payer, payee): Line() for payer in range(2) for payee in range(2)}
        self.payees = [Payee(stake), Payee(stake)]
        self.wallets = [RICH, RICH]

    @property
    def epoch(self) -> int:
        return self.now // EPOCH_S

    def held(self) -> int:
        """Return what `Channels` must hold: deposits, what payees have not been paid, fees not burned."""
        deposits = sum(line.deposit - line.claimed for line in self.lines.values())
        return deposits + sum(payee.unreleased + payee.fee - payee.burned for payee in self.payees)

    def open(self, place: Place, amount: int) -> None:
        line = self.lines[place]
        _require(line.deposit == line.claimed, "Channels_AlreadyOpen")
        self._put(place, amount)

    def top_up(self, place: Place, amount: int) -> None:
        _require(self.lines[place].deposit != 0, "Channels_UnknownChannel")
        self._put(place, amount)

    def claim(self, payee: int, rows: Iterable[Voucher | None]) -> tuple[int, int]:
        """Take rows, None for a forged one; return what they earned and the bitmap of those skipped."""
        earned = skipped = 0
        for index, row in enumerate(rows):
            increase = self._take(payee, row)
            earned += increase
            skipped |= (increase == 0) << index
        if earned:
            fee = fee_rounded_up(earned)
            account = self.payees[payee]
            account.earned += earned
            account.fee += fee
            account.inflows.append((self.epoch, earned - fee))
        return earned, skipped

    def exit(self, place: Place) -> None:
        line = self.lines[place]
        _require(line.deposit != 0, "Channels_UnknownChannel")
        _require(line.exit_at == 0, "Channels_Exiting")
        _require(line.deposit != line.claimed, "Channels_NothingLeft")
        line.exit_at = self.now + EXIT_DELAY_S

    def withdraw(self, place: Place) -> None:
        line = self.lines[place]
        _require(line.exit_at != 0, "Channels_NotExiting")
        _require(self.now >= line.exit_at, "Channels_ExitNotDue")
        self._end(place)

    def close(self, place: Place, claimed: int, exit_at: int) -> None:
        """End a channel by a consent over this state."""
        line = self.lines[place]
        _require(line.exit_at != 0, "Channels_NotExiting")
        _require(self.now > line.exit_at - EXIT_DELAY_S, "Channels_CloseTooEarly")
        _require((claimed, exit_at) == (line.claimed, line.exit_at), "Channels_BadClose")
        self._end(place)

    def release(self, payee: int) -> None:
        account = self.payees[payee]
        mature = account.unreleased - account.maturing(self.epoch)
        allowed = max(account.stake // 2 - account.paid_in[self.epoch], 0)
        amount = min(mature, allowed)
        _require(amount != 0, "Channels_NothingToRelease")
        account.paid_in[self.epoch] += amount

    def burn(self, payee: int) -> None:
        account = self.payees[payee]
        amount = account.fee - account.burned
        _require(amount != 0, "Channels_NothingToBurn")
        account.burned += amount

    def forfeit(self, payee: int) -> None:
        account = self.payees[payee]
        amount = account.unreleased
        _require(amount != 0, "Channels_NothingPending")
        account.forfeited += amount
        account.forfeited_inflows = len(account.inflows)

    def stake(self, payee: int, amount: int) -> None:
        _require(amount != 0, "NodeRegistry_AmountZero")
        self.payees[payee].stake += amount

    def unbond(self, payee: int, amount: int) -> None:
        _require(amount != 0, "NodeRegistry_AmountZero")
        _require(self.payees[payee].stake >= amount, "NodeRegistry_StakeTooSmall")
        self.payees[payee].stake -= amount

    def _put(self, place: Place, amount: int) -> None:
        line = self.lines[place]
        _require(amount != 0, "Channels_AmountZero")
        _require(line.exit_at == 0, "Channels_Exiting")
        line.deposit += amount
        self.wallets[place[0]] -= amount

    def _take(self, payee: int, row: Voucher | None) -> int:
        if row is None or row.place[1] != payee:
            return 0
        line = self.lines[row.place]
        increase = row.cumulative - line.claimed
        if increase <= 0 or row.cumulative > line.deposit:
            return 0
        line.claimed, line.jobs = row.cumulative, row.jobs
        return increase

    def _end(self, place: Place) -> None:
        line = self.lines[place]
        self.wallets[place[0]] += line.deposit - line.claimed
        line.deposit, line.exit_at = line.claimed, 0


def _require(condition: bool, error: str) -> None:
    if not condition:
        raise RefusedError(error)
