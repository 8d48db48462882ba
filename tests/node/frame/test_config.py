"""A node's TOML file and folder: what is wrong is named, what is secret stays so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plait.ledger.errors import KeyFileError
from plait.protocol.typed import Key
from plait_node.config import load
from plait_node.errors import ConfigError
from plait_node.home import Home
from plait_node.localnet.network import operators, processes
from plait_node.localnet.plan import Shared, toml_of
from plait_node.policy import Guests

OWNER = "0x" + "11" * 20
MODEL = "0x" + "22" * 32
BASE = f"""
rpc = "http://127.0.0.1:8545"
deployment = "d.json"
owner = "{OWNER}"
models = "models"
"""
STAGE = f"""
roles = ["stage"]
[dht]
listen = "127.0.0.1:6881"
[stage]
model = "{MODEL}"
first = 0
last = 10
listen = "127.0.0.1:9001"
price = 60000
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "node.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_config_stage_is_read_with_paths_relative_to_the_file(tmp_path: Path) -> None:
    config = load(written(tmp_path, BASE + STAGE))

    assert config.home == tmp_path
    assert config.deployment == tmp_path / "d.json"
    assert config.stage is not None
    assert (config.stage.first, config.stage.last, config.stage.threads, config.stage.credit_windows) == (0, 10, 1, 4)
    assert (config.dht.listen.host, config.dht.listen.port) == ("127.0.0.1", 6881)


def test_config_stage_may_name_its_room_in_place_of_its_blocks(tmp_path: Path) -> None:
    config = load(written(tmp_path, (BASE + STAGE).replace("first = 0\nlast = 10", "blocks = 4")))
    assert config.stage is not None
    assert config.stage.blocks == 4


def test_config_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIT_NODE_RPC", "http://elsewhere:1")

    assert load(written(tmp_path, BASE + STAGE)).rpc == "http://elsewhere:1"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("first = 0", "first = -1"), "stage.first"),
        (('listen = "127.0.0.1:9001"', 'listen = "nowhere"'), "host:port"),
        ((OWNER, "0x12"), "owner"),
        (('roles = ["stage"]', 'roles = ["worker"]'), "[worker]"),
        (('roles = ["stage"]', 'roles = ["cook"]'), "roles"),
        (("price = 60000", "price = 60000\ncolour = 1"), "colour"),
        (('models = "models"', ""), "models"),
        (("last = 10", "last = 0"), "first must be below last"),
        (("last = 10", "last = 10\nblocks = 4"), "not both"),
    ],
)
def test_config_wrong_field_is_named(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace("[", r"\[")):
        load(written(tmp_path, (BASE + STAGE).replace(*change)))


@pytest.mark.parametrize(("line", "gas"), [("", 200_000), ("max_callback_gas = 0", 0)])
def test_config_worker_limits_the_gas_of_callbacks(tmp_path: Path, line: str, gas: int) -> None:
    worker = f'roles = ["worker"]\nbroker = "nats://x"\n[dht]\nlisten = "127.0.0.1:1"\n[worker]\nmodel = "{MODEL}"\n'

    config = load(written(tmp_path, BASE + worker + f"input_price = 1\noutput_price = 2\n{line}"))

    assert config.worker is not None
    assert config.worker.max_callback_gas == gas


def test_config_gateway_says_under_which_url_payers_reach_it(tmp_path: Path) -> None:
    gateway = (
        'roles = ["gateway"]\nbroker = "nats://x"\n[dht]\nlisten = "127.0.0.1:1"\n[gateway]\nlisten = "0.0.0.0:80"\n'
    )

    behind = load(written(tmp_path, BASE + gateway + 'url = "https://two.example/plait"'))
    plain = load(written(tmp_path, BASE + gateway))

    assert behind.gateway is not None
    assert plain.gateway is not None
    assert (behind.gateway.url, plain.gateway.url) == ("https://two.example/plait", "")
    with pytest.raises(ConfigError, match=r"gateway\.url"):
        load(written(tmp_path, BASE + gateway + 'url = "two.example"'))


@pytest.mark.parametrize(("text", "said"), [("roles = [", "not TOML"), (None, "no such file")])
def test_config_unreadable_file_says_so(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "node.toml"
    if text is not None:
        file.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match=said):
        load(file)


def test_config_written_for_a_local_network_is_read_back(tmp_path: Path) -> None:
    owners = operators()
    shared = Shared(rpc="http://x", deployment=tmp_path / "d", broker="nats://y", models=tmp_path, model=MODEL)

    for process in processes(owners):
        config = load(written(tmp_path, toml_of(process, shared)))
        assert config.owner == process.operator.key.address
        assert config.roles == (process.role,)


def test_home_keys_are_private_and_never_overwritten(tmp_path: Path) -> None:
    service = Key.generate()
    home = Home.create(tmp_path / "node", service=service, dht_seed=b"\x07" * 32)

    assert home.service_key().address == service.address
    assert home.dht_seed() == b"\x07" * 32
    assert home.service_file.stat().st_mode & 0o077 == 0
    assert home.dht_file.stat().st_mode & 0o077 == 0
    with pytest.raises(KeyFileError):
        Home.create(tmp_path / "node")


def test_home_certificate_is_made_once(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "node")

    assert home.certificate().fingerprint == home.certificate().fingerprint
    (home.path / "certificate.pem").write_text("nonsense")
    with pytest.raises(ConfigError, match="remove both"):
        home.certificate()


def test_home_damaged_dht_key_is_refused(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "node")
    home.dht_file.chmod(0o600)
    home.dht_file.write_text("xyz")

    with pytest.raises(ConfigError, match="32 bytes"):
        home.dht_seed()


def test_home_ready_mark_comes_and_goes(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "node")
    home.mark_ready({"url": "http://x"})

    assert json.loads(home.ready_file.read_text())["url"] == "http://x"
    home.clear_ready()
    assert not home.ready_file.exists()


WORKER = f"""
broker = "nats://127.0.0.1:4222"
roles = ["worker"]
[dht]
listen = "127.0.0.1:6881"
[worker]
model = "{MODEL}"
input_price = 1
output_price = 1
"""


def test_config_worker_opens_no_channel_unless_told_how_much(tmp_path: Path) -> None:
    config = load(written(tmp_path, BASE + WORKER))
    assert config.worker is not None
    assert config.worker.channel_deposit == 0
    with pytest.raises(ConfigError, match="channels_most is below channel_deposit"):
        load(written(tmp_path, BASE + WORKER + "channel_deposit = 1000\nchannels_most = 999\n"))
    config = load(written(tmp_path, BASE + WORKER + "channel_deposit = 1000\nchannels_most = 5000\n"))
    assert config.worker is not None
    assert (config.worker.channels_most, config.worker.channel_top_up) == (5_000, 0.25)


def test_config_lists_say_whom_an_operator_serves(tmp_path: Path) -> None:
    lists = f'payers_refused = ["{OWNER}"]\nworkers_allowed = ["{OWNER}"]\nworker_jobs = 2\n'
    config = load(written(tmp_path, BASE + "drain_s = 5\n" + STAGE + lists))
    assert config.drain_s == 5
    assert config.stage is not None
    owner = config.owner
    assert (config.stage.payers, config.stage.workers, config.stage.worker_jobs) == (
        Guests(refused=frozenset({owner})),
        Guests(allowed=frozenset({owner})),
        2,
    )
    with pytest.raises(ConfigError, match="payers_refused"):
        load(written(tmp_path, BASE + STAGE + 'payers_refused = ["0x12"]\n'))
