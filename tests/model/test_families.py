"""What the families say of themselves, against transformers' own configurations and rotary embeddings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.model.smollm2 import built
from tests.model.tiny import write_tiny
from tests.model.tiny_families import CONTEXT, FAMILIES, OTHERS, tiny_config
from tests.model.tiny_gguf import llama3_divisors
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from plait.protocol.manifest import Manifest
from plait_model.configs import flat_config, transformers_config
from plait_model.decoder_form import DecoderForm, check_form
from plait_model.errors import UnsupportedModelError
from plait_model.families import DecoderShape, Rope, check_config, family_of
from plait_model.manifest_build import build_manifest

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_context": 8192}


def shape(family: str, **changed: Any) -> DecoderShape:
    name, words = flat_config(tiny_config(family, **changed).to_dict())
    return family_of(name).shape(words)


def test_shapes_show_each_familys_features() -> None:
    llama, qwen2, qwen3, gemma3, mistral = map(shape, FAMILIES)

    assert (llama.heads, llama.kv_heads, llama.head_dim, llama.hidden, llama.inner) == (4, 2, 24, 64, 96)
    assert (llama.blocks, llama.context, llama.vocabulary) == (4, CONTEXT, 262)
    assert llama.rope[0].original_context == 32
    assert (qwen2.qkv_bias, qwen2.tied, qwen2.windows, qwen2.head_dim) == (True, True, (0, 0, 5, 5), 16)
    assert (qwen3.qk_norm, qwen3.tied, qwen3.rope[0].factor) == (True, False, 2.0)
    assert mistral.windows == (6, 6, 6, 6)
    assert gemma3.windows == (5, 5, 5, 5, 5, 0, 5)
    assert [rope.theta for rope in gemma3.rope] == [1e4] * 5 + [1e6, 1e4]
    assert (gemma3.norm_offset, gemma3.sandwich, gemma3.qk_norm, gemma3.activation) == (1.0, True, True, "gelu_tanh")
    assert (gemma3.embed_scale, gemma3.attention_scale) == (8.0, 48**-0.5)
    for other in (llama, qwen2, qwen3, mistral):
        assert (other.norm_offset, other.sandwich, other.embed_scale, other.activation) == (0.0, False, 1.0, "silu")
        assert other.attention_scale == other.head_dim**-0.5


def test_embed_scale_is_rounded_as_transformers_does() -> None:
    model = AutoModelForCausalLM.from_config(tiny_config("gemma3", hidden_size=80))

    assert shape("gemma3", hidden_size=80).embed_scale == float(model.model.embed_tokens.embed_scale)


@pytest.mark.parametrize("family", FAMILIES)
def test_inverse_frequencies_are_those_of_transformers_model(family: str) -> None:
    rotary = AutoModelForCausalLM.from_config(tiny_config(family)).model.rotary_emb
    made = shape(family)

    for window, rope in zip(made.windows, made.rope, strict=True):
        name = f"{'sliding' if window else 'full'}_attention_inv_freq" if family == "gemma3" else "inv_freq"
        assert np.array_equal(rope.inverse_frequencies(made.head_dim), getattr(rotary, name).numpy())


@pytest.mark.parametrize("head_dim", [64, 128, 256])
@pytest.mark.parametrize(
    "rope",
    [
        Rope(theta=5e5),
        Rope(theta=1e6, factor=8.0),
        Rope(theta=5e5, factor=32.0, **LLAMA3),
        Rope(theta=5e5, factor=8.0, **LLAMA3),
    ],
    ids=str,
)
def test_inverse_frequencies_of_real_sizes_are_transformers(rope: Rope, head_dim: int) -> None:
    kind = "llama3" if rope.original_context else "linear"
    words: dict[str, Any] = {"rope_type": kind, "rope_theta": rope.theta, "factor": rope.factor}
    if rope.original_context:
        words |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    config = tiny_config("llama", head_dim=head_dim, rope_parameters=words, max_position_embeddings=131_072)

    theirs, _ = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))

    assert np.array_equal(rope.inverse_frequencies(head_dim), theirs.numpy())


@pytest.mark.parametrize("family", FAMILIES)
def test_flat_words_give_back_transformers_configuration(family: str) -> None:
    config = tiny_config(family)
    name, words = flat_config(config.to_dict())
    manifest = replace(
        _manifest(), architecture=name, config=words, blocks=config.num_hidden_layers, hidden=64, vocabulary=262
    )

    made = transformers_config(manifest)

    assert type(made) is type(config)
    for word in (*words, "rope_parameters", "layer_types", "sliding_window"):
        if hasattr(config, word):
            assert getattr(made, word) == getattr(config, word), word


@pytest.mark.parametrize("family", [*(family for family in FAMILIES if family != "gemma3"), *OTHERS])
def test_check_form_finds_what_ranges_give_to_layers(family: str) -> None:
    check_form(tiny_config(family))


def test_check_form_sees_gemmas_scaled_embedding() -> None:
    with pytest.raises(UnsupportedModelError, match="Gemma3TextScaledWordEmbedding"):
        check_form(tiny_config("gemma3"))


def test_check_form_sees_gemma2s_softcap_and_scale() -> None:
    with pytest.raises(UnsupportedModelError, match="gemma2"):
        check_form(_other("gemma2", head_dim=16))


@pytest.mark.parametrize("kind", ["gpt_neox", "mamba", "bloom", "gpt2", "llama4_text", "deepseek_v3"])
def test_decoders_of_another_form_are_refused_by_name(kind: str) -> None:
    with pytest.raises(UnsupportedModelError, match=kind):
        config = _other(kind)
        check_form(config)
        DecoderForm.of(config).key_value_shape()


@pytest.mark.parametrize(
    ("family", "words", "named"),
    [
        ("llama", {"attention_bias": True}, "attention_bias"),
        ("llama", {"mlp_bias": True}, "mlp_bias"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "yarn"),
        ("qwen2", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}}, "dynamic"),
        ("qwen3", {"head_dim": 15}, "15"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ],
)
def test_words_that_no_family_runs_are_refused_by_name(family: str, words: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedModelError, match=named):
        flat_config({**tiny_config(family).to_dict(), **words})


@pytest.mark.parametrize(
    "words",
    [
        {"num_attention_heads": 3},
        {"num_attention_heads": 0},
        {"head_dim": "wide"},
        {"layer_types": "sssss"},
        {"layer_types": "sssssxs"},
        {"sliding_window": 0},
        {"rope_type": "yarn"},
        {"rope_type": "linear", "rope_factor": "much"},
        {"query_pre_attn_scalar": 0},
        {"num_key_value_heads": 3},
        {"num_hidden_layers": 0, "layer_types": ""},
        {"rms_norm_eps": 0},
        {"rope_theta": -1.0},
        {"rope_factor": 0},
    ],
    ids=str,
)
def test_check_config_of_absurd_words_raises(words: dict[str, Any]) -> None:
    _, good = flat_config(tiny_config("gemma3").to_dict())

    with pytest.raises(UnsupportedModelError):
        check_config(family_of("gemma3"), {**good, **words})


def test_scaling_without_its_numbers_names_the_missing() -> None:
    _, good = flat_config(tiny_config("llama").to_dict())
    del good["rope_low_freq_factor"]

    with pytest.raises(UnsupportedModelError, match="rope_low_freq_factor"):
        check_config(family_of("llama"), good)


@pytest.mark.parametrize(
    "config", [{}, {"model_type": "nothing"}, {"model_type": 3}, {"model_type": "llama", "hidden_size": "x"}]
)
def test_flat_config_of_no_model_raises(config: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError):
        flat_config(config)


def test_gemma_that_reads_pictures_is_refused_with_the_way_out() -> None:
    with pytest.raises(UnsupportedModelError, match="gemma3_text"):
        flat_config({"model_type": "gemma3"})


def test_configs_as_older_transformers_wrote_them_are_read() -> None:
    words = {word: value for word, value in tiny_config("llama").to_dict().items() if not word.startswith("rope")}
    scaling = {"type": "linear", "factor": 2.0}

    _, made = flat_config({**words, "rope_theta": 500_000, "rope_scaling": scaling, "torch_dtype": "bfloat16"})

    assert (made["rope_theta"], made["rope_type"], made["rope_factor"]) == (5e5, "linear", 2.0)
    assert "torch_dtype" not in made


def test_divisors_that_are_not_llama3s_are_refused(tmp_path: Path) -> None:
    rope = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    divisors = llama3_divisors(16, {**rope, "rope_theta": 10_000.0, "factor": 5.0})
    path = write_tiny(tmp_path / "tiny.gguf", changed={"rope_freqs.weight": divisors})

    with pytest.raises(UnsupportedModelError, match="rope_freqs"):
        build_manifest(path)


def test_tensors_that_would_not_be_used_are_refused(tmp_path: Path) -> None:
    extra = {"blk.1.attn_q.bias": np.ones(64, np.float32)}

    with pytest.raises(UnsupportedModelError, match=r"blk\.1\.attn_q\.bias"):
        build_manifest(write_tiny(tmp_path / "tiny.gguf", changed=extra))


def _manifest() -> Manifest:
    return replace(built().manifest, context=CONTEXT)


def _other(kind: str, **words: Any) -> Any:  # noqa: ANN401 -- transformers has no types
    return AutoConfig.for_model(
        kind, vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, **words
    )
