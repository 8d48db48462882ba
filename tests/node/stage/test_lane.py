from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.node.stage.tiny import MANIFEST

from plait.protocol.ids import to_hex
from plait.protocol.manifest import PROFILES
from plait_node.app.stage import _engine, _profile
from plait_node.config import StageConfig
from plait_node.errors import ConfigError


def config(**changed: Any) -> StageConfig:
    values = {"model": to_hex(MANIFEST.model_id), "first": 0, "last": 1, "listen": "127.0.0.1:0", "price": 1}
    return StageConfig.model_validate({**values, **changed})


def test_lane_defaults_are_what_the_strict_profile_needs() -> None:
    made = config()
    assert (made.weights, made.compiled, made.batch_rows, made.step_seconds) == ("fp32", True, 16, 0.25)


@pytest.mark.parametrize("weights", ["bf16", "int8", "int4"])
def test_lane_with_other_weights_than_the_profiles_is_refused_with_the_reason(tmp_path: Path, weights: str) -> None:
    stored = SimpleNamespace(manifest=MANIFEST, weights=lambda: tmp_path / "none", tensors=None)
    with pytest.raises(ConfigError, match="fp32-strict"):
        _engine(stored, config(weights=weights))  # type: ignore[arg-type]


def test_lane_serves_the_profile_of_its_weights() -> None:
    both = replace(MANIFEST, profiles=(PROFILES["fp32-strict"], PROFILES["int8"]))

    assert _profile(both, config(weights="int8")).name == "int8"
    assert _profile(both, config()).name == "fp32-strict"
    with pytest.raises(ConfigError, match=r"fp32-strict \(fp32\), int8 \(int8\)"):
        _profile(both, config(weights="bf16"))


def test_lane_serves_the_profile_that_it_names() -> None:
    several = replace(MANIFEST, profiles=(PROFILES["fp32-strict"], PROFILES["fp32-prefill-int8"], PROFILES["int8"]))

    assert _profile(several, config(profile="fp32-prefill-int8")).name == "fp32-prefill-int8"
    assert _profile(several, config()).name == "fp32-strict"
    with pytest.raises(ConfigError, match=r"set profile in \[stage\] to one of fp32-strict, fp32-prefill-int8, int8"):
        _profile(several, config(profile="int4"))
    with pytest.raises(ConfigError, match=r"one of its profiles: int8 \(int8\)"):
        _profile(several, config(profile="int8"))


@pytest.mark.parametrize("changed", [{"batch_rows": 0}, {"step_seconds": 0}, {"step_seconds": 11}, {"weights": "fp8"}])
def test_lane_numbers_out_of_range_are_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changed))):
        config(**changed)
