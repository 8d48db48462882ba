from __future__ import annotations

import contextlib
from dataclasses import fields, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from plait.protocol.codec import (
    Payment,
    amount_bytes,
    amount_from,
    from_pb,
    parse,
    payment_from_pb,
    payment_to_pb,
    signed_from_pb,
    signed_to_pb,
    to_pb,
)
from plait.protocol.errors import BadProofError, BadSignatureError, MalformedMessageError, SealingError
from plait.protocol.ids import Address, Hash, Signature
from plait.protocol.messages import MESSAGES, Field, Message, Pay, Quote, Request, ServiceKey, Terms, Voucher, layout
from plait.protocol.money import (
    input_price_rounded_up,
    job_price,
    stage_fee_rounded_up,
    worker_share_rounded_down,
)
from plait.protocol.pb import signed_pb2
from plait.protocol.receipts import ClaimRow, ReceiptLeaf
from plait.protocol.sealing import (
    AnswerOpener,
    AnswerSealer,
    ContentKey,
    PrekeySecret,
    open_prompt,
    seal_capsule,
    seal_prompt,
)
from plait.protocol.tree import EMPTY_ROOT, Tree, verify_consistency, verify_inclusion
from plait.protocol.typed import Domain, Key, Signed
from plait.protocol.windows import WINDOW_STEPS, Cut

DOMAIN = Domain(chain_id=1, channels=Address(b"\7" * 20))
KEY = Key.from_bytes(b"\1" * 32)
TRAVELLING = [kind for kind in MESSAGES if kind is not ServiceKey]
amounts = st.integers(0, (1 << 96) - 1)
HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
uint32 = st.integers(0, (1 << 32) - 1)
hashes = st.binary(min_size=32, max_size=32)


def values(field: Field) -> st.SearchStrategy[Any]:
    if field.struct is not None:
        one = messages(field.struct)
    elif field.solidity.startswith("uint"):
        one = st.integers(0, (1 << int(field.solidity[4:])) - 1)
    elif field.solidity == "bool":
        one = st.booleans()
    elif field.solidity == "bytes":
        one = st.binary(max_size=32)
    else:
        size = {"address": 20, "bytes32": 32, "bytes8": 8}[field.solidity]
        one = st.binary(min_size=size, max_size=size)
    return st.lists(one, max_size=4).map(tuple) if field.is_list else one


def messages(kind: type[Message]) -> st.SearchStrategy[Message]:
    return st.builds(kind, **{field.name: values(field) for field in layout(kind)})


@pytest.mark.parametrize("kind", TRAVELLING)
@given(data=st.data())
@settings(max_examples=20)
def test_codec_any_message_comes_back(kind: type[Message], data: st.DataObject) -> None:
    made = data.draw(messages(kind))
    bytes_ = to_pb(made).SerializeToString()
    assert from_pb(parse(getattr(signed_pb2, kind.__name__), bytes_), kind) == made


@given(data=st.data(), at=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=150)
def test_codec_changed_bytes_never_verify_as_before(data: st.DataObject, at: int, bit: int) -> None:
    made = data.draw(messages(Quote))
    wire = bytearray(signed_to_pb(KEY.signed(DOMAIN, made)).SerializeToString())
    wire[at % len(wire)] ^= 1 << bit
    try:
        received = signed_from_pb(parse(signed_pb2.SignedQuote, bytes(wire)), Quote)
        assert (received.message, received.signer(DOMAIN)) != (made, KEY.address) or received.message == made
        if received.message != made:
            assert received.signer(DOMAIN) != KEY.address
    except (MalformedMessageError, BadSignatureError):
        pass


@given(st.binary(max_size=300))
def test_codec_garbage_raises_malformed_only(data: bytes) -> None:
    with contextlib.suppress(MalformedMessageError):
        signed_from_pb(parse(signed_pb2.SignedVoucher, data), Voucher)


