"""What one measured row costs, part by part, in US dollars for a million tokens of answer and the prompts with them.

compute: the row's seconds at the price of all of the route's machines, as if nobody else used them meanwhile.
gas: claims, releases and openings of channels over all hops, as measured for whole transactions, see `gas_per_job`.
verification: row hashes and leaves (their measured share of a run's time; the history's runs made none), and audits: a
stage that is drawn is run again, taken as long as the first time, though a re-run is one parallel pass.
relay: the bytes of rows and token ids between worker and stages, and of ids, leaves and progress to the payer.

Not counted: the payer's own checks, disputes, stakes' interest, machines that wait for work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from bench.cost.prices import figure

from plait.protocol.windows import WINDOW_STEPS
from plait_node.selector.facts import HardwareFacts
from plait_node.selector.rows import Row

__all__ = [
    "CASES",
    "MEASURED_CASE",
    "Parts",
    "Settled",
    "gas_per_job",
    "hourly",
    "parts_of",
    "payer_bytes",
    "relay_bytes",
    "rows_sent",
]

MILLION: Final = 1_000_000
_ID_BYTES: Final = 4
_SCALED: Final = 64  # values that share a scale of 2 bytes in the codec int8
_HOPS_ONE: Final = 1  # one operator is gateway, worker and stage: only the payer's channel is claimed
_ENDS: Final = 2  # hops before the stages': payer to gateway, gateway to worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """How many jobs are settled together: each payer's in one voucher, all vouchers of a gateway in one claim."""

    payers: int
    jobs: int  # of each payer


CASES: Final[Mapping[str, Settled]] = {
    "1x1": Settled(payers=1, jobs=1),
    "1x100": Settled(payers=1, jobs=100),
    "100x100": Settled(payers=100, jobs=100),
    "1x10000": Settled(payers=1, jobs=10_000),
}
MEASURED_CASE: Final = "100x100"  # what parts are told for: a gateway that claims once a day or so


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """US dollars for a million tokens of answer."""

    compute: float
    hashes: float
    audits: float
    relay: float
    gas_l2: float
    gas_mainnet: float

    @property
    def verification(self) -> float:
        """Return both of its parts."""
        return self.hashes + self.audits

    def total(self, chain: str) -> float:
        """Return the sum, settled on "l2" or "mainnet"."""
        return self.compute + self.verification + self.relay + (self.gas_l2 if chain == "l2" else self.gas_mainnet)

    @classmethod
    def mean(cls, each: list[Parts]) -> Parts:
        """Return the mean of every part."""
        return cls(**{one.name: sum(getattr(it, one.name) for it in each) / len(each) for one in fields(cls)})


def parts_of(row: Row, *, hash_share: float, gas: Mapping[str, int], case: str = MEASURED_CASE) -> Parts:
    """Return what a row's answers cost; `hash_share` is of a run's whole time, `gas` is of whole operations."""
    task = row.task
    per_million = MILLION / (task.batch * task.answer_tokens)
    compute = row.outcome.seconds * hourly(row.hardware) / 3_600 * per_million
    audits = figure("audit_rate") * compute / row.hardware.stages
    used = gas_per_job(gas, stages=row.hardware.stages, case=CASES[case]) * MILLION / task.answer_tokens
    return Parts(
        compute=compute,
        hashes=compute * hash_share / (1 - hash_share),
        audits=audits,
        relay=_relay_usd(row) * per_million,
        gas_l2=gas_usd(used, "l2"),
        gas_mainnet=gas_usd(used, "mainnet"),
    )


def hourly(hardware: HardwareFacts) -> float:
    """Return US dollars an hour for all machines of a route."""
    each = hardware.threads if hardware.device == "cpu" else 1
    return figure(hardware.device) * each * hardware.stages


def gas_usd(gas: float, chain: str) -> float:
    """Return what gas costs on "l2" or "mainnet"."""
    return gas * figure(f"gwei_{chain}") * 1e-9 * figure("ether")


def gas_per_job(gas: Mapping[str, int], *, stages: int, case: Settled) -> float:
    """Return gas per job: on each hop a claim, a release and, once in all these jobs, the opening of its channel.

    The first hop has a row and a channel for each payer, the others one each; rows cost less in batches of 100. The
    sums over five hops were measured (bench/results/gas.json, route) and differ from these by less than 1 %.
    """
    hops = _HOPS_ONE if stages == 1 else _ENDS + stages
    row = gas["claim_row_at_100"] if case.payers >= 100 else gas["claim_single"]
    claims = case.payers * row + (hops - 1) * gas["claim_single"]
    opens = (case.payers + hops - 1) * gas["open"]
    return (claims + hops * gas["release"] + opens) / (case.payers * case.jobs)


def rows_sent(row: Row) -> float:
    """Return how many rows pass between two neighbouring stages, all requests together; rejected guesses pass as well.

    With guessing it is a bound from above: as if each pass had carried as many guesses as it may.
    """
    task, methods = row.task, row.candidate.methods
    prompt = task.batch * task.prompt_tokens
    if "prefix-cache" in methods:
        whole = task.shared_tokens // WINDOW_STEPS * WINDOW_STEPS
        prompt -= task.warm_tokens + (task.batch - 1) * max(whole, task.warm_tokens)
    return prompt + decode_passes(row) * (1 + _guesses(row))


def decode_passes(row: Row) -> float:
    """Return how many passes the answers take, all requests together: one a token, or fewer by accepted guesses."""
    answers = row.task.batch * row.task.answer_tokens
    return answers / (1 + max(0.0, row.outcome.accepted) * _guesses(row))


def relay_bytes(row: Row) -> float:
    """Return the bytes between worker and stages, all requests together; 0 where they are one process.

    Ids go to the first stage, rows from stage to stage, ids back from the last; each pass is a frame on every link.
    """
    stages = row.hardware.stages
    if stages == 1:
        return 0.0
    rows, frames = rows_sent(row), decode_passes(row) + row.task.batch
    ids = (rows + row.task.batch * row.task.answer_tokens) * _ID_BYTES
    return ids + (stages - 1) * rows * row_bytes(row) + (stages + 1) * frames * figure("frame_bytes")


def payer_bytes(row: Row) -> float:
    """Return the bytes on their way to the payers: the answers' ids, and leaves and progress of every window."""
    task = row.task
    windows = math.ceil(task.prompt_tokens / WINDOW_STEPS) + math.ceil(task.answer_tokens / WINDOW_STEPS)
    proof = windows * (row.hardware.stages * figure("leaf_bytes") + figure("progress_bytes"))
    return task.batch * (proof + task.answer_tokens * _ID_BYTES)


def row_bytes(row: Row) -> float:
    """Return the bytes of one row of hidden values on the wire; the same codec for prompt and answer."""
    hidden, methods = row.model.hidden, row.candidate.methods
    if "codec-bf16" in methods:
        return 2 * hidden
    if "codec-int8" in methods:
        return 2 * math.ceil(hidden / _SCALED) + hidden
    return 4 * hidden


def _guesses(row: Row) -> int:
    """Return how many ids a pass may guess; 0 where nothing was proposed."""
    methods = row.candidate.methods
    depth = methods.get("prompt-lookup", 0) or methods.get("draft-model", 0)
    return depth if row.outcome.accepted >= 0 else 0


def _relay_usd(row: Row) -> float:
    """Return what all bytes cost; the payer is far away."""
    link = figure("gb_near" if row.hardware.rtt_s <= figure("near_s") else "gb_far")
    return (relay_bytes(row) * link + payer_bytes(row) * figure("gb_far")) / 1e9
