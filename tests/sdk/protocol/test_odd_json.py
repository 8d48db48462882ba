"""JSON that canonical JSON has no form for: refused by our errors, from a worker and from a publisher."""

from __future__ import annotations

import json

import pytest
from tests.sdk.swarm import manifest

from plait.protocol.choice import ChoiceNote
from plait.protocol.errors import ManifestError, SealingError
from plait.protocol.manifest import Manifest
from plait.protocol.sealing import Note

# Half of a pair of surrogates, a whole number beyond 2^53, and what is no number.
ODD = {"text": "\ud800", "amount": 1 << 70, "nan": float("nan"), "infinity": float("inf")}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", ODD["text"]),
        ("reason", ODD["text"]),
        ("amounts", {"draft": ODD["amount"]}),
        ("amounts", {ODD["text"]: 1}),
        ("predicted", {"ttft_s": ODD["nan"]}),
        ("predicted", {"ttft_s": ODD["infinity"]}),
    ],
)
def test_note_that_has_no_canonical_form_is_refused(field: str, value: object) -> None:
    honest = {"amounts": {"draft": 4}, "method": "ngram", "predicted": {"ttft_s": 0.5}, "reason": "it repeats"}
    assert ChoiceNote.from_note(Note(text=json.dumps(honest).encode())).amounts == {"draft": 4}
    with pytest.raises(SealingError):
        ChoiceNote.from_note(Note(text=json.dumps(honest | {field: value}).encode()))


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("eosToken", ODD["text"]),
        ("config", {"hidden_size": ODD["amount"]}),
        ("config", {"hidden_size": ODD["nan"]}),
        ("config", {"hidden_size": deep(900)}),
    ],
)
def test_manifest_that_has_no_canonical_form_is_refused(field: str, value: object) -> None:
    honest = json.loads(manifest().to_json())
    text = json.dumps(honest | {field: value}, sort_keys=True, separators=(",", ":"))
    with pytest.raises(ManifestError):
        Manifest.from_json(text.encode())
