"""Model folders: published, opened again, and refused when a file is not what the manifest says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.model.tiny import write_tiny

from plait.chain.reader import ModelInfo
from plait.protocol.ids import ADDRESS_ZERO, Hash, keccak, to_hex
from plait.protocol.manifest import PROFILES
from plait_model.errors import GgufError, ModelNotFoundError
from plait_node.models import ModelStore, prepare, publish
from plait_node.models.errors import (
    ModelFileHashError,
    ModelFileMissingError,
    ModelMissingError,
    ModelTakenError,
)

FILES = ("manifest.json", "tokenizer.json", "chat_template.jinja", "weights.json")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny.gguf")


@pytest.fixture
def store(tmp_path: Path, weights: Path) -> ModelStore:
    prepare(weights, tmp_path / "models")
    return ModelStore(tmp_path / "models")


@dataclass
class Chain:
    """The two calls that publishing makes of a chain, in memory; the real ones are tested with anvil."""

    known: dict[Hash, ModelInfo] = field(default_factory=dict)
    sent: int = 0

    @property
    def reader(self) -> Chain:
        return self

    async def model(self, model: Hash) -> ModelInfo | None:
        return self.known.get(model)

    async def publish_model(self, model: Hash, blocks: int, profiles: list[Hash], uri: str) -> int:
        self.sent += 1
        self.known[model] = ModelInfo(
            id=model, publisher=ADDRESS_ZERO, blocks=blocks, published_at=0, profiles=tuple(profiles), uri=uri
        )
        return self.sent


def test_open_by_id_text_or_name_gives_the_same_model(store: ModelStore) -> None:
    (name,) = store.ids()
    model = store.open(name)

    assert to_hex(model.model_id) == name
    assert store.open(model.model_id) == model
    assert store.open("tiny-two") == model
    assert store.models() == [model]
    assert model.manifest.blocks == 2
    model.check_weights()


def test_prepare_twice_leaves_one_model_and_no_rest(store: ModelStore, weights: Path) -> None:
    before = store.open("tiny-two")

    assert prepare(weights, store.folder) == before
    assert [path.name for path in store.folder.iterdir()] == [to_hex(before.model_id)]


def test_prepare_of_an_embedded_model_finds_its_weights_again(tmp_path: Path) -> None:
    made = prepare("smollm2-135m", tmp_path)

    assert made.manifest.name == "smollm2-135m"
    assert made.source.path is None
    assert made.weights().suffix == ".gguf"
    made.check_weights()


@pytest.mark.parametrize("name", FILES)
def test_open_with_a_file_missing_says_which(store: ModelStore, name: str) -> None:
    model = store.open("tiny-two")
    (model.folder / name).unlink()

    if name == "manifest.json":
        with pytest.raises(ModelMissingError):
            store.open(model.model_id)
    else:
        with pytest.raises(ModelFileMissingError, match=f"{name}.*publish"):
            store.open(model.model_id)


@pytest.mark.parametrize("name", FILES)
def test_open_with_one_bit_changed_raises(store: ModelStore, name: str) -> None:
    model = store.open("tiny-two")
    path = model.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(ModelFileHashError, match=f"{name}.*publish"):
        store.open(model.model_id)


def test_open_with_a_damaged_source_raises(store: ModelStore) -> None:
    model = store.open("tiny-two")
    (model.folder / "source.json").write_text("[]")

    with pytest.raises(ModelFileMissingError, match="publish"):
        store.open(model.model_id)


def test_open_of_an_unknown_model_lists_the_known(store: ModelStore) -> None:
    with pytest.raises(ModelMissingError, match="tiny-two"):
        store.open("gpt-9")
    with pytest.raises(ModelMissingError, match="tiny-two"):
        store.open(keccak(b"other"))


def test_open_in_an_empty_folder_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match=r"none yet.*publish"):
        ModelStore(tmp_path / "nowhere").open("any")


def test_weights_that_were_moved_are_missing(store: ModelStore, weights: Path) -> None:
    model = store.open("tiny-two")
    weights.rename(weights.with_suffix(".moved"))

    with pytest.raises(ModelFileMissingError, match="put it back"):
        model.weights()


def test_weights_with_one_bit_changed_fail_their_check(store: ModelStore, weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    with pytest.raises(ModelFileHashError, match="fetch"):
        store.open("tiny-two").check_weights()


def test_file_is_found_by_its_hash(store: ModelStore) -> None:
    model = store.open("tiny-two")

    assert store.file(model.manifest.tokenizer) == model.tokenizer_json
    assert store.file(model.manifest.chat_template) == model.chat_template.encode()
    assert store.file(model.model_id) is None


async def test_publish_registers_once(tmp_path: Path, weights: Path) -> None:
    chain: Any = Chain()
    first = await publish(weights, tmp_path / "models", chain)
    second = await publish(str(weights), tmp_path / "models", chain)

    assert chain.sent == 1
    assert first.transaction is not None
    assert second.transaction is None
    assert first.model_id == second.model_id
    assert chain.known[first.model_id].blocks == 2
    assert len(chain.known[first.model_id].profiles) == 1


async def test_publish_of_a_taken_id_raises(tmp_path: Path, weights: Path) -> None:
    chain: Any = Chain()
    model = (await publish(weights, tmp_path / "models", chain)).model_id
    known = chain.known[model]
    chain.known[model] = ModelInfo(
        id=model, publisher=known.publisher, blocks=3, published_at=0, profiles=known.profiles, uri=""
    )

    with pytest.raises(ModelTakenError, match="another name"):
        await publish(weights, tmp_path / "models", chain)


def test_prepare_of_no_model_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="smollm2-135m"):
        prepare("gpt-9", tmp_path)
    with pytest.raises(ModelNotFoundError, match="cannot open"):
        prepare(tmp_path / "none.gguf", tmp_path)
    (tmp_path / "text.gguf").write_text("no model")
    with pytest.raises(GgufError):
        prepare(tmp_path / "text.gguf", tmp_path)


def test_models_package_loads_without_torch() -> None:
    code = "import sys, plait_node.models; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=200)

    assert done.stdout.strip() == "[]"


def test_prepare_with_more_profiles_makes_another_model(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.gguf")
    strict = prepare(path, tmp_path / "one")
    both = prepare(path, tmp_path / "two", profiles=[PROFILES["fp32-strict"], PROFILES["fp32-prefill-int8"]])

    assert [profile.name for profile in both.manifest.profiles] == ["fp32-strict", "fp32-prefill-int8"]
    assert [profile.prefill_codec for profile in both.manifest.profiles] == ["fp32", "int8"]
    assert strict.model_id != both.model_id
    assert len({profile.profile_id for profile in PROFILES.values()}) == len(PROFILES)