def test_codec_other_kind_or_missing_parts_refuse() -> None:
    pay = Pay(request=Hash(bytes(32)), voucher=Hash(bytes(32)), amount=1, to=1)
    with pytest.raises(MalformedMessageError, match="expected a Voucher"):
        from_pb(to_pb(pay), Voucher)
    with pytest.raises(MalformedMessageError, match="lacks its message"):
        signed_from_pb(signed_pb2.SignedPay(signature=bytes(64)), Pay)
    with pytest.raises(MalformedMessageError, match="64 bytes"):
        signed_from_pb(signed_pb2.SignedPay(message=to_pb(pay), signature=bytes(65)), Pay)
    with pytest.raises(MalformedMessageError, match="12 bytes"):
        from_pb(signed_pb2.Pay(request=bytes(32), voucher=bytes(32), amount=bytes(13)), Pay)
    with pytest.raises(MalformedMessageError):
        from_pb(signed_pb2.Request(), Request)


@pytest.mark.parametrize("kind", MESSAGES)
@given(data=st.data())
@settings(max_examples=5)
def test_messages_out_of_range_cannot_be_made(kind: type[Message], data: st.DataObject) -> None:
    made = data.draw(messages(kind))
    for field, spec in zip(fields(made), layout(kind), strict=True):
        wrong: list[Any] = [None, "text", -1, 1 << 256, b"\0" * 1_300]
        if spec.is_list:
            wrong.append(getattr(made, field.name) * 65 or (None,))
        for value in wrong:
            with pytest.raises(MalformedMessageError, match=f"{kind.__name__}.{field.name}"):
                replace(made, **{field.name: value})


@given(amounts)
def test_amount_comes_back(amount: int) -> None:
    assert amount_from(amount_bytes(amount)) == amount


@pytest.mark.parametrize("amount", [-1, 1 << 96])
def test_amount_out_of_range_refuses(amount: int) -> None:
    with pytest.raises(MalformedMessageError):
        amount_bytes(amount)


@given(
    st.builds(
        ClaimRow,
        payer=st.binary(min_size=20, max_size=20),
        cumulative=amounts,
        jobs=uint32,
        receipts_root=hashes,
        signature=st.binary(min_size=64, max_size=64),
    )
)
def test_claim_row_comes_back(row: ClaimRow) -> None:
    packed = row.pack()
    assert len(packed) == 132
    assert ClaimRow.unpack(packed) == row
    with pytest.raises(MalformedMessageError):
        ClaimRow.unpack(packed + b"\0")


@given(
    st.lists(
        st.builds(ReceiptLeaf, kind=st.integers(0, 1), hash=hashes, hop_amount=amounts, windows_paid=uint32), max_size=3
    )
)
def test_payment_comes_back(ended: list[ReceiptLeaf]) -> None:
    voucher = Voucher(
        payer=Address(b"\2" * 20), payee=Address(b"\3" * 20), cumulative=5, jobs=1, receipts_root=Hash(bytes(32))
    )
    pay = Pay(request=Hash(bytes(32)), voucher=Hash(b"\4" * 32), amount=1, to=1)
    payment = Payment(
        voucher=KEY.signed(DOMAIN, voucher),
        pay=KEY.signed(DOMAIN, pay),
        ended=tuple(ended),
        consistency=(Hash(b"\5" * 32),),
    )
    assert payment_from_pb(payment_to_pb(payment)) == payment


@given(st.lists(st.binary(max_size=40), max_size=40), st.data())
def test_tree_agrees_with_pymerkle_and_proofs_hold(leaves: list[bytes], data: st.DataObject) -> None:
    tree, reference = Tree(leaves), InmemoryTree(algorithm="keccak_256")
    for leaf in leaves:
        reference.append_entry(leaf)
    assert tree.root() == (reference.get_root() if leaves else EMPTY_ROOT)
    size = data.draw(st.integers(0, len(leaves)))
    assert tree.root(size) == (reference.get_root(size) if size else EMPTY_ROOT)
    verify_consistency(
        old_size=size,
        new_size=len(leaves),
        old_root=tree.root(size),
        new_root=tree.root(),
        proof=tree.consistency(size),
    )
    if size:
        index = data.draw(st.integers(0, size - 1))
        proof = tree.inclusion(index, size)
        assert list(proof) == reference.prove_inclusion(index + 1, size).path[1:]
        verify_inclusion(leaves[index], index=index, size=size, proof=proof, root=tree.root(size))
        with pytest.raises(BadProofError):
            verify_inclusion(leaves[index] + b"x", index=index, size=size, proof=proof, root=tree.root(size))
        with pytest.raises(BadProofError):
            verify_inclusion(
                leaves[index],
                index=index,
                size=size,
                proof=(*proof, proof[0] if proof else EMPTY_ROOT),
                root=tree.root(size),
            )


