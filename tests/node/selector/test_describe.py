"""Descriptions: what they tell, what they leave out, and how few there are."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from plait_node.selector.candidates import CANDIDATES
from plait_node.selector.describe import describe_candidate, describe_hardware, describe_model, describe_task
from plait_node.selector.facts import Candidate, HardwareFacts, ModelFacts, TaskFacts

TASK = TaskFacts(
    kind="summarise",
    batch=8,
    prompt_tokens=270.4,
    shared_tokens=30,
    warm_tokens=15,
    answer_tokens=60,
    repetition=0.12,
)
MODEL = ModelFacts(
    name="smollm2-135m",
    family="llama",
    real_weights=True,
    blocks=30,
    hidden=576,
    heads=9,
    kv_heads=3,
    intermediate=1_536,
    vocabulary=49_152,
    parameters=134_515_008,
    block_parameters=106_203_000,
)
HARDWARE = HardwareFacts(
    name="wan-2-stages",
    device="cpu",
    chip="AMD EPYC",
    cores=2,
    threads=1,
    stages=2,
    rtt_s=0.02,
    bytes_s=6.25e6,
    matmul_gflops=90.0,
    copy_gbytes_s=19.0,
    memory_gbytes=15.6,
    compiler=True,
    price_per_hour=0.05,
)


def test_describe_task_tells_its_kind_and_facts() -> None:
    assert describe_task(TASK) == (
        "The task is to summarise a long document in a few sentences. About 8 requests come together. "
        "Prompts have about 256 tokens, answers about 64. "
        "They begin with the same 32 tokens, of which about half were computed before. "
        "Prompts repeat some of their own phrases."
    )


def test_describe_task_of_no_kind_tells_the_measured_facts_alone() -> None:
    text = describe_task(replace(TASK, kind="", batch=1, shared_tokens=0, warm_tokens=0, repetition=0.0))

    assert text == (
        "One request comes alone. Prompts have about 256 tokens, answers about 64. They begin differently. "
        "Prompts do not repeat themselves."
    )


def test_describe_task_of_an_unknown_kind_names_it() -> None:
    assert describe_task(replace(TASK, kind="poem")).startswith("The task is of the kind poem. About 8 requests")


def test_describe_task_of_nearly_the_same_requests_is_the_same() -> None:
    near = replace(TASK, prompt_tokens=255.0, shared_tokens=33, warm_tokens=14, answer_tokens=70, repetition=0.2)

    assert describe_task(near) == describe_task(TASK)
    assert describe_task(replace(TASK, prompt_tokens=500.0)) != describe_task(TASK)
    assert describe_task(replace(TASK, warm_tokens=0)) != describe_task(TASK)
    assert describe_task(replace(TASK, batch=16)) != describe_task(TASK)


@given(st.data())
def test_describe_task_takes_all_numbers(data: st.DataObject) -> None:
    shared = data.draw(st.integers(0, 10_000))
    task = TaskFacts(
        kind=data.draw(st.text()),
        batch=data.draw(st.integers(0, 512)),
        prompt_tokens=data.draw(st.floats(0, 1e6)),
        shared_tokens=shared,
        warm_tokens=data.draw(st.integers(0, shared)),
        answer_tokens=data.draw(st.integers(0, 10_000)),
        repetition=data.draw(st.floats(0, 1)),
    )

    assert describe_task(task).endswith(".")


def test_describe_task_has_few_texts_for_requests_of_one_kind() -> None:
    lengths = [replace(TASK, prompt_tokens=float(tokens)) for tokens in range(16, 4_096)]

    assert len({describe_task(task) for task in lengths}) == 9


def test_describe_model_tells_family_size_and_shape() -> None:
    assert describe_model(MODEL) == (
        "smollm2-135m is a language model of the llama family with about 130 million parameters, "
        "110 million of them in its blocks. It has 30 blocks of width 576 with 9 attention heads over 3 key-value "
        "heads and feed-forward layers of width 1536. Its vocabulary has 49152 tokens."
    )
    assert "Its weights are random" in describe_model(replace(MODEL, real_weights=False))


def test_describe_hardware_tells_machine_measurements_and_route() -> None:
    assert describe_hardware(HARDWARE) == (
        "The model runs on a processor, AMD EPYC, with 2 cores and about 16 gigabytes of memory. "
        "A stage computes with 1 thread, about 64 billion operations and 16 gigabytes of memory traffic a second. "
        "The model is split over 2 stages, whose links take about 16 milliseconds there and back and "
        "carry about 8 megabytes a second. Compiled code is available."
    )


def test_describe_hardware_of_one_stage_tells_no_link() -> None:
    text = describe_hardware(replace(HARDWARE, device="cuda", stages=1, compiler=False))

    assert "graphics processor" in text
    assert "One stage holds the whole model. No compiled code is available." in text


def test_describe_hardware_of_ideal_links_says_so() -> None:
    assert "whose links take no time and have no limit." in describe_hardware(replace(HARDWARE, rtt_s=0, bytes_s=0))


def test_describe_hardware_does_not_tell_setting_and_price() -> None:
    assert describe_hardware(replace(HARDWARE, name="other", price_per_hour=9)) == describe_hardware(HARDWARE)


def test_describe_candidate_tells_all_apart_in_known_words() -> None:
    texts = {name: describe_candidate(candidate) for name, candidate in CANDIDATES.items()}

    assert len(set(texts.values())) == len(CANDIDATES)
    assert not [name for name, text in texts.items() if "It uses" in text or "{" in text]
    assert texts["none"] == (
        "Weights are exact, in 32-bit floating point. Requests run one after the other, without any acceleration."
    )
    assert "up to 10 tokens at once, copied from repetitions" in texts["lookup-10"]


def test_describe_candidate_does_not_depend_on_name_and_order() -> None:
    methods = dict(CANDIDATES["int4-codec-int8"].methods)
    turned = Candidate(name="x", weights="int4", methods=dict(reversed(methods.items())))

    assert describe_candidate(turned) == describe_candidate(CANDIDATES["int4-codec-int8"])


def test_describe_candidate_names_an_unknown_method_and_its_amount() -> None:
    text = describe_candidate(Candidate(name="x", weights="int8", methods={"early-exit": 3, "int8": 1}))

    assert text == (
        "Weights are quantised to 8 bits, a quarter of the memory traffic. It uses early-exit with amount 3."
    )
