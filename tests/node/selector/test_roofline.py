"""The roofline: what a candidate must take by arithmetic, and what each method changes in it."""

from __future__ import annotations

from dataclasses import astuple, replace

import pytest
from tests.node.selector.made_rows import HARDWARE, MODELS, TASKS, made_rows

from plait_node.selector.candidates import ALWAYS_ON, CANDIDATES, NONE
from plait_node.selector.facts import Candidate, HardwareFacts, TaskFacts
from plait_node.selector.roofline import Roofline, roofline

MODEL = MODELS[0]
ONE = HARDWARE[0]
FAR = HARDWARE[-1]
TASK = replace(TASKS[0], batch=4, prompt_tokens=128.0, shared_tokens=64, warm_tokens=0, answer_tokens=33)


def of(name: str | Candidate, task: TaskFacts = TASK, hardware: HardwareFacts = ONE) -> Roofline:
    return roofline(task, MODEL, hardware, CANDIDATES[name] if isinstance(name, str) else name)


def test_roofline_of_everything_is_positive_and_the_sum_of_its_parts() -> None:
    for row in made_rows(cells=30):
        line = roofline(row.task, row.model, row.hardware, row.candidate)

        assert line.seconds == pytest.approx(line.prefill_s + line.decode_s + line.link_s)
        assert all(value >= 0 for value in astuple(line))
        assert 0 < line.ttft_s <= line.seconds * (1 + 1e-9)
        assert line.tpot_s > 0
        assert line.gain >= 1


def test_roofline_without_batching_takes_requests_one_after_the_other() -> None:
    alone, four = of("none", replace(TASK, batch=1)), of("none")

    assert four.seconds == pytest.approx(4 * alone.seconds)
    assert four.ttft_s == pytest.approx(alone.ttft_s + 1.5 * alone.seconds)
    assert four.tpot_s == pytest.approx(alone.tpot_s)


def test_roofline_of_batching_reads_weights_once_for_all() -> None:
    one, four = of("none"), of("batching")

    assert four.decode_passes == one.decode_passes / 4
    assert four.decode_s < one.decode_s / 2
    assert four.prompt_rows == one.prompt_rows


def test_roofline_of_a_decode_step_is_the_weights_over_the_memory_rate() -> None:
    line = of("always-on", replace(TASK, batch=1))
    read = 4 * (MODEL.block_parameters + MODEL.hidden * MODEL.vocabulary) / (1e9 * ONE.copy_gbytes_s)

    assert read < line.tpot_s < 1.25 * read
    assert of("bf16", replace(TASK, batch=1)).tpot_s == pytest.approx(line.tpot_s / 2, rel=0.1)


@pytest.mark.parametrize(("warm", "computed"), [(0, 128 + 3 * 64), (48, 80 + 3 * 64), (64, 4 * 64)])
def test_roofline_of_a_prefix_cache_leaves_out_what_is_known(warm: int, computed: int) -> None:
    task = replace(TASK, warm_tokens=warm)

    assert of("prefix-cache", task).prompt_rows == computed
    assert of("combined", task).prompt_rows == computed
    assert of("none", task).prompt_rows == 4 * 128


def test_roofline_of_a_prefix_cache_counts_whole_windows_and_computes_one_row_at_least() -> None:
    assert of("prefix-cache", replace(TASK, batch=1, warm_tokens=31)).prompt_rows == 128 - 16
    assert of("prefix-cache", replace(TASK, batch=1, shared_tokens=128, warm_tokens=128)).prompt_rows == 1


def test_roofline_of_chunks_has_a_pass_for_each_and_a_first_token_before_the_last_chunk() -> None:
    long = replace(TASK, prompt_tokens=512.0, shared_tokens=0)

    assert of("small-chunks", long).prompt_passes == 4 * 512 / 32
    assert of("always-on", long).prompt_passes == 4 * 512 / 128
    assert of("always-on", long).ttft_s < 0.7 * of("batching", long).ttft_s * 1.1


def test_roofline_of_links_counts_rounds_and_bytes_of_inner_links() -> None:
    task = replace(TASK, batch=1, shared_tokens=0)
    line = of("always-on", task, FAR)
    passes, rows = 1 + 32, 128 + 32

    assert of("always-on", task).link_s == 0
    assert line.link_s == pytest.approx(passes * 4 * FAR.rtt_s / 2 + rows * 2 * 4 * MODEL.hidden / FAR.bytes_s)
    bytes_s = line.link_s - passes * 2 * FAR.rtt_s
    assert of("codec-bf16", task, FAR).link_s == pytest.approx(line.link_s - bytes_s / 2)
    assert of("always-on", task, replace(FAR, bytes_s=0.0)).link_s == pytest.approx(passes * 2 * FAR.rtt_s)


def test_roofline_of_look_up_gains_by_repetition_and_never_proposes_at_a_loss() -> None:
    gains = [of("lookup-10", replace(TASK, repetition=share)).gain for share in (0.0, 0.2, 0.4, 0.6)]

    assert gains == sorted(gains)
    assert gains[0] == 1
    assert gains[-1] > 3
    assert of("lookup-10", replace(TASK, repetition=0.0)).seconds == of(ALWAYS_ON).seconds


def test_roofline_of_a_draft_pays_where_rounds_are_dear() -> None:
    task = replace(TASK, batch=1)

    assert of("draft-4", task, FAR).seconds < of("always-on", task, FAR).seconds
    assert of("draft-4", replace(TASK, batch=16)).seconds > of("always-on", replace(TASK, batch=16)).seconds


def test_roofline_of_one_token_has_no_decoding() -> None:
    for name in ("none", "always-on", "lookup-3"):
        line = of(name, replace(TASK, answer_tokens=1))

        assert line.decode_s == line.decode_passes == 0
        assert line.seconds == line.prefill_s


def test_roofline_starts_blocks_slower_without_compiled_code() -> None:
    assert of("combined").seconds > of("always-on").seconds
    assert of(NONE, replace(TASK, batch=1)).tpot_s - of(ALWAYS_ON, replace(TASK, batch=1)).tpot_s == pytest.approx(
        MODEL.blocks * (3.5e-4 - 4e-5)
    )
