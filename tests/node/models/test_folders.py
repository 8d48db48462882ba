"""Models published from folders of safetensors, and the embedded one that has no template of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.model.tiny_families import write_family

from plait_model.errors import MalformedFolderError, ModelNotFoundError
from plait_model.gguf import EMBEDDED_MODELS
from plait_node.models import ModelStore, prepare
from plait_node.models.errors import ModelFileHashError, ModelFileMissingError


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_family(tmp_path / "tiny-qwen", "qwen3", shard="100KB")


def test_prepare_of_a_folder_finds_its_weights_again(tmp_path: Path, weights: Path) -> None:
    made = prepare(weights, tmp_path / "models")
    again = ModelStore(tmp_path / "models").open("tiny-qwen")

    assert again == made
    assert again.weights() == weights
    assert (made.manifest.architecture, made.source.embedded) == ("qwen3", None)
    again.check_weights()


def test_prepare_of_one_safetensors_file_takes_its_neighbours(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "tiny", "mistral")

    made = prepare(str(folder / "model.safetensors"), tmp_path / "models")

    assert made.weights() == folder / "model.safetensors"
    made.check_weights()


def test_shards_that_changed_or_went_are_noticed(tmp_path: Path, weights: Path) -> None:
    made = prepare(weights, tmp_path / "models")
    shard = max(weights.glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)

    with pytest.raises(ModelFileHashError, match="fetch"):
        made.check_weights()
    shard.unlink()
    with pytest.raises(ModelFileHashError, match="fetch"):
        made.check_weights()
    weights.rename(tmp_path / "moved")
    with pytest.raises(ModelFileMissingError, match="put it back"):
        made.weights()


def test_prepare_of_a_folder_without_weights_or_template_says_what_to_do(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "nothing").mkdir()
    (weights / "tokenizer_config.json").unlink()

    with pytest.raises(ModelNotFoundError, match="folder"):
        prepare(tmp_path / "nothing", tmp_path / "models")
    with pytest.raises(MalformedFolderError, match="chat_template"):
        prepare(weights, tmp_path / "models")


def test_prepare_of_the_embedded_gemma_gives_it_a_template(tmp_path: Path) -> None:
    made = prepare("gemma3-270m", tmp_path)

    assert made.manifest.name == "gemma3-270m"
    assert made.chat_template == EMBEDDED_MODELS["gemma3-270m"].chat_template
    assert made.weights().name.startswith("gemma3-270m")
