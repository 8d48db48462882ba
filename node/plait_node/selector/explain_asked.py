"""Facts by name: of a kind of task or a prompt, a model, a machine, as whoever asks for an explanation says them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from statistics import fmean
from typing import Final

from plait.protocol.tokens import ChatTokenizer
from plait.protocol.windows import WINDOW_STEPS
from plait_node.models import ModelStore, ModelStoreError
from plait_node.selector.bench import MODELS, hardware_facts
from plait_node.selector.bench.models import open_model
from plait_node.selector.bench.requests import BARE, WARM
from plait_node.selector.bench.session import SEED
from plait_node.selector.errors import (
    NoTextError,
    UnknownModelError,
    UnknownSettingError,
)
from plait_node.selector.facts import HardwareFacts, ModelFacts, TaskFacts
from plait_node.selector.machine import SETTING
from plait_node.selector.observe import model_facts, read_hardware, task_facts, warmed
from plait_node.selector.rows import Row
from plait_node.selector.tasks import asks, repetition, word_ids

__all__ = ["THIS", "AskedModel", "hardware_named", "model_named", "task_asked"]

THIS: Final = "this"
_MOST_PROMPT: Final = 16 << 20  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedModel:
    """A model's shape, and how text becomes its ids: as an instruction, or as it stands."""

    facts: ModelFacts
    instruct: Callable[[str], Sequence[int]] = field(hash=False)
    encode: Callable[[str], Sequence[int]] = field(hash=False)


def model_named(name: str, *, rows: Sequence[Row] = (), models: Path | None = None) -> AskedModel:
    """Return a model that was measured, or one of a node's folder by its name or id.

    Raise `UnknownModelError`, `ModelError` where an embedded model is not installed, `ModelStoreError`.
    """
    if name not in MODELS:
        return _stored(name, models)
    known = next((row.model for row in rows if row.model.name == name and not row.model.real_weights), None)
    if known is not None:  # as measured: drawing its weights again would take long

        def ids(text: str) -> list[int]:
            return word_ids(text, known.vocabulary)

        return AskedModel(facts=known, instruct=ids, encode=ids)
    with tempfile.TemporaryDirectory() as folder:
        opened = open_model(name, Path(folder))
    return AskedModel(facts=opened.facts, instruct=opened.instruct, encode=opened.encode)


def hardware_named(name: str, *, rows: Sequence[Row] = ()) -> HardwareFacts:
    """Return a machine: a setting as the rows have it last, the facts in a JSON file, or "this" one, measured now.

    Raise `UnknownSettingError`, `HardwareFileError`.
    """
    if name == THIS:
        return hardware_facts(SETTING, cores=len(os.sched_getaffinity(0)))
    measured = {row.hardware.name: row.hardware for row in rows}
    if name in measured:
        return measured[name]
    if name.endswith(".json") or os.sep in name:
        return read_hardware(Path(name))
    known = ", ".join([*measured, THIS])
    raise UnknownSettingError(f"there is no hardware {name[:64]!r}, only {known}, or a JSON file of a machine's facts")


def task_asked(
    kind: str | None, prompt: Path | None, model: AskedModel, *, batch: int, answer: int, warm: int | None = None
) -> TaskFacts:
    """Return the facts of so many requests: of a kind, by the texts that are measured with, or like a prompt's file.

    Those like a prompt share nothing but what is `warm`: leading tokens that are cached; None: as it was measured.
    Raise `UnknownTaskError`; `NoTextError` unless there is a kind or a prompt's text.
    """
    if prompt is not None and kind is None:
        made = replace(task_facts(model.instruct(_prompt(prompt)), max_tokens=answer), batch=batch)
    elif kind is not None and prompt is None:
        made = _task_of_kind(kind, model, batch=batch, answer=answer)
    else:
        raise NoTextError("say by a kind of task or by a file with a prompt, and not by both, what is asked")
    return made if warm is None else _warmed(made, warm)


def _task_of_kind(kind: str, model: AskedModel, *, batch: int, answer: int) -> TaskFacts:
    encode = model.encode if kind in BARE else model.instruct
    *prompts, extra = [list(encode(f"{text.shared}{text.own}")) for text in asks(kind, count=batch + 1, seed=SEED)]
    same = takewhile(lambda ids: len(set(ids)) == 1, zip(*prompts, extra, strict=False))
    shared = sum(1 for _ in same)
    usual = shared // WINDOW_STEPS * WINDOW_STEPS if kind in WARM else 0
    return TaskFacts(
        kind=kind,
        batch=batch,
        prompt_tokens=fmean(map(len, prompts)),
        shared_tokens=shared,
        warm_tokens=usual,
        answer_tokens=answer,
        repetition=fmean(map(repetition, prompts)),
    )


def _warmed(task: TaskFacts, warm: int) -> TaskFacts:
    """Return a task with so many tokens cached, less the last one: it is always computed."""
    most = max(0, int(task.prompt_tokens) - 1)
    held = min(warm, most) // WINDOW_STEPS * WINDOW_STEPS
    return replace(warmed(task, held), shared_tokens=max(task.shared_tokens, held))


def _prompt(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_PROMPT + 1)
    except OSError as error:
        raise NoTextError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _MOST_PROMPT:
        raise NoTextError(f"{path} is larger than {_MOST_PROMPT >> 20} MiB, which no prompt is")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise NoTextError(f"{path} is no UTF-8 text") from error
    if not text.strip():
        raise NoTextError(f"{path} holds no text; a task is chosen for by its prompt")
    return text


def _stored(name: str, models: Path | None) -> AskedModel:
    if models is None:
        known = ", ".join(MODELS)
        raise UnknownModelError(f"there is no model {name[:64]!r}, only {known}; or give --models, a node's folder")
    try:
        stored = ModelStore(models).open(name)
    except ModelStoreError as error:
        raise UnknownModelError(str(error)) from error
    facts = model_facts(stored.manifest, stored.tensors)
    if facts is None:
        raise UnknownModelError(f"{stored.manifest.architecture} has no family here: nothing of it was measured")
    chat = ChatTokenizer.of(
        stored.manifest, tokenizer_json=stored.tokenizer_json, chat_template=stored.chat_template.encode()
    )
    return AskedModel(
        facts=facts, instruct=lambda text: chat.render([{"role": "user", "content": text}]), encode=chat.encode
    )
