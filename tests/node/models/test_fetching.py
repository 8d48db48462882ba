"""A model that is not here is fetched from whoever has it, each tensor checked; a fetch that broke off goes on."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.model.tiny import BLOCKS, write_tiny
from tests.model.tiny_families import write_family

from plait.protocol.ids import Hash, keccak, to_hex
from plait_model.blank import blank, needed
from plait_model.source import open_weights
from plait_node.engine import Lane, StageEngine
from plait_node.listener import serve_app
from plait_node.models import ModelStore, StoredModel, prepare
from plait_node.models.errors import ModelFetchError, ModelFileMissingError
from plait_node.models.fetching import Fetcher, block_sizes, held_blocks
from plait_node.models.giving import TensorShelf, make_weights_app

QUICK = (0.0, 0.0)
Change = Callable[[Request, Response], Awaitable[Response]]


def gguf(folder: Path) -> Path:
    folder.mkdir()
    return write_tiny(folder / "tiny.gguf")


def safetensors(folder: Path) -> Path:
    return write_family(folder, "qwen3", shard="20KB")


@pytest.fixture(params=[gguf, safetensors])
def given(request: pytest.FixtureRequest, tmp_path: Path) -> StoredModel:
    """Return a model as whoever published it has it."""
    return prepare(request.param(tmp_path / "original"), tmp_path / "theirs")


@asynccontextmanager
async def serving(app: Starlette) -> AsyncGenerator[str]:
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve_app(app, host="127.0.0.1", port=0, ready=port.set_result))
    try:
        yield f"http://127.0.0.1:{await port}"
    finally:
        task.cancel()
        await asyncio.wait({task})


@asynccontextmanager
async def giver(stored: StoredModel, *, rate: int = 1 << 30) -> AsyncGenerator[str]:
    shelf = TensorShelf(stored.folder.parent)
    async with serving(make_weights_app(shelf, bytes_a_second=rate)) as url:
        yield url
    shelf.close()


@asynccontextmanager
async def between(url: str, change: Change) -> AsyncGenerator[str]:
    """Serve a source that passes on what another has, changed for tensors."""

    async def call(request: Request) -> Response:
        sent = {"range": request.headers["range"]} if "range" in request.headers else {}
        async with httpx.AsyncClient() as client:
            came = await client.get(f"{url}{request.url.path}", headers=sent)
        kept = {name: came.headers[name] for name in ("content-range",) if name in came.headers}
        answer = Response(came.content, status_code=came.status_code, headers=kept)
        return await change(request, answer) if "/tensors/" in request.url.path else answer

    async with serving(Starlette(routes=[Route("/{path:path}", call)])) as where:
        yield where


def fetcher(tmp_path: Path, *sources: str) -> Fetcher:
    return Fetcher(store=ModelStore(tmp_path / "mine"), sources=sources, rounds_s=QUICK)


def tensors_here(stored: StoredModel) -> set[str]:
    with open_weights(stored.weights()) as file:
        return {each.name for each in stored.tensors if file.describe(each.name) == each}


def hidden(stored: StoredModel, first: int, last: int) -> np.ndarray:
    """Return what a stage over some blocks makes of a few rows."""
    lane = Lane(compiled=False)
    engine = StageEngine(
        stored.weights(), stored.manifest, first=first, last=last, kv_steps=64, tensors=stored.tensors, lane=lane
    )
    job = Hash(bytes(32))
    engine.open(job, 32)
    rows = np.arange(5) if first == 0 else np.ones((5, stored.manifest.hidden), dtype=np.float32)
    return engine.step_one(job, 0, rows).rows


@pytest.mark.parametrize(("first", "last"), [(0, 1), (1, BLOCKS), (0, BLOCKS)])
async def test_fetch_brings_just_the_blocks_and_they_compute_the_same(
    tmp_path: Path, given: StoredModel, first: int, last: int
) -> None:
    async with giver(given) as url:
        fetch = fetcher(tmp_path, url)
        mine = await fetch.papers(given.model_id)
        wanted = needed(mine.tensors, first=first, last=last, blocks=mine.manifest.blocks)
        size = await fetch.tensors(mine, wanted)
        assert await fetch.tensors(mine, wanted) == 0
    assert (mine.manifest, mine.tokenizer_json, mine.chat_template) == (
        given.manifest,
        given.tokenizer_json,
        given.chat_template,
    )
    assert tensors_here(mine) >= {each.name for each in wanted}
    assert 0 < size <= mine.weights().stat().st_size
    assert list((mine.folder / "parts").iterdir()) == []
    again = ModelStore(tmp_path / "mine").open(given.model_id)
    assert np.array_equal(hidden(again, first, last), hidden(given, first, last))


async def test_fetch_of_further_blocks_moves_only_what_is_not_here(tmp_path: Path, given: StoredModel) -> None:
    blocks = given.manifest.blocks
    async with giver(given) as url:
        fetch = fetcher(tmp_path, url)
        mine = await fetch.papers(given.model_id)
        first = await fetch.tensors(mine, needed(mine.tensors, first=0, last=1, blocks=blocks))
        assert held_blocks(mine) == {0}
        rest = await fetch.tensors(mine, needed(mine.tensors, first=0, last=blocks, blocks=blocks))
    assert held_blocks(mine) == set(range(blocks))
    assert first + rest == sum(size for _, size in blank(mine.tensors).places.values())
    assert sum(block_sizes(mine)) < first + rest


async def test_fetch_that_breaks_off_goes_on_from_the_byte_where_it_was(tmp_path: Path, given: StoredModel) -> None:
    asked: list[str] = []

    async def half(request: Request, answer: Response) -> Response:
        asked.append(request.headers.get("range", ""))
        body = bytes(answer.body)
        return Response(body[: len(body) // 2], status_code=answer.status_code, headers=dict(answer.headers))

    async def listen(request: Request, answer: Response) -> Response:
        asked.append(request.headers.get("range", ""))
        return answer

    wanted = [max(given.tensors, key=lambda tensor: tensor.shape)]
    size = blank(given.tensors).places[wanted[0].name][1]
    async with giver(given) as url:
        mine = await fetcher(tmp_path, url).papers(given.model_id)
        async with between(url, short(half)) as broken:
            with pytest.raises(ModelFetchError, match=wanted[0].name):
                await fetcher(tmp_path, broken).tensors(mine, wanted)
        (part,) = (mine.folder / "parts").iterdir()
        came = part.stat().st_size
        assert 0 < came < size
        asked.clear()
        async with between(url, listen) as whole:
            await fetcher(tmp_path, whole).tensors(mine, wanted)
    assert asked == [f"bytes={came}-"]
    assert wanted[0].name in tensors_here(mine)


def short(change: Change) -> Change:
    """Leave the length to what was left of the body."""

    async def call(request: Request, answer: Response) -> Response:
        for name in ("content-length", "content-type"):
            del answer.headers[name]
        return await change(request, answer)

    return call


async def flipped(_: Request, answer: Response) -> Response:
    body = bytearray(answer.body)
    body[len(body) // 2] ^= 1
    return Response(bytes(body), status_code=answer.status_code)


async def endless(_: Request, answer: Response) -> Response:
    return Response(bytes(answer.body) + bytes(1 << 20), status_code=answer.status_code)


async def gone(_: Request, answer: Response) -> Response:
    del answer
    return Response(status_code=404)


async def elsewhere(_: Request, answer: Response) -> Response:
    return Response(bytes(answer.body), status_code=206, headers={"Content-Range": "bytes 7-9/10"})


@pytest.mark.parametrize("change", [flipped, endless, gone, elsewhere])
async def test_source_that_lies_is_passed_over_and_nothing_of_it_stays(
    tmp_path: Path, given: StoredModel, change: Change
) -> None:
    async with giver(given) as url, between(url, change) as liar:
        fetch = fetcher(tmp_path, liar, url)
        mine = await fetch.papers(given.model_id)
        await fetch.tensors(mine, mine.tensors)
        assert tensors_here(mine) == {each.name for each in mine.tensors}
        alone = fetcher(tmp_path / "alone", liar)
        mine = await alone.papers(given.model_id)
        with pytest.raises(ModelFetchError, match=liar):
            await alone.tensors(mine, mine.tensors)
    assert tensors_here(mine) == set()


async def test_bytes_of_a_liar_that_broke_off_do_not_make_an_honest_source_one(
    tmp_path: Path, given: StoredModel
) -> None:
    wanted = [max(given.tensors, key=lambda tensor: tensor.shape)]
    async with giver(given) as url:
        fetch = fetcher(tmp_path, url)
        mine = await fetch.papers(given.model_id)
        part = mine.folder / "parts" / wanted[0].sha256.hex()
        part.parent.mkdir()
        part.write_bytes(b"\xff" * 100)
        await fetch.tensors(mine, wanted)
        assert fetch._liars == set()
    assert wanted[0].name in tensors_here(mine)


async def test_source_that_ignores_ranges_begins_anew(tmp_path: Path, given: StoredModel) -> None:
    async def whole(request: Request, answer: Response) -> Response:
        async with httpx.AsyncClient() as client:
            return Response((await client.get(f"{url}{request.url.path}")).content)

    wanted = [max(given.tensors, key=lambda tensor: tensor.shape)]
    async with giver(given) as url, between(url, whole) as plain:
        fetch = fetcher(tmp_path, plain)
        mine = await fetch.papers(given.model_id)
        (mine.folder / "parts").mkdir()
        (mine.folder / "parts" / wanted[0].sha256.hex()).write_bytes(b"\0" * 10)
        await fetch.tensors(mine, wanted)
    assert wanted[0].name in tensors_here(mine)


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", "weights.json"])
async def test_papers_that_were_changed_are_refused(tmp_path: Path, given: StoredModel, name: str) -> None:
    mirror = tmp_path / "mirror"
    write_mirror(mirror, given)
    places = {
        "manifest.json": f"manifests/{to_hex(given.model_id)}",
        "tokenizer.json": f"files/{to_hex(given.manifest.tokenizer)}",
        "weights.json": f"weights/{to_hex(given.model_id)}",
    }
    path = mirror / "v1" / places[name]
    path.write_bytes(path.read_bytes().replace(b"t", b"T", 1))
    with pytest.raises(ModelFetchError, match="gave its manifest"):
        await static(tmp_path, mirror).papers(given.model_id)
    assert ModelStore(tmp_path / "mine").ids() == []


async def test_static_mirror_is_a_source_like_any_other(tmp_path: Path, given: StoredModel) -> None:
    mirror = tmp_path / "mirror"
    write_mirror(mirror, given)
    fetch = static(tmp_path, mirror)
    mine = await fetch.papers(given.model_id)
    await fetch.tensors(mine, mine.tensors)
    assert tensors_here(mine) == {each.name for each in mine.tensors}
    with pytest.raises(ModelFileMissingError, match="only the tensors that were fetched"):
        mine.check_weights()


def write_mirror(folder: Path, stored: StoredModel) -> None:
    name = to_hex(stored.model_id)
    files: dict[str, bytes] = {
        f"manifests/{name}": stored.manifest.to_json(),
        f"files/{to_hex(keccak(stored.tokenizer_json))}": stored.tokenizer_json,
        f"files/{to_hex(keccak(stored.chat_template.encode()))}": stored.chat_template.encode(),
        f"weights/{name}": (stored.folder / "weights.json").read_bytes(),
    }
    with open_weights(stored.weights()) as file:
        files |= {f"tensors/{to_hex(each.sha256)}": file.piece(each.name, 0, 1 << 40) for each in stored.tensors}
    for place, content in files.items():
        (folder / "v1" / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / "v1" / place).write_bytes(content)


def static(tmp_path: Path, mirror: Path) -> Fetcher:
    def answer(request: httpx.Request) -> httpx.Response:
        path = mirror / request.url.path[1:]
        if not path.is_file():
            return httpx.Response(404)
        return httpx.Response(200, stream=httpx.ByteStream(path.read_bytes()))

    transport = httpx.MockTransport(answer)
    return Fetcher(store=ModelStore(tmp_path / "mine"), sources=["https://mirror"], rounds_s=QUICK, transport=transport)


async def test_fetch_without_a_source_says_so(tmp_path: Path, given: StoredModel) -> None:
    with pytest.raises(ModelFetchError, match="no source is known"):
        await fetcher(tmp_path).papers(given.model_id)
    with pytest.raises(ModelFetchError, match=r"http://127\.0\.0\.1:1"):
        await fetcher(tmp_path, "http://127.0.0.1:1").papers(given.model_id)


async def test_giver_gives_nothing_that_is_not_whole(tmp_path: Path, given: StoredModel) -> None:
    async with giver(given) as url:
        fetch = fetcher(tmp_path, url)
        mine = await fetch.papers(given.model_id)
        wanted = needed(mine.tensors, first=0, last=1, blocks=mine.manifest.blocks)
        await fetch.tensors(mine, wanted)
    async with giver(mine) as url, httpx.AsyncClient(base_url=url) as client:
        here = {each.sha256 for each in wanted}
        for tensor in mine.tensors:
            answer = await client.get(f"/v1/tensors/{to_hex(tensor.sha256)}")
            assert answer.status_code == (200 if tensor.sha256 in here else 404)
        assert (await client.get("/v1/tensors/0x12")).status_code == 400
        assert (await client.get(f"/v1/files/{to_hex(bytes(32))}")).status_code == 404
        assert (await client.get(f"/v1/weights/{to_hex(bytes(32))}")).status_code == 404
        past = await client.get(f"/v1/tensors/{to_hex(wanted[0].sha256)}", headers={"Range": "bytes=999999999-"})
        assert past.status_code == 416


async def test_giver_takes_so_many_at_once_and_holds_its_rate(tmp_path: Path, given: StoredModel) -> None:
    tensor = max(given.tensors, key=lambda each: each.shape)
    async with giver(given, rate=1 << 10) as url, httpx.AsyncClient(base_url=url) as client:
        path = f"/v1/tensors/{to_hex(tensor.sha256)}"
        opened = [client.build_request("GET", path) for _ in range(8)]
        answers = [await client.send(each, stream=True) for each in opened]
        refused = await client.get(path)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert {each.status_code for each in answers} == {200}
        for each in answers:
            await each.aclose()


def test_shelf_leaves_out_a_model_that_was_changed(
    tmp_path: Path, given: StoredModel, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(given.folder, given.folder.parent / f"0x{'1' * 64}")
    shelf = TensorShelf(given.folder.parent)
    assert shelf.paper(given.model_id, "manifest.json") is not None
    assert "model not given" in caplog.text
    shelf.close()


def names(tensors: Iterable[object]) -> set[str]:
    return {each.name for each in tensors}  # type: ignore[attr-defined]


def test_needed_are_the_blocks_and_the_ends_of_the_model(given: StoredModel) -> None:
    blocks = given.manifest.blocks
    every = [names(needed(given.tensors, first=at, last=at + 1, blocks=blocks)) for at in range(blocks)]
    assert set.union(*every) == names(given.tensors)
    outer = [name for name in names(given.tensors) if "embed" in name or "embd" in name]
    assert set(outer) <= every[0]
    assert all(not name.endswith("norm.weight") or "." in name[:-11] for name in every[0])
