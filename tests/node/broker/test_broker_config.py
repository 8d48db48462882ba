from __future__ import annotations

from pathlib import Path

import pytest

from plait_node.config import BrokerConfig, load
from plait_node.errors import ConfigError

BASE = f"""
rpc = "http://127.0.0.1:8545"
deployment = "31337.json"
owner = "0x{"11" * 20}"
models = "models"
roles = ["gateway"]
"""
REST = """
[dht]
listen = "127.0.0.1:0"
[gateway]
listen = "127.0.0.1:0"
"""


def written(folder: Path, top: str = "", section: str = "") -> Path:
    file = folder / "node.toml"
    file.write_text(BASE + top + REST + section, encoding="utf-8")
    return file


def test_config_of_a_broker_by_its_address_alone_needs_no_files(tmp_path: Path) -> None:
    config = load(written(tmp_path, 'broker = "nats://127.0.0.1:4222"\n'))
    assert config.broker == BrokerConfig(url="nats://127.0.0.1:4222")


def test_config_of_a_broker_with_keys_finds_them_beside_the_file(tmp_path: Path) -> None:
    section = '[broker]\nurl = "tls://n1:4222,tls://n2:4222"\nca = "ca.pem"\nnkey = "keys/worker.seed"\n'
    config = load(written(tmp_path, section=section))
    assert config.broker == BrokerConfig(
        url="tls://n1:4222,tls://n2:4222", ca=tmp_path / "ca.pem", nkey=tmp_path / "keys" / "worker.seed"
    )


def test_environment_names_another_broker_and_keeps_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIT_NODE_BROKER", "tls://other:4222")
    config = load(written(tmp_path, section='[broker]\nurl = "tls://n1:4222"\nca = "/ca.pem"\n'))
    assert config.broker == BrokerConfig(url="tls://other:4222", ca=Path("/ca.pem"))
    assert load(written(tmp_path)).broker == BrokerConfig(url="tls://other:4222")


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ("", "need broker"),
        ('[broker]\nca = "ca.pem"\n', "broker.url"),
        ('[broker]\nurl = "nats://x:1"\npassword = "y"\n', "broker.password"),
        ('[broker]\nurl = ""\n', "broker.url"),
    ],
)
def test_config_of_a_broker_that_is_wrong_is_named(tmp_path: Path, section: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load(written(tmp_path, section=section))
