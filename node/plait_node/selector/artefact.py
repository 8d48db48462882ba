"""A trained predictor as one file: a line that says what it is, then compressed JSON; no pickle, nothing that runs.

The SHA-256 of the whole file is its name for whoever trusts it; give it to `load` to accept no other. Without it, too,
a file is only ever read as numbers: every list is checked, and LightGBM parses text that this package wrote from them,
never text of the file (see `boosting`). What no check shows is whether the numbers are good ones: a hostile predictor
that is well formed chooses badly, and its hash is the only guard against that.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from plait_node.selector.boosting import Forest, Growth
from plait_node.selector.embeddings import Embeddings
from plait_node.selector.errors import ArtefactError, HistoryError, SchemaError
from plait_node.selector.features import NAMES, SCHEMA
from plait_node.selector.inputs import Inputs, Options
from plait_node.selector.predictor import FORESTS, Learned, Predictor

__all__ = ["load", "save"]

VERSION: Final = 1
_HEAD: Final = b"plait predictor\n"
_MOST_BYTES: Final = 4 << 20  # of the file
_MOST_JSON: Final = 16 << 20  # of what it holds
_PACKAGES: Final = ("lightgbm", "numpy")
_ADVICE: Final = "train anew or fetch it again"


def save(predictor: Predictor, path: Path, *, metrics: Mapping[str, float] | None = None) -> str:
    """Write a predictor, in one move, and return the file's SHA-256; the same predictor gives the same file.

    `metrics` are what an evaluation found, by name; all finite.
    """
    learned, found = predictor.learned, {**predictor.metrics, **(metrics or {})}
    told = {
        "version": VERSION,
        "schema": SCHEMA,
        "names": NAMES,
        "packages": {name: version(name) for name in _PACKAGES},
        "metrics": found,
        "options": asdict(predictor.inputs.options),
        "seed": learned.seed,
        "history": learned.history,
        "inputs": predictor.inputs.to_lists(),
        "widen": learned.widen,
        "forests": {name: learned.forests[name].to_lists() for name in FORESTS},
    }
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False)
    content = _HEAD + zlib.compress(text.encode(), 9)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)
    return hashlib.sha256(content).hexdigest()


def load(path: Path, *, expected: str | None = None, embeddings: Embeddings | None = None) -> Predictor:
    """Read a predictor; `expected` is the SHA-256 that the file must have, `embeddings` what it was trained with.

    Raises:
        SchemaError: it was trained on other features than these.
        ArtefactError: it is missing, too large, damaged, not the expected one, or needs embeddings that are not given.
    """
    content = _content(path)
    found = hashlib.sha256(content).hexdigest()
    if expected is not None and found != expected.lower():
        raise ArtefactError(f"{path} is not the expected predictor: its SHA-256 is {found}; fetch it again")
    told = _told(path, content)
    if told.get("version") != VERSION:
        raise ArtefactError(f"{path} has version {str(told.get('version'))[:16]}, not {VERSION}; train anew")
    if told.get("schema") != SCHEMA:
        raise SchemaError(f"{path} was trained on features {str(told.get('schema'))[:16]}, not {SCHEMA}; train anew")
    try:
        made = _predictor(told, embeddings)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, HistoryError) as error:
        raise ArtefactError(f"{path} is damaged ({str(error)[:120]}); {_ADVICE}") from error
    _check_encoder(path, told, made)
    return made


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ArtefactError(f"cannot read {path}: {error.strerror}; {_ADVICE}") from error
    if len(content) > _MOST_BYTES:
        raise ArtefactError(f"{path} is larger than {_MOST_BYTES} bytes, which no predictor is; {_ADVICE}")
    if not content.startswith(_HEAD):
        raise ArtefactError(f"{path} is no predictor; {_ADVICE}")
    return content


def _told(path: Path, content: bytes) -> dict[str, Any]:
    """Return the JSON, unpacked no further than it may be large."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(content[len(_HEAD) :], _MOST_JSON)
        if unpacker.unconsumed_tail:
            raise ArtefactError(f"{path} unpacks to more than {_MOST_JSON} bytes, which no predictor does; {_ADVICE}")
        if not unpacker.eof or unpacker.unused_data:
            raise ArtefactError(f"{path} is cut off, or goes on after its end; {_ADVICE}")
        told = json.loads(text, parse_constant=_refuse)
    except (zlib.error, ValueError, RecursionError) as error:
        raise ArtefactError(f"{path} is damaged ({str(error)[:120]}); {_ADVICE}") from error
    if not isinstance(told, dict):
        raise ArtefactError(f"{path} is damaged (it holds no names); {_ADVICE}")
    return cast("dict[str, Any]", told)


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _predictor(told: Mapping[str, Any], embeddings: Embeddings | None) -> Predictor:
    options = _options(told["options"])
    inputs = Inputs.from_lists(told["inputs"], options, embeddings)
    metrics = {str(name): _finite(value) for name, value in dict(told["metrics"]).items()}
    down, up = told["widen"]
    learned = Learned(
        forests={name: Forest.from_lists(told["forests"][name]) for name in FORESTS},
        widen=(_finite(down), _finite(up)),
        seed=int(told["seed"]),
        history=str(told["history"]),
    )
    return Predictor(inputs, learned, metrics=metrics)


def _options(told: Mapping[str, Any]) -> Options:
    given = dict(told)
    growth = Growth(**_typed(Growth(), dict(given.pop("growth"))))
    return Options(**_typed(Options(), given), growth=growth)


def _typed(defaults: Options | Growth, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the values, each of its default's type and there."""
    wanted: dict[str, type[Any]] = {
        each.name: type(getattr(defaults, each.name)) for each in fields(defaults) if each.name != "growth"
    }
    if set(given) != set(wanted) or any(type(value) is not wanted[name] for name, value in given.items()):
        raise ValueError("options are not those that there are")
    return given


def _finite(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(cast("float", value)):
        raise ValueError("a number is none")
    return float(cast("float", value))


def _check_encoder(path: Path, told: Mapping[str, Any], made: Predictor) -> None:
    wanted = told["inputs"].get("encoder")
    if made.inputs.projections and made.inputs.encoder != wanted:
        given = made.inputs.encoder or "none"
        raise ArtefactError(
            f"{path} needs embeddings of {str(wanted)[:64]}, given were {given}; give those, or train without"
        )
