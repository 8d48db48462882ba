"""An explanation as bars: lines of a terminal, or a PNG; the interval from the 10th to the 90th percentile on each."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from plait_node.selector.explain import Bar, Explanation, seconds

__all__ = ["draw", "lines"]

_WIDTH: Final = 32  # signs of the longest bar
_SURE, _LIKELY, _POSSIBLE = "█", "▓", "░"
_INK, _FAINT = "#111111", "#666666"
_MOST_SIGNS: Final = 70
_IMPOSSIBLE: Final = "cannot run here: {}"
_COLOURS: Final = {"chosen": "#1b7f5c", "open": "#7aa6c2", "refused": "#d3d3d3"}


def lines(explanation: Explanation, *, width: int = 110) -> Iterator[str]:
    """Yield lines of text: what was asked, a bar a candidate, what cannot run, the choice."""
    yield from heading(explanation)
    yield ""
    longest = max((each.estimate.high for each in explanation.bars), default=1.0)
    for bar in explanation.bars:
        yield _line(bar, chosen=bar is explanation.chosen, longest=longest)
    for name, reason in explanation.impossible.items():
        yield f"  {name:<16} {_IMPOSSIBLE.format(reason)}"
    yield ""
    if explanation.predictor:
        yield f"{_SURE} to the 10th percentile, {_LIKELY} to the median, {_POSSIBLE} to the 90th percentile"
    said = f"chosen: {explanation.reason}" if explanation.chosen else explanation.reason
    yield from wrap(said, width, break_on_hyphens=False)


def heading(explanation: Explanation) -> tuple[str, str]:
    """Return two lines: what is asked of which model and machine, and by what it is predicted."""
    task, model, hardware = (getattr(explanation.question, name) for name in ("task", "model", "hardware"))
    what = task.kind or "prompt"
    requests = "1 request" if task.batch == 1 else f"{task.batch} requests"
    warm = f", {task.warm_tokens} of them cached" if task.warm_tokens else ""
    stages = "1 stage" if hardware.stages == 1 else f"{hardware.stages} stages"
    asked = f"{what}: {requests} of {task.prompt_tokens:.0f} tokens{warm}, {task.answer_tokens} answered"
    by = f"predictor {explanation.predictor[:12]}" if explanation.predictor else "the roofline: arithmetic, not learned"
    return f"{asked}; {model.name} on {hardware.name}, {stages}", f"seconds by {by}"


def draw(explanation: Explanation, path: Path) -> None:
    """Write a PNG; raise `ImportError` without matplotlib, `OSError` where it cannot be written."""
    figures: Any = import_module("matplotlib.figure")  # an extra of this command alone
    bars, impossible = explanation.bars, explanation.impossible
    names = [*(each.title for each in bars), *impossible]
    figure = figures.Figure(figsize=(10, 1.7 + 0.29 * len(names)), layout="constrained")
    panel = figure.subplots()
    for place, bar in enumerate(bars):
        _draw_bar(panel, place, bar, chosen=bar is explanation.chosen)
    for place, reason in enumerate(impossible.values(), start=len(bars)):
        _say(panel, (0.0, place), _IMPOSSIBLE.format(reason), colour=_FAINT)
    longest = max((each.estimate.high for each in bars), default=1.0)
    panel.set_xlim(0, 1.5 * longest)
    panel.set_yticks(range(len(names)), names, fontsize=9)
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.set_xlabel("predicted seconds until the last token; whiskers: 10th to 90th percentile")
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x", alpha=0.3)
    panel.set_axisbelow(True)
    panel.set_title("\n".join(heading(explanation)), fontsize=10, loc="left")
    figure.supxlabel("\n".join(wrap(explanation.reason, 120, break_on_hyphens=False)), fontsize=9)
    figure.savefig(path, dpi=130, format="png")


def _draw_bar(panel: Any, place: int, bar: Bar, *, chosen: bool) -> None:  # noqa: ANN401 -- it has no types
    own = bar.estimate
    colour = _COLOURS["chosen" if chosen else "refused" if bar.refused else "open"]
    panel.barh(place, own.seconds, height=0.7, color=colour)
    if own.low < own.high:
        ends = [[own.seconds - own.low], [own.high - own.seconds]]
        panel.errorbar(own.seconds, place, xerr=ends, color=_INK, capsize=3, linewidth=1.1)
    said = seconds(own.seconds) + (", chosen" if chosen else f", {bar.refused}" if bar.refused else "")
    colour = _FAINT if bar.refused and not chosen else _INK
    _say(panel, (own.high, place), said, colour=colour, weight="bold" if chosen else "normal")


def _say(panel: Any, end: tuple[float, int], text: str, *, colour: str, weight: str = "normal") -> None:  # noqa: ANN401 -- as above
    """Write right of a bar's end."""
    cut = text if len(text) <= _MOST_SIGNS else f"{text[: _MOST_SIGNS - 3]}..."
    where = {"xytext": (7, 0), "textcoords": "offset points", "va": "center"}
    panel.annotate(cut, end, fontsize=8, color=colour, fontweight=weight, **where)


def _line(bar: Bar, *, chosen: bool, longest: float) -> str:
    own = bar.estimate
    low, middle, high = (round(_WIDTH * each / longest) for each in (own.low, own.seconds, own.high))
    drawn = (_SURE * low + _LIKELY * (middle - low) + _POSSIBLE * (high - middle)) or "▏"
    spread = f"{seconds(own.low)} to {seconds(own.high)}" if own.low < own.high else ""
    note = "chosen" if chosen else bar.refused
    line = f"{'>' if chosen else ' '} {bar.title:<16} {drawn:<{_WIDTH}} {seconds(own.seconds):>8}  {spread:<20} {note}"
    return line.rstrip()
