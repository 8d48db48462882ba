"""Facts of a job out of manifest, tokens and route."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.model.smollm2 import built
from tests.node.selector.made_policy import HARDWARE, MODEL, WAY
from tests.node.stage.tiny import MANIFEST

from plait.protocol.manifest import Tensor
from plait_node.selector import model_facts, task_facts
from plait_node.selector.observe import hardware_of, warmed


def test_model_facts_are_those_of_the_manifest_and_its_tensors() -> None:
    model = built()
    facts = model_facts(model.manifest, model.tensors)
    assert facts is not None
    assert facts == replace(MODEL, name=model.manifest.name)


def test_model_facts_of_an_architecture_without_a_family_are_none() -> None:
    tensor = Tensor(name="blk.0.x", dtype="F32", shape=(2, 3), sha256=bytes(32))
    assert model_facts(MANIFEST, [tensor]) is None


def test_task_facts_of_a_prompt_say_how_it_repeats_itself() -> None:
    facts = task_facts([1, 2, 3, 4] * 4, max_tokens=20)
    assert (facts.kind, facts.batch, facts.prompt_tokens, facts.answer_tokens) == ("", 1, 16, 20)
    assert facts.repetition == pytest.approx(10 / 16)
    assert warmed(facts, 16).warm_tokens == warmed(facts, 16).shared_tokens == 16


def test_hardware_of_a_route_is_the_templates_once_a_stage() -> None:
    made = hardware_of(replace(HARDWARE, stages=2), replace(WAY, stages=4, rtt_s=0.05))
    assert (made.stages, made.rtt_s, made.price_per_hour) == (4, 0.05, 7.2)
    assert made.matmul_gflops == HARDWARE.matmul_gflops
    assert hardware_of(HARDWARE, WAY).rtt_s == HARDWARE.rtt_s
