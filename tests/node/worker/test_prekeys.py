"""Prekeys live a day, survive a restart, and are nobody else's to read."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.node.stage.tiny import MANIFEST
from tests.node.wire.peers import DOMAIN
from tests.node.worker.world import world

from plait.protocol.checks import PREKEY_LIFE_S
from plait.protocol.errors import SealingError
from plait.protocol.ids import Hash, address
from plait.protocol.sealing import HYBRID, ContentKey, seal_capsule
from plait.protocol.typed import Key
from plait_node.worker import Admission, PrekeyError, PrekeyRing

NODE = address(b"\x07" * 20)
REQUEST = Hash(b"\x08" * 32)
KEY = Key.generate()


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def ring(path: Path, clock: Clock, **changed: int) -> PrekeyRing:
    return PrekeyRing(path / "prekeys.json", key=KEY, domain=DOMAIN, node=NODE, clock=clock, **changed)


@pytest.mark.parametrize("kem", [{}, {"kem": HYBRID}])
def test_prekey_after_a_restart_opens_what_was_sealed_before(tmp_path: Path, kem: dict[str, int]) -> None:
    clock = Clock()
    prekey = ring(tmp_path, clock, **kem).current()
    content_key = ContentKey.generate()
    capsule = seal_capsule(
        content_key, prekey_public=prekey.message.key, kem=prekey.message.kem, request=REQUEST, node=NODE
    )
    _, secret = ring(tmp_path, clock).held({prekey.struct_hash()})
    opened = secret.open(capsule, request=REQUEST, node=NODE)
    assert opened.secret_bytes() == content_key.secret_bytes()
    with pytest.raises(SealingError):
        secret.open(capsule, request=REQUEST, node=address(b"\x01" * 20))


def test_prekey_is_signed_and_lives_at_most_a_day(tmp_path: Path) -> None:
    prekey = ring(tmp_path, Clock()).current()
    assert prekey.signer(DOMAIN) == KEY.address
    assert prekey.message.node == NODE
    assert prekey.message.expires - prekey.message.valid_from <= PREKEY_LIFE_S


def test_prekey_is_renewed_at_half_its_life_and_the_old_one_still_opens(tmp_path: Path) -> None:
    clock = Clock()
    keys = ring(tmp_path, clock)
    first = keys.current()
    assert keys.current() == first
    clock.now += PREKEY_LIFE_S / 2 + 1
    second = keys.current()
    assert second != first
    keys.held({first.struct_hash()})
    clock.now += PREKEY_LIFE_S
    keys.current()
    with pytest.raises(PrekeyError, match="new quote"):
        keys.held({first.struct_hash()})


def test_prekey_file_is_for_its_owner_only(tmp_path: Path) -> None:
    ring(tmp_path, Clock()).current()
    assert (tmp_path / "prekeys.json").stat().st_mode & 0o777 == 0o600


def test_prekey_file_that_is_broken_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "prekeys.json").write_text('[{"prekey": "zz"}]')
    with pytest.raises(PrekeyError, match="remove it"):
        ring(tmp_path, Clock())


async def test_prekeys_of_two_workers_of_one_owner_open_each_its_own_capsule(tmp_path: Path) -> None:
    """Both are in the quote; which of the owner's capsules is whose is not said."""
    async with world(tmp_path) as made:
        owner, second = made.who.owner, tmp_path / "second"
        second.mkdir()
        keys = PrekeyRing(second / "prekeys.json", key=made.who.key, domain=DOMAIN, node=owner, clock=time.time)
        made.fellows = [SimpleNamespace(who=made.who, prekeys=keys, share=0)]  # type: ignore[list-item]
        asked = await made.asking([1, 2, 3], max_tokens=4)
        for ring_of in (made.prekeys, keys):
            admission = Admission(
                owner=owner, domain=DOMAIN, directory=made.net.directory, prekeys=ring_of, manifest=MANIFEST
            )
            task = await admission.admit(asked.call, now=time.time())
            assert task.ids == (1, 2, 3)
