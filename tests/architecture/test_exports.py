"""Every package says what it exports, in order, and can be imported from a fresh interpreter without side effects."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOTS = ("plait", "plait_model", "plait_audit", "plait_node")
GENERATED = ("plait.protocol.pb", "plait.protocol.abi", "plait_node.wire.generated")
# What a package needs that no list of requirements names: it comes with some builds of what they name.
WITH_BUILDS = {"plait_node.engine.cuda": ("triton", "comes with CUDA builds of torch")}
LAZY = ("torch", "transformers", "plait_model", "grpc", "libtorrent", "nats", "starlette", "pyarrow")


def packages() -> Iterator[str]:
    """Yield the dotted name of every package of the distribution that a person wrote."""
    for root in ROOTS:
        yield root
        path = importlib.import_module(root).__path__
        for module in pkgutil.walk_packages(path, prefix=f"{root}."):
            if module.ispkg and not module.name.startswith(GENERATED):
                yield module.name


def place(name: str) -> tuple[int, str]:
    """Order names as ruff does: constants, classes, functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("name", list(packages()))
def test_all_of_package_is_sorted_unique_and_importable(name: str) -> None:
    needed, why = WITH_BUILDS.get(name, ("", ""))
    if needed and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not here; it {why}")
    package = importlib.import_module(name)

    exported = package.__all__

    assert list(exported) == sorted(set(exported), key=place), f"{name}.__all__ is not sorted, or names something twice"
    missing = [each for each in exported if not hasattr(package, each)]
    assert not missing, f"{name}.__all__ names what it does not have: {missing}"


def test_import_plait_in_fresh_interpreter_loads_nothing_of_the_extras() -> None:
    script = f"import json, sys, plait; print(json.dumps([m for m in {LAZY!r} if m in sys.modules]))"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=200)

    assert json.loads(done.stdout) == [], "import plait must work, and be quick, without the extras"


def test_import_of_the_worker_role_leaves_torch_alone() -> None:
    """A worker computes nothing, and torch would hold up its event loop for seconds."""
    script = (
        "import sys, plait_node.app.worker, plait_node.engine.methods.prompt_lookup as lookup;"
        "lookup.PromptLookup().propose([1, 2, 3, 1, 2], 2);"
        "print([each for each in ('torch', 'transformers') if each in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=200)

    assert done.stdout == "[]\n"


def test_names_of_the_engine_come_with_their_modules() -> None:
    script = (
        "import sys; from plait_node.engine import EngineError, Lane, Rows, StepInput, StepOutput;"
        "print('torch' in sys.modules);"
        "from plait_node.engine import StageEngine; from plait_node.engine.native import NativeBlocks;"
        "print('torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=200)

    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("name", ["plait", "plait_node.engine", "plait_node.engine.native"])
def test_lazy_package_has_no_other_names(name: str) -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = importlib.import_module(name).nothing
