"""Leaves as hostile stages would send them: each mistake is laid at the right door."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.node.wire.peers import DOMAIN
from tests.node.worker.asked import Asked
from tests.node.worker.world import World, world

from plait.protocol.ids import Hash
from plait.protocol.messages import Leaf
from plait.protocol.tree import tree_root
from plait.protocol.typed import Key, Signed
from plait.protocol.windows import Cut, leaf_data
from plait_node.worker.errors import StageFailure
from plait_node.worker.leaves import LeafBook

PROMPT = [token % 60 for token in range(20)]


def book_of(made: World, asked: Asked) -> LeafBook:
    """Return an empty book for a job whose leaves are known."""
    assert asked.job is not None
    fed = [*PROMPT, *asked.verifier.ids]
    book = LeafBook(
        domain=DOMAIN,
        directory=made.net.directory,
        request=asked.request.message,
        job=asked.job.struct_hash(),
        route=asked.job.message.route,
        cut=Cut(prompt_end=len(PROMPT)),
        salt_rows=asked.content_key.salt("rows"),
        token_at=lambda step: fed[step],
    )
    book.last_step = len(PROMPT) + len(asked.verifier.ids) - 1
    return book


async def answered(made: World) -> Asked:
    asked = await made.asking(PROMPT, max_tokens=20)
    await asked.run()
    return asked


def signed_again(made: World, leaf: Signed[Leaf], **changed: object) -> Signed[Leaf]:
    """Return a leaf with other content under its own stage's key."""
    key = made.net.nodes[leaf.message.stage].identity.key
    return key.signed(DOMAIN, replace(leaf.message, **changed))  # type: ignore[arg-type]


async def fill(made: World, book: LeafBook, leaves: list[Signed[Leaf]]) -> list[int]:
    whole: list[int] = []
    for leaf in leaves:
        owner = made.net.nodes[leaf.message.stage].identity.owner
        whole += [window.index for window, _ in await book.add(owner, leaf)]
    return whole


async def test_book_true_leaves_in_any_order_of_stages_become_windows(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        asked = await answered(made)
        book = book_of(made, asked)
        by_stage = sorted(asked.leaves, key=lambda leaf: (-leaf.message.stage, leaf.message.window))
        assert await fill(made, book, by_stage) == [0, 1, 2, 3]  # 16 and 4 of the prompt, 16 and 3 of the answer
        assert book.complete
        first = book.windows[0]
        assert book.root(first) == tree_root(leaf_data(DOMAIN, leaf) for leaf in asked.leaves[:3])
        assert book.root(book.windows[-1]) == tree_root(leaf_data(DOMAIN, leaf) for leaf in asked.leaves)
        assert await fill(made, book, asked.leaves) == []  # the same once more changes nothing


@pytest.mark.parametrize(
    ("index", "changed", "blamed", "text"),
    [
        (0, {"in_root": Hash(b"\x01" * 32)}, 0, "not the ids it was sent"),
        (0, {"out_root": Hash(b"\x01" * 32)}, 1, "another upstream leaf"),
        (1, {"in_root": Hash(b"\x01" * 32)}, 1, "input differs from upstream"),
        (1, {"up_leaf": Hash(b"\x01" * 32)}, 1, "another upstream leaf"),
        (4, {"prev_leaf": Hash(b"\x01" * 32)}, 1, "chain is broken"),
        (2, {"count": 15}, 2, "as the job is cut"),
        (2, {"job": Hash(b"\x01" * 32)}, 2, "another job"),
        (2, {"print": Hash(b"\x01" * 32)}, 2, "no profile defines"),
    ],
)
async def test_book_leaf_with_one_field_changed_blames_its_signer(
    tmp_path: Path, index: int, changed: dict[str, object], blamed: int, text: str
) -> None:
    async with world(tmp_path) as made:
        asked = await answered(made)
        leaves = list(asked.leaves)
        leaves[index] = signed_again(made, leaves[index], **changed)
        with pytest.raises(StageFailure, match=text) as caught:
            await fill(made, book_of(made, asked), leaves)
        assert caught.value.owner == made.net.nodes[blamed].identity.owner
        pair = "upstream" in text
        assert caught.value.accuser == (made.net.nodes[blamed - 1].identity.owner if pair else None)


async def test_book_leaf_out_of_order_or_of_another_stage_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        asked = await answered(made)
        with pytest.raises(StageFailure, match="window 1 where 0 is next"):
            await fill(made, book_of(made, asked), asked.leaves[3:4])
        with pytest.raises(StageFailure, match="another stage") as caught:
            await book_of(made, asked).add(made.net.nodes[2].identity.owner, asked.leaves[0])
        assert caught.value.owner == made.net.nodes[2].identity.owner


async def test_book_leaf_signed_by_nobodys_key_blames_who_sent_it(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        asked = await answered(made)
        forged = Key.generate().signed(DOMAIN, asked.leaves[1].message)
        with pytest.raises(StageFailure, match="service key") as caught:
            await fill(made, book_of(made, asked), [asked.leaves[0], forged])
        assert caught.value.owner == made.net.nodes[1].identity.owner


async def test_book_laggard_is_the_stage_with_the_fewest_leaves(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        asked = await answered(made)
        book = book_of(made, asked)
        assert book.laggard() == 0
        await fill(made, book, [leaf for leaf in asked.leaves if leaf.message.stage == 0])
        assert book.laggard() == 1