@given(st.integers(1, 40), st.data())
def test_tree_wrong_consistency_refuses(size: int, data: st.DataObject) -> None:
    tree = Tree(bytes([each]) for each in range(size))
    other = Tree([b"other", *(bytes([each]) for each in range(1, size))])
    old = data.draw(st.integers(1, size))
    for old_root, new_root, proof in (
        (other.root(old), tree.root(), tree.consistency(old)),
        (tree.root(old), other.root(), tree.consistency(old)),
        (tree.root(old), tree.root(), (*tree.consistency(old), EMPTY_ROOT)),
        (tree.root(old), tree.root(), other.consistency(old)[:-1] or (EMPTY_ROOT,)),
    ):
        with pytest.raises(BadProofError):
            verify_consistency(old_size=old, new_size=size, old_root=old_root, new_root=new_root, proof=proof)


prices = st.integers(0, 10**15)


@given(uint32, prices, uint32, uint32, prices)
def test_money_rounds_up_by_less_than_one_and_sums(
    tokens: int, price: int, more: int, out: int, out_price: int
) -> None:
    exact = Fraction(tokens * price, 10**6)
    rounded = input_price_rounded_up(tokens, price)
    assert exact <= rounded < exact + 1
    assert input_price_rounded_up(tokens + more, price) <= rounded + input_price_rounded_up(more, price)
    terms = Terms(profile=Hash(bytes(32)), input_price=price, output_price=out_price)
    assert job_price(terms, input_tokens=tokens, output_tokens=out) == rounded + input_price_rounded_up(out, out_price)


@given(amounts, st.integers(0, 10**6), uint32, st.integers(0, 200), prices)
def test_money_shares_never_exceed_what_was_paid(amount: int, share: int, steps: int, blocks: int, price: int) -> None:
    worker = worker_share_rounded_down(amount, share)
    assert 0 <= worker <= amount
    assert Fraction(amount * share, 10**6) - 1 < worker
    fee = stage_fee_rounded_up(steps, blocks, price)
    assert Fraction(steps * blocks * price, 10**6) <= fee < Fraction(steps * blocks * price, 10**6) + 1


@given(st.integers(1, 200), st.integers(0, 120), st.integers(0, 12))
def test_cut_covers_every_step_once_and_borders_hold(prompt_end: int, more: int, rows: int) -> None:
    row = rows * 16
    end = max(prompt_end, row) + more
    windows = Cut(prompt_end=prompt_end, row=row).windows(end)
    steps = [step for window in windows for step in range(window.start, window.end)]
    assert steps == list(range(row, end))
    assert [window.index for window in windows] == list(range(len(windows)))
    for window in windows:
        assert 1 <= window.count <= WINDOW_STEPS
        assert not window.start < prompt_end < window.end
        if window.end < prompt_end:
            assert window.end % 16 == 0
        elif prompt_end < window.end < end:
            assert (window.end - prompt_end) % 16 == 0


@given(st.integers(1, 90), st.integers(0, 60), st.integers(0, 60))
def test_cut_longer_answer_keeps_all_but_the_last_window(prompt_end: int, shorter: int, longer: int) -> None:
    cut = Cut(prompt_end=prompt_end)
    before, after = cut.windows(prompt_end + shorter), cut.windows(prompt_end + shorter + longer)
    assert after[: len(before) - 1] == before[:-1]


