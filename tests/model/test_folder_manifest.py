"""Manifests out of folders as transformers saves them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tests.model.smollm2 import built
from tests.model.tiny import TEMPLATE
from tests.model.tiny_families import FAMILIES, OTHERS, write_family

from plait.protocol.ids import keccak
from plait.protocol.manifest import FP32_STRICT, Manifest
from plait_model.configs import transformers_config
from plait_model.errors import MalformedFolderError, ModelError, ModelNotFoundError, UnsupportedModelError
from plait_model.manifest_build import build_manifest

# What SmolLM2's id was before there were other families: a changed id would orphan every published manifest.
SMOLLM2_ID = "86859ed1db16821f505e2c5d388d1d5669f2b48371c3aeb6750cda7e06f8a3c1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_family(tmp_path / "Tiny Llama", "llama")


def test_model_id_of_smollm2_is_what_it_was() -> None:
    assert built().manifest.model_id.hex() == SMOLLM2_ID


@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_manifest_of_a_folder_names_its_facts(tmp_path: Path, family: str) -> None:
    folder = write_family(tmp_path / f"Tiny {family}", family)
    (folder / "README.md").write_text("---\ntags:\n- x\nlicense: mit\n---\n# Tiny\n")

    made = build_manifest(folder)
    manifest = made.manifest

    assert (manifest.name, manifest.architecture, manifest.licence) == (f"tiny-{family}", family, "mit")
    assert (manifest.hidden, manifest.vocabulary, manifest.context) == (64, 262, 128)
    assert manifest.blocks == (7 if family == "gemma3" else 4)
    assert (manifest.bos_token, manifest.eos_token, manifest.end_tokens) == ("<|im_start|>", "<|im_end|>", (2,))
    assert made.tokenizer_json == (folder / "tokenizer.json").read_bytes()
    assert made.chat_template == TEMPLATE
    assert manifest.chat_template == keccak(TEMPLATE.encode())
    assert manifest.profiles == (FP32_STRICT,)
    assert Manifest.from_json(manifest.to_json()).model_id == manifest.model_id
    assert build_manifest(folder) == made


def test_single_file_is_a_folder_with_its_neighbours(folder: Path) -> None:
    made = build_manifest(folder / "model.safetensors", name="same")

    assert made.manifest == build_manifest(folder, name="same").manifest


def test_template_of_its_own_file_comes_first(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("own")

    assert build_manifest(folder).chat_template == "own"


def test_default_of_several_templates_is_taken(folder: Path) -> None:
    templates = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}, 3]
    described = {"chat_template": templates, "eos_token": {"content": "<|im_end|>"}, "bos_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))

    made = build_manifest(folder)

    assert (made.chat_template, made.manifest.eos_token, made.manifest.bos_token) == ("yes", "<|im_end|>", "")


def test_folder_without_a_template_says_what_to_do(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()

    with pytest.raises(MalformedFolderError, match=r"chat_template\.jinja"):
        build_manifest(folder)
    assert build_manifest(folder, chat_template="given").chat_template == "given"


def test_end_tokens_come_from_all_places(folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0, 999, "x", None]}))

    assert build_manifest(folder).manifest.end_tokens == (0, 2)


def test_folder_without_end_tokens_says_what_to_do(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": None}))
    (folder / "generation_config.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "x"}))

    with pytest.raises(MalformedFolderError, match="eos_token_id"):
        build_manifest(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_folder_without_a_file_names_it(folder: Path, name: str) -> None:
    (folder / name).unlink()

    with pytest.raises(ModelNotFoundError, match=name):
        build_manifest(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"a":'])
def test_folder_with_a_damaged_file_raises_our_error(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)

    with pytest.raises(ModelError):
        build_manifest(folder)


def test_tokenizer_with_ids_above_the_vocabulary_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 200}))

    with pytest.raises(MalformedFolderError, match="261"):
        build_manifest(folder)


def test_head_that_contradicts_the_config_is_refused(tmp_path: Path, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    with pytest.raises(UnsupportedModelError, match="not the embedding"):
        build_manifest(folder)

    tied = write_family(tmp_path / "tied", "qwen2")
    config = json.loads((tied / "config.json").read_text())
    (tied / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    with pytest.raises(UnsupportedModelError, match=r"lacks lm_head\.weight"):
        build_manifest(tied)


def test_head_that_repeats_the_tied_embedding_is_taken(tmp_path: Path) -> None:
    tied = write_family(tmp_path / "tied", "qwen2")
    tensors = load_file(tied / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, tied / "model.safetensors")

    assert build_manifest(tied).manifest.config["tie_word_embeddings"] is True


@pytest.mark.parametrize("family", ["llama", "olmo2"])
def test_config_may_name_no_code_to_run(tmp_path: Path, family: str) -> None:
    folder = write_family(tmp_path / "other", family)
    config = json.loads((folder / "config.json").read_text())
    hostile = {
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
        "_attn_implementation": "evil/kernel",
        "_attn_implementation_internal": "evil/kernel",
        "attn_implementation": "evil/kernel",
        "experts_implementation": "evil/kernel",
    }
    (folder / "config.json").write_text(json.dumps({**config, **hostile}))

    made = transformers_config(build_manifest(folder).manifest)

    assert made._attn_implementation == "sdpa"
    assert "evil" not in str({word: value for word, value in made.to_dict().items() if word != "auto_map"})


def test_quantised_weights_of_another_kind_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))

    with pytest.raises(UnsupportedModelError, match="quantised"):
        build_manifest(folder)


def test_more_blocks_than_weights_name_a_missing_tensor(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}))

    with pytest.raises(UnsupportedModelError, match=r"model\.layers\.4\.input_layernorm\.weight.* more"):
        build_manifest(folder)
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(UnsupportedModelError, match=r"holds model\.layers\.3"):
        build_manifest(folder)
