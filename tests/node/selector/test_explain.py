"""Explaining a choice: who is refused for what, who is chosen, and how it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.node.selector.made_policy import HARDWARE, MODEL, TASK, Forecast, Told

from plait.protocol.manifest import PROFILES
from plait_node.selector import OverBudgetError
from plait_node.selector.estimates import Predicts
from plait_node.selector.explain import Bar, Explanation, Question, explain, seconds
from plait_node.selector.explain_chart import draw, lines
from plait_node.selector.facts import Candidate, HardwareFacts, ModelFacts, TaskFacts
from plait_node.selector.online import Corrections
from plait_node.selector.rule import Limits

ROUTE = replace(HARDWARE, stages=2)
QUESTION = Question(task=TASK, model=MODEL, hardware=ROUTE)
EVERY = tuple(PROFILES.values())
SECONDS = {"always-on": 5.0, "lookup-3": 4.0, "int8": 2.0, "int4": 3.0, "none": 9.0}


class Fixed:
    """Predicts what the table says, 6 s for others, give or take a twentieth."""

    def __init__(self, *, outside: Sequence[str] = (), spread: float = 1.05) -> None:
        self.outside, self.spread = outside, spread

    def predict(
        self, task: TaskFacts, model: ModelFacts, hardware: HardwareFacts, candidates: Sequence[Candidate]
    ) -> list[Forecast]:
        return [self._of(each) for each in candidates]

    def _of(self, candidate: Candidate) -> Forecast:
        took = SECONDS.get(candidate.name, 6.0)
        return Forecast(
            candidate=candidate,
            seconds=took,
            seconds_low=took / self.spread,
            seconds_high=took * self.spread,
            ttft_s=took / 2,
            tpot_s=took / 80,
            inside=candidate.name not in self.outside,
        )


def answer(predictor: Predicts | None = None, **changed: object) -> Explanation:
    return explain(replace(QUESTION, **changed), predictor or Fixed(), digest="ab" * 32)  # type: ignore[arg-type]


def refused(explanation: Explanation) -> dict[str, str]:
    return {bar.title: bar.refused for bar in explanation.bars if bar.refused}


def chosen(explanation: Explanation) -> Bar:
    assert explanation.chosen is not None
    return explanation.chosen


def test_explain_chooses_the_soonest_of_the_allowed() -> None:
    found = answer()
    assert chosen(found).title == "lookup-3"
    assert [bar.title for bar in found.bars][:2] == ["lookup-3", "always-on"]
    assert refused(found)["int8"] == "not under fp32-strict"
    assert refused(found)["codec-int8"] == "not under fp32-strict"
    assert found.reason.startswith("lookup-3: 41 tokens within 4.00 s (3.81 s to 4.20 s), the first after 2.00 s")
    assert found.reason.endswith("against 5.00 s by always-on")
    assert found.impossible == {}


def test_explain_under_rounded_profiles_chooses_among_them() -> None:
    assert chosen(answer(profiles=EVERY)).title == "int8"
    assert chosen(answer(profiles=(PROFILES["int4"],))).title == "int4"


def test_explain_prefers_the_default_of_the_same_weights_for_less_than_the_least_gain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(SECONDS, "lookup-3", 0.99 * SECONDS["always-on"])
    found = answer()
    assert chosen(found).title == "always-on"
    assert "less than 2%" in found.reason


def test_explain_prefers_the_default_of_the_same_weights_where_it_is_unsure() -> None:
    found = answer(Fixed(outside=["always-on"]))
    assert chosen(found).title == "always-on"
    assert "outside what was measured" in found.reason
    assert chosen(answer(Fixed(outside=["lookup-3"]))).title == "always-on"
    assert refused(answer(Fixed(outside=["lookup-3"])))["lookup-3"] == "outside what was measured"


def test_explain_refuses_what_limits_and_bars_exclude() -> None:
    found = answer(limits=Limits(seconds=5.5, budget=0.0101), barred={"prompt-lookup": "wrong tokens"})
    assert chosen(found).title == "always-on"
    assert refused(found)["lookup-3"] == "barred: wrong tokens"
    assert refused(found)["none"] == "over the deadline of 5.5 s"
    cheap = answer(limits=Limits(budget=0.0045))
    assert refused(cheap)["always-on"] == "over the budget: costs 0.005"


def test_explain_with_limits_that_nothing_meets_offers_the_nearest_or_refuses() -> None:
    found = answer(limits=Limits(budget=1e-6))
    assert chosen(found).title == "lookup-3"
    assert "nothing costs at most the budget of 1e-06: the cheapest, at 0.004" in found.reason
    assert chosen(found).refused == ""
    assert "the soonest" in answer(limits=Limits(seconds=1.0)).reason
    with pytest.raises(OverBudgetError):
        answer(limits=Limits(budget=1e-6, over_budget="refuse"))


def test_explain_says_what_cannot_run() -> None:
    bare = replace(HARDWARE, compiler=False)
    found = answer(hardware=bare, model=replace(MODEL, real_weights=False))
    assert found.impossible["codec-int8"] == "the machine has no compiler"
    assert found.impossible["draft-4"].startswith("the model's weights are random")
    assert answer(hardware=HARDWARE).impossible["codec-int8"] == "one stage sends nothing to another"
    assert chosen(answer(Fixed(outside=["none"]), hardware=bare)).title == "combined"
    none = answer(hardware=bare, profiles=(PROFILES["int8"],))
    assert none.chosen is None
    assert none.reason == "nothing that the payer and this node allow can run here"


def test_explain_without_a_predictor_shows_the_roofline_and_takes_the_default() -> None:
    found = explain(QUESTION, None)
    assert (chosen(found).title, found.predictor) == ("always-on", "")
    assert "there is no trained predictor, only arithmetic" in found.reason
    assert not [why for why in refused(found).values() if why != "not under fp32-strict"]
    assert "the roofline: arithmetic, not learned" in "\n".join(lines(found))


def test_explain_counts_what_a_node_learned() -> None:
    corrections = Corrections()
    for _ in range(50):
        corrections.add("lookup-3", 1.0, 4.0)
        corrections.add("always-on", 1.0, 1.0)
    found = explain(QUESTION, Fixed(), corrections=corrections)
    assert chosen(found).title == "always-on"


def test_explanation_as_dict_tells_all_candidates() -> None:
    told = answer(hardware=HARDWARE).to_dict()
    assert (told["chosen"], told["predictor"], told["task"]["answer_tokens"]) == ("lookup-3", "ab" * 32, 41)
    assert len(told["candidates"]) + len(told["impossible"]) == 18
    assert told["candidates"][0]["seconds"] == 4.0


def test_lines_draw_each_interval_and_mark_the_choice() -> None:
    text = list(lines(answer(Told(spread=1.3), hardware=HARDWARE)))
    assert text[0] == "prompt: 1 request of 300 tokens, 41 answered; smollm2-135m on test, 1 stage"
    assert text[1] == "seconds by predictor abababababab"
    marked = [line for line in text if line.startswith("> ")]
    assert len(marked) == 1
    assert marked[0].endswith("chosen")
    assert {"█", "▓", "░"} <= set(marked[0])
    assert any("cannot run here" in line for line in text)
    assert max(map(len, text)) <= 130


def test_draw_writes_a_png(tmp_path: Path) -> None:
    draw(answer(hardware=HARDWARE, barred={"int4": "w" * 300}), tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_seconds_keep_three_digits() -> None:
    assert [seconds(value) for value in (0.01234, 0.1, 1.0, 12.3456, 123.4, 4567.0, 0.0)] == [
        "12.3 ms",
        "0.100 s",
        "1.00 s",
        "12.3 s",
        "123 s",
        "4567 s",
        "0 ms",
    ]