@given(st.lists(uint32, max_size=400), st.lists(st.text(min_size=1, max_size=20), max_size=4))
def test_sealed_prompt_comes_back_and_hides_its_length(ids: list[int], stop: list[str]) -> None:
    key, request = ContentKey.generate(), Hash(b"\6" * 32)
    sealed = seal_prompt(key, request, ids, stop)
    assert (len(sealed) - 16) % 1_024 == 0
    assert open_prompt(key, request, sealed) == (ids, stop)
    with pytest.raises(SealingError):
        open_prompt(key, Hash(b"\7" * 32), sealed)
    with pytest.raises(SealingError):
        open_prompt(key, request, sealed[:-1])


def test_answer_chunks_out_of_order_or_after_the_note_refuse() -> None:
    key, request, job = ContentKey.generate(), Hash(b"\6" * 32), Hash(b"\7" * 32)
    sealer = AnswerSealer(key, request=request, job=job)
    first, second, note, late = sealer.seal([1]), sealer.seal([2]), sealer.seal_note(b"{}"), sealer.seal([3])
    with pytest.raises(SealingError):
        AnswerOpener(key, request=request, job=job).open(second)
    opener = AnswerOpener(key, request=request, job=job)
    assert [opener.open(first), opener.open(second)] == [(1,), (2,)]
    assert opener.open(note).value() == {}
    with pytest.raises(SealingError, match="follows the note"):
        opener.open(late)
    for ids in ([], [0] * 65):
        with pytest.raises(SealingError):
            sealer.seal(ids)


@pytest.mark.parametrize("kem", [0x0020, 0x647A])
def test_capsule_opens_for_its_request_and_node_only(kem: int) -> None:
    key, prekey = ContentKey.generate(), PrekeySecret.generate(kem)
    request, node = Hash(b"\6" * 32), Address(b"\7" * 20)
    capsule = seal_capsule(key, prekey_public=prekey.public, kem=kem, request=request, node=node)
    assert prekey.open(capsule, request=request, node=node).secret_bytes() == key.secret_bytes()
    for other in (
        lambda: prekey.open(capsule, request=Hash(bytes(32)), node=node),
        lambda: prekey.open(capsule, request=request, node=Address(bytes(20))),
        lambda: prekey.open(capsule[:-1], request=request, node=node),
        lambda: PrekeySecret.generate(kem).open(capsule, request=request, node=node),
    ):
        with pytest.raises(SealingError):
            other()
    assert key.secret_bytes().hex() not in repr(key) + repr(prekey)


def test_unusable_prekeys_refuse() -> None:
    key, request, node = ContentKey.generate(), Hash(b"\6" * 32), Address(b"\7" * 20)
    for kem, public in ((0x20, bytes(31)), (0x20, bytes(32)), (0x99, bytes(32)), (0x647A, b"\xff" * 1_216)):
        with pytest.raises(SealingError):
            seal_capsule(key, prekey_public=public, kem=kem, request=request, node=node)


@given(st.binary(min_size=64, max_size=64), hashes)
def test_recover_any_bytes_raises_bad_signature_or_gives_an_address(signature: bytes, request: bytes) -> None:
    pay = Pay(request=Hash(request), voucher=Hash(bytes(32)), amount=0, to=0)
    with contextlib.suppress(BadSignatureError):
        assert len(Signed(message=pay, signature=Signature(signature)).signer(DOMAIN)) == 20


@pytest.mark.parametrize("s", [0, HALF_ORDER + 1, (1 << 255) - 1])
def test_recover_s_out_of_range_refuses(s: int) -> None:
    pay = Pay(request=Hash(bytes(32)), voucher=Hash(bytes(32)), amount=0, to=0)
    r = KEY.sign(DOMAIN, pay)[:32]
    for parity in (0, 1):
        signature = Signature(r + (s | parity << 255).to_bytes(32, "big"))
        with pytest.raises(BadSignatureError, match="out of range"):
            Signed(message=pay, signature=signature).signer(DOMAIN)


def test_key_never_shows_its_secret() -> None:
    key = Key.generate()
    assert key.secret_hex()[2:] not in repr(key)
    assert Key.from_hex(key.secret_hex()).address == key.address
    for wrong in ("", "0x12", "zz" * 32, "00" * 32, "ff" * 32):
        with pytest.raises(MalformedMessageError):
            Key.from_hex(wrong)
