"""Nodes that cannot start say why and end; peers that lie or babble are shut out, and the others serve on."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from chain_tests.live.network import MODEL, STAGE_PRICE, TOKEN, LiveNetwork, launch, talk, until

from plait.chain import STAGE
from plait.chain.directory import CachedDirectory
from plait.errors import PlaitError
from plait.protocol.ids import Address, keccak, to_hex
from plait.protocol.pb import stage_pb2 as pb
from plait.protocol.typed import Key, struct_hash
from plait_model.gguf import find_embedded_model
from plait_node.chain_nodes import ChainNodes
from plait_node.home import Home
from plait_node.models import ModelStore
from plait_node.ports import free_port
from plait_node.swarm import Announcer, DhtKey, Directory, LibtorrentDht, NodeFacts
from plait_node.wire import Dialer, Link, PeerIdentity, encode_rows, load_certificate, make_certificate
from plait_node.wire.dial import Destination
from plait_node.wire.identity import MAX_FRAME_BYTES
from plait_node.wire.tensor import FP32

pytestmark = pytest.mark.timeout(900)

ENDS_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mason:
    """A staked stranger who serves nothing yet."""

    owner: Address
    service: Key


@pytest.fixture(scope="module")
async def mason(running_network: LiveNetwork) -> Mason:
    net, service = running_network, Key.generate()
    owner = await net.wallet(tokens=1_000 * TOKEN)
    async with net.writer(owner) as writer:
        await writer.register_node(STAGE, f"dht://127.0.0.1:{free_port()}")
        await writer.stake(500 * TOKEN)
        await writer.add_service_key(service)
    return Mason(owner=owner.address, service=service)


@dataclass(slots=True, kw_only=True)
class Setting:
    """What a node's configuration says; a test spoils one part of it."""

    net: LiveNetwork
    folder: Path
    models: Path
    role: str = "stage"
    dht_port: int = 0
    port: int = 0

    def write(self, mason: Mason) -> Path:
        home = Home.create(self.folder / "home", service=mason.service)
        text = json.dumps
        lines = [
            'home = "."',
            f"rpc = {text(self.net.rpc)}",
            f"deployment = {text(str(self.net.deployment_file))}",
            f"owner = {text(to_hex(mason.owner))}",
            f"roles = [{text(self.role)}]",
            f"models = {text(str(self.models))}",
            f"broker = {text(self.net.broker)}",
            f'[dht]\nlisten = "127.0.0.1:{self.dht_port}"',
            f'[{self.role}]\nlisten = "127.0.0.1:{self.port}"',
        ]
        if self.role == "stage":
            lines += [f"model = {text(to_hex(self.net.model))}", "first = 20\nlast = 30", f"price = {STAGE_PRICE}"]
        (home.path / "node.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return home.path / "node.toml"


def port_taken(setting: Setting) -> list[str]:
    setting.port = int(setting.net.setting("stage-ash", "stage", "listen").rpartition(":")[2])
    return [f"cannot listen on 127.0.0.1:{setting.port}", "choose another one"]


def gateway_port_taken(setting: Setting) -> list[str]:
    setting.role, setting.port = "gateway", int(setting.net.gateway_url.rpartition(":")[2])
    return [f"cannot listen on 127.0.0.1:{setting.port}", "free it or name another"]


def dht_port_taken(setting: Setting) -> list[str]:
    setting.role = "gateway"
    setting.dht_port = int(setting.net.setting("worker", "dht", "listen").rpartition(":")[2])
    return [str(setting.dht_port), "in use"]


def tokenizer_missing(setting: Setting) -> list[str]:
    next(setting.models.glob("0x*/tokenizer.json")).unlink()
    return ["tokenizer.json is missing", "run `plait node publish` again"]


def template_changed(setting: Setting) -> list[str]:
    path = next(setting.models.glob("0x*/chat_template.jinja"))
    path.write_bytes(path.read_bytes() + b" ")
    return ["chat_template.jinja is not the file that the manifest names", "run `plait node publish` again"]


def weights_changed(setting: Setting) -> list[str]:
    weights = setting.folder / "weights.gguf"
    shutil.copy(find_embedded_model(MODEL), weights)
    with weights.open("r+b") as file:
        file.seek(weights.stat().st_size - 1_000)  # the last tensor is of the last block
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    source = next(setting.models.glob("0x*/source.json"))
    facts = json.loads(source.read_text(encoding="utf-8"))
    facts |= {"embedded": None, "path": str(weights)}
    source.write_text(json.dumps(facts), encoding="utf-8")
    return ["weights.gguf", "manifest"]


SPOILED = (port_taken, gateway_port_taken, dht_port_taken, tokenizer_missing, template_changed, weights_changed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A node that was started with something wrong: what it should say, what it said, how it ended."""

    says: list[str]
    text: str
    status: int | None
    ready: bool


async def started(net: LiveNetwork, mason: Mason, folder: Path, spoil: Callable[[Setting], list[str]]) -> Ended:
    models, log = folder / "models", folder / "node.log"
    shutil.copytree(net.folder_of("models"), models)
    setting = Setting(net=net, folder=folder, models=models)
    says = spoil(setting)
    process = launch(setting.write(mason), log)
    try:
        await until(lambda: process.poll() is not None, f"{spoil.__name__}: it goes on", within_s=ENDS_S)
    finally:
        process.kill()
        process.wait()
    ready = (folder / "home" / "ready.json").exists()
    return Ended(says=says, text=log.read_text(encoding="utf-8"), status=process.returncode, ready=ready)


@pytest.fixture(scope="module")
async def ended(
    running_network: LiveNetwork, mason: Mason, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Ended]:
    """Start a node for each thing that can be wrong, all at once: most of the time goes into imports."""
    await running_network.revive()
    folders = {spoil: tmp_path_factory.mktemp(spoil.__name__) for spoil in SPOILED}
    found = await asyncio.gather(*(started(running_network, mason, folders[spoil], spoil) for spoil in SPOILED))
    return {spoil.__name__: each for spoil, each in zip(SPOILED, found, strict=True)}


@pytest.mark.parametrize("name", [spoil.__name__ for spoil in SPOILED])
def test_node_that_cannot_start_says_why_in_one_line_and_ends(ended: dict[str, Ended], name: str) -> None:
    node = ended[name]
    assert node.status == 1, node.text
    assert all(each in node.text.strip().splitlines()[-1] for each in node.says), node.text
    assert "Traceback" not in node.text
    assert not node.ready


async def link_to(net: LiveNetwork, name: str, identity: PeerIdentity, directory: CachedDirectory) -> Link:
    """Dial a live stage as its neighbours do."""
    node = net.nodes[name]
    pem, key = ((node.home / f"certificate.{end}").read_bytes() for end in ("pem", "key"))
    address = net.setting(name, "stage", "listen")
    pinned = load_certificate(pem, key).fingerprint
    return await Dialer(identity=identity, directory=directory).dial(
        Destination.parse(address, owner=node.owner, certificate=pinned)
    )


async def served(net: LiveNetwork, tmp_path: Path) -> tuple[str, ...]:
    """Ask a short question; return who computed the answer."""
    async with net.payer(tmp_path) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=talk("Hi."), max_tokens=4, temperature=0)
        return tuple(stage.node for stage in answer.job.route)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff" * 100, "these bytes are no frame"),
        (bytes(MAX_FRAME_BYTES + 1), "above the limit"),
        (pb.Frame(tokens=pb.Tokens(job=bytes(32), ids=[1])).SerializeToString(), "takes no frame of kind tokens"),
    ],
    ids=["garbled", "oversized", "wrong kind"],
)
async def test_bad_frame_closes_the_stream_and_the_stage_serves_on(
    net: LiveNetwork, mason: Mason, tmp_path: Path, data: bytes, reason: str
) -> None:
    stage = net.nodes["stage-ash"]
    pid, before = stage.pid, len(stage.text())
    async with net.reader() as reader:
        identity = PeerIdentity(
            owner=mason.owner, key=mason.service, certificate=make_certificate(), domain=net.deployment.domain
        )
        link = await link_to(net, stage.name, identity, CachedDirectory(reader))
        link._outbox.put(data, len(data))
        # What the peer itself hears may be gRPC's own word, as its stream dies while it writes; the stage's log counts.
        await asyncio.wait_for(link.wait_closed(), 60)
    blamed = f"peer blamed owner={to_hex(mason.owner)}"
    await until(lambda: blamed in stage.text()[before:], "the stage blames nobody")
    assert any(blamed in line and reason in line for line in stage.text()[before:].splitlines())
    assert stage.alive
    assert to_hex(stage.owner) in await served(net, tmp_path)
    assert stage.pid == pid


async def test_rows_of_the_wrong_type_end_the_job_blame_their_sender_and_the_stage_serves_on(
    net: LiveNetwork, tmp_path: Path
) -> None:
    stage, worker = net.nodes["stage-ash"], net.owner("worker")
    before = len(stage.text())
    async with net.payer(tmp_path / "payer") as client, net.reader() as reader:
        # The worker itself turns bad: its key sends floats where ids belong.
        identity = PeerIdentity(
            owner=worker, key=net.service_key("worker"), certificate=make_certificate(), domain=net.deployment.domain
        )
        link = await link_to(net, stage.name, identity, CachedDirectory(reader))
        stream = await client.chat.completions.create(
            model=MODEL, messages=talk("Tell me a long story."), max_tokens=200, temperature=0, stream=True
        )
        rows, sent = encode_rows(np.ones((1, 576), dtype=np.float32), codec=FP32), False
        with pytest.raises(PlaitError) as caught:
            async for _ in stream:
                if not sent:
                    job = stream._run.verifier.job
                    assert job is not None
                    step = stream.usage.total_tokens
                    frame = pb.Rows(job=struct_hash(job), step=step, count=1, codec=FP32, data=rows)
                    await link.send(pb.Frame(rows=frame))
                    sent = True
        await asyncio.wait_for(link.wait_closed(), 60)
        assert "malformed rows" in link.reason
        assert caught.value.text
        assert stream.paid <= stream.price_of(stream.verified_tokens)
    blamed = f"peer blamed owner={to_hex(worker)}"
    assert any(blamed in line and "malformed rows" in line for line in stage.text()[before:].splitlines())
    assert stage.alive
    assert to_hex(stage.owner) in await served(net, tmp_path / "next")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """Somebody without stake who says that he serves blocks 10-19, for nothing and faster than anybody."""

    owner: Address
    port: int
    dht: LibtorrentDht


@pytest.fixture(scope="module", autouse=True)
async def stranger(running_network: LiveNetwork) -> AsyncGenerator[Stranger]:
    """Announce while the other tests run: the worker looks around every 15 seconds."""
    net, key, port = running_network, Key.generate(), free_port()
    async with net.reader() as reader:
        peers = await ChainNodes(reader).peers()
    dht = LibtorrentDht(host="127.0.0.1", port=free_port(), peers=peers)
    await dht.start()
    try:
        await dht.joined(peers=3)
        announcer = Announcer(
            dht=dht,
            dht_key=DhtKey(bytes(range(32))),
            key=key,
            domain=net.deployment.domain,
            node=key.address,
            clock=time.time,
        )
        facts = NodeFacts(
            model=net.model,
            first=10,
            last=20,
            profile=ModelStore(net.folder_of("models")).open(net.model).manifest.profiles[0].profile_id,
            step_micros=1,
            free_steps=8_192,
            queue=0,
            price=0,
            host="127.0.0.1",
            port=port,
            certificate=keccak(b"certificate"),
        )
        announcing = asyncio.create_task(announcer.run(lambda: facts))  # a record lives for a minute
        yield Stranger(owner=key.address, port=port, dht=dht)
        announcing.cancel()
        await asyncio.gather(announcing, return_exceptions=True)
    finally:
        await dht.stop()


async def test_unstaked_node_that_announces_blocks_is_ignored_and_counted(
    net: LiveNetwork, stranger: Stranger, tmp_path: Path
) -> None:
    log = net.nodes["worker"].log
    line = f"announcer ignored reason=unknown_announcer host=127.0.0.1 port={stranger.port}"
    await until(lambda: line in log.read_text(encoding="utf-8"), "the worker does not see it", within_s=120)
    async with net.reader() as reader:
        directory = Directory(
            dht=stranger.dht,
            nodes=ChainNodes(reader),
            keys=CachedDirectory(reader),
            domain=net.deployment.domain,
            clock=time.time,
        )
        owners = {record.owner for record in await directory.stages(net.model)}
    assert stranger.owner not in owners
    assert net.owner("stage-ash") in owners
    assert directory.dropped["unknown_announcer"] >= 1
    assert to_hex(stranger.owner) not in await served(net, tmp_path)
