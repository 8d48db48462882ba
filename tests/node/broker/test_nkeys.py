from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from plait_node.broker import BrokerAccess, NkeyError
from plait_node.broker.nkeys import Nkey

# Both of NATS's own documentation of nkey users.
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


def test_nkey_of_a_known_seed_has_the_known_name() -> None:
    key = Nkey.from_seed(f"{SEED}\n")
    assert (key.public, key.seed) == (PUBLIC, SEED)


@given(st.binary(min_size=32, max_size=32))
def test_nkey_written_and_read_is_the_same(secret: bytes) -> None:
    key = Nkey(secret)
    assert Nkey.from_seed(key.seed) == key
    assert key.seed.startswith("SU")
    assert key.public.startswith("U")


def test_nkey_signs_a_nonce_for_its_public_key() -> None:
    key = Nkey.generate()
    raw = base64.b32decode(key.public)
    Ed25519PublicKey.from_public_bytes(raw[1:33]).verify(base64.b64decode(key.sign("nonce")), b"nonce")


@given(
    st.text(max_size=70)
    | st.integers(0, 57).map(lambda at: SEED[:at] + ("A" if SEED[at] != "A" else "B") + SEED[at + 1 :])
)
def test_nkey_of_a_damaged_seed_is_refused(text: str) -> None:
    with pytest.raises(NkeyError, match="SU"):
        Nkey.from_seed(text)


def test_access_names_the_file_that_cannot_be_used(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\xff nothing")
    for path in (broken, tmp_path / "missing"):
        with pytest.raises(NkeyError, match=str(path)):
            BrokerAccess(nkey=path).key()
        with pytest.raises(NkeyError, match=str(path)):
            BrokerAccess(ca=path).tls()
