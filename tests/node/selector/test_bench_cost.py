"""Costs of a million tokens: every part as worked out by hand, and the choice of rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from bench.cost import chosen, figure, gas_per_job, parts_of, payer_bytes, relay_bytes, rows_sent, study
from bench.cost.parts import CASES, Parts, gas_usd, hourly
from bench.cost.prices import FIGURES
from bench.cost.report import write
from bench.selector.cells import Cell, cells_of
from tests.node.selector.made_rows import made_rows

from plait_node.selector.candidates import CANDIDATES
from plait_node.selector.facts import Candidate, HardwareFacts, ModelFacts, TaskFacts
from plait_node.selector.rows import Outcome, Row

GAS = {"claim_single": 50_000, "claim_row_at_100": 14_000, "release": 60_000, "open": 70_000}
COMMITTED = Path(__file__).parents[3] / "bench/results/gas.json"
TASK = TaskFacts(
    kind="chat",
    batch=2,
    prompt_tokens=40.0,
    shared_tokens=36,
    warm_tokens=16,
    answer_tokens=10,
    repetition=0.0,
)
MODEL = ModelFacts(
    name="m",
    family="llama",
    real_weights=True,
    blocks=2,
    hidden=100,
    heads=2,
    kv_heads=1,
    intermediate=200,
    vocabulary=500,
    parameters=1_000,
    block_parameters=900,
)
ONE = HardwareFacts(
    name="one-core",
    device="cpu",
    chip="c",
    cores=1,
    threads=1,
    stages=1,
    rtt_s=0.0,
    bytes_s=0.0,
    matmul_gflops=1.0,
    copy_gbytes_s=1.0,
    memory_gbytes=1.0,
    compiler=True,
    price_per_hour=99.0,  # what it was when it was measured plays no part
)
SWARM = replace(ONE, name="wan-3-stages", stages=3, rtt_s=0.04)
OUTCOME = Outcome(
    repeats=3,
    discarded=0,
    tokens_s=2.0,
    seconds=9.0,
    seconds_low=8.9,
    seconds_high=9.1,
    ttft_s=1.0,
    tpot_p50_s=0.1,
    tpot_p99_s=0.1,
    peak_memory_bytes=1,
    energy_j=None,
    agreement=1.0,
    accepted=-1.0,
    overlap=0.0,
    load=1.0,
    at="2026-11-26",
    versions="{}",
)


def row(candidate: str = "none", hardware: HardwareFacts = ONE, *, accepted: float = -1.0, seconds: float = 9.0) -> Row:
    outcome = replace(OUTCOME, accepted=accepted, seconds=seconds)
    return Row(task=TASK, model=MODEL, hardware=hardware, candidate=CANDIDATES[candidate], outcome=outcome)


def test_compute_is_seconds_at_the_price_of_all_machines() -> None:
    one, swarm = (parts_of(row(hardware=each), hash_share=0.0, gas=GAS) for each in (ONE, SWARM))

    # 9 s at 0.02 an hour give 20 tokens: 0.00005 USD for 20, 2.5 for a million
    assert one.compute == pytest.approx(9 * figure("cpu") / 3_600 / 20 * 1e6)
    assert one.compute == pytest.approx(2.5)
    assert swarm.compute == pytest.approx(3 * one.compute)


def test_devices_are_paid_whole_and_cores_by_thread() -> None:
    assert hourly(replace(ONE, threads=2)) == pytest.approx(2 * figure("cpu"))
    assert hourly(replace(ONE, device="cuda", threads=8, stages=2)) == pytest.approx(2 * figure("cuda"))


def test_verification_adds_hashes_to_compute_and_a_second_run_of_drawn_stages() -> None:
    one, swarm = (parts_of(row(hardware=each), hash_share=0.2, gas=GAS) for each in (ONE, SWARM))

    assert one.hashes == pytest.approx(one.compute / 4)  # a fifth of the whole is a quarter of the rest
    assert one.audits == pytest.approx(figure("audit_rate") * 2.5)
    assert swarm.audits == pytest.approx(one.audits)  # three stages, a third of the seconds and one machine each
    assert one.verification == pytest.approx(one.hashes + one.audits)


def test_gas_of_one_job_is_a_claim_a_release_and_an_opening_on_every_hop() -> None:
    assert gas_per_job(GAS, stages=1, case=CASES["1x1"]) == 180_000
    assert gas_per_job(GAS, stages=3, case=CASES["1x1"]) == 5 * 180_000
    assert gas_per_job(GAS, stages=2, case=CASES["1x100"]) == 4 * 1_800


def test_gas_of_a_hundred_payers_counts_rows_of_a_batch_on_the_first_hop_only() -> None:
    # claims 100 x 14,000 + 4 x 50,000, releases 5 x 60,000, openings 104 x 70,000, over 10,000 jobs
    assert gas_per_job(GAS, stages=3, case=CASES["100x100"]) == pytest.approx(
        (1_600_000 + 300_000 + 7_280_000) / 10_000
    )


@pytest.mark.parametrize("case", sorted(CASES))
def test_gas_without_openings_is_within_one_percent_of_what_was_measured_over_the_whole_route(case: str) -> None:
    committed = json.loads(COMMITTED.read_text())

    made = gas_per_job({**committed["gas"], "open": 0}, stages=3, case=CASES[case])

    measured = sum(committed["route"][case].values()) / (CASES[case].payers * CASES[case].jobs)
    assert made == pytest.approx(measured, rel=0.01)


def test_gas_is_paid_at_the_chains_price_for_all_jobs_of_a_million_tokens() -> None:
    parts = parts_of(row(), hash_share=0.0, gas=GAS, case="1x1")

    jobs = 1e6 / TASK.answer_tokens
    assert gas_usd(1e9, "mainnet") == pytest.approx(figure("gwei_mainnet") * figure("ether"))
    assert parts.gas_mainnet == pytest.approx(180_000 * jobs * 1e-9 * figure("gwei_mainnet") * figure("ether"))
    assert parts.gas_l2 / parts.gas_mainnet == pytest.approx(figure("gwei_l2") / figure("gwei_mainnet"))


def test_rows_sent_are_prompts_and_answers_without_cached_windows() -> None:
    assert rows_sent(row("none")) == 2 * 40 + 2 * 10
    # the first finds its 16 warm tokens, the second all 2 whole windows of the 36 shared ones
    assert rows_sent(row("prefix-cache")) == 80 - 16 - 32 + 20


def test_rows_sent_with_guessing_count_rejected_guesses_and_fewer_passes() -> None:
    always_on = rows_sent(row("always-on"))

    # 20 tokens in passes that give 1 + 0.5 x 10 tokens and carry 11 rows
    assert rows_sent(row("lookup-10", accepted=0.5)) == pytest.approx(always_on - 20 + 20 / 6 * 11)
    assert rows_sent(row("lookup-10")) == always_on  # nothing was proposed


def test_relay_between_stages_is_rows_in_their_codec_with_ids_and_frames() -> None:
    # 100 rows over 2 links at 400 bytes, ids of 100 rows and 20 tokens, 22 frames on 4 links
    assert relay_bytes(row(hardware=SWARM)) == 100 * 2 * 400 + 120 * 4 + 22 * 4 * figure("frame_bytes")
    assert relay_bytes(row()) == 0


@pytest.mark.parametrize(("candidate", "width"), [("always-on", 400), ("codec-bf16", 200), ("codec-int8", 104)])
def test_relay_counts_the_codecs_bytes(candidate: str, width: int) -> None:
    one = row(candidate, SWARM)

    rest = (rows_sent(one) + 20) * 4 + 22 * 4 * figure("frame_bytes")
    assert relay_bytes(one) == pytest.approx(rest + 2 * rows_sent(one) * width)


def test_payers_get_ids_and_a_leaf_of_each_stage_for_each_window() -> None:
    windows = 3 + 1  # of 40 and of 10 tokens

    assert payer_bytes(row()) == 2 * (windows * (figure("leaf_bytes") + figure("progress_bytes")) + 40)
    assert payer_bytes(row(hardware=SWARM)) - payer_bytes(row()) == 2 * windows * 2 * figure("leaf_bytes")


def test_near_links_cost_less_but_the_payer_is_far() -> None:
    far, near = row(hardware=SWARM), row(hardware=replace(SWARM, rtt_s=0.001))

    saved = parts_of(far, hash_share=0, gas=GAS).relay - parts_of(near, hash_share=0, gas=GAS).relay
    assert saved == pytest.approx(relay_bytes(far) / 1e9 * (figure("gb_far") - figure("gb_near")) * 1e6 / 20)


def test_total_adds_all_parts_but_the_other_chains_gas() -> None:
    parts = Parts(compute=1, hashes=2, audits=4, relay=8, gas_l2=16, gas_mainnet=32)

    assert parts.total("l2") == 31
    assert parts.total("mainnet") == 47
    assert Parts.mean([parts, replace(parts, compute=3)]).compute == 2


@dataclass(frozen=True)
class Told:
    candidate: Candidate
    seconds: float


class Likes:
    """Foresees one second for one candidate, and two for all others."""

    def __init__(self, name: str) -> None:
        self._name = name

    def predict(
        self, task: TaskFacts, model: ModelFacts, hardware: HardwareFacts, candidates: Sequence[Candidate]
    ) -> list[Told]:
        return [Told(each, 1.0 if each.name == self._name else 2.0) for each in candidates]


def made_cell(hardware: HardwareFacts = ONE) -> Cell:
    times = {"none": 9.0, "always-on": 4.0, "lookup-10": 3.0, "int4": 2.0}
    return cells_of(row(name, hardware, seconds=each) for name, each in times.items())[0]


@pytest.mark.parametrize(
    ("mode", "regime", "name"),
    [
        ("off", "exact", "none"),
        ("always-on", "any", "always-on"),
        ("selector", "exact", "lookup-10"),
        ("selector", "any", "int4"),
    ],
)
def test_rows_are_chosen_by_mode_within_what_the_payer_allows(mode: str, regime: str, name: str) -> None:
    found = chosen(made_cell(), mode, regime, None)

    assert found is not None
    assert found.candidate.name == name


def test_the_predictor_decides_where_there_is_one_and_its_errors_are_paid_for() -> None:
    cells = [made_cell()]

    found = study(cells, predictor=Likes("none"), hash_share=0.0, gas=GAS)

    costs = found["settings"]["any"]["one-core"]
    assert costs["selector"] == costs["off"]
    assert found["selector"].startswith("predicted")
    assert study(cells, predictor=None, hash_share=0.0, gas=GAS)["selector"].startswith("oracle")


def test_a_swarm_is_compared_over_the_cells_that_one_node_has_too() -> None:
    lone = made_cell(replace(SWARM, name="lan-3-stages"))
    alone = study([lone], predictor=None, hash_share=0.0, gas=GAS)
    both = study([made_cell(), lone], predictor=None, hash_share=0.0, gas=GAS)

    assert alone["swarm_over_one_node"]["exact"]["lan-3-stages"]["off"]["compute"] is None
    off = both["swarm_over_one_node"]["exact"]["lan-3-stages"]["off"]
    assert (off["cells"], off["compute"]) == (1, pytest.approx(3.0))
    assert off["compute_if_stages_are_shared"] == pytest.approx(1.0)


def test_prompt_and_answer_are_told_apart_for_single_requests() -> None:
    single = replace(row("always-on"), task=replace(TASK, batch=1))

    found = study(cells_of([single]), predictor=None, hash_share=0.0, gas=GAS)["one_request"]["one-core"]

    second = figure("cpu") / 3_600 * 1e6
    assert found["input"] == pytest.approx(1.0 / 40 * second)
    assert found["output"] == pytest.approx(8.0 / 9 * second)


def test_report_lists_every_price_with_its_source_and_date(tmp_path: Path) -> None:
    cells = cells_of(made_rows(cells=8))
    found = study(cells, predictor=None, hash_share=0.04, gas=json.loads(COMMITTED.read_text())["gas"])

    write({**found, "history": ["made"], "rows": 1}, tmp_path)

    page, told = (tmp_path / "cost.md").read_text(), json.loads((tmp_path / "cost.json").read_text())
    assert all(each.what in page and each.source in page for each in FIGURES.values())
    assert set(told["prices"]) == set(FIGURES)
    assert (tmp_path / "cost.png").stat().st_size > 10_000
