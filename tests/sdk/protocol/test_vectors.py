from __future__ import annotations

import runpy
import sys

import pytest
from tests.sdk.protocol.vectors import FOLDER, KINDS, load, message, raw

from plait.protocol.choice import choice_hash
from plait.protocol.commitments import RunningHash, ids_from, prompt_commitment, stop_commitment
from plait.protocol.ids import Address, Hash, authorization_nonce, channel_id, group_id
from plait.protocol.manifest import FP32_STRICT, Manifest, Tensor, weights_root
from plait.protocol.messages import Terms
from plait.protocol.money import job_price, stage_fee_rounded_up, worker_share_rounded_down
from plait.protocol.receipts import ClaimRow, ReceiptLeaf
from plait.protocol.sealing import AnswerOpener, ContentKey, Note, PrekeySecret, open_prompt, seal_prompt
from plait.protocol.tree import Tree, verify_consistency, verify_inclusion
from plait.protocol.typed import Domain, Key, Signed, digest, recover, struct_hash
from plait.protocol.windows import (
    Cut,
    Window,
    first_lineage,
    leaves_root,
    lineage,
    progress_to,
    row_hash,
    salted_root,
    window_root,
)


def domain_of(vectors: dict) -> Domain:
    found = vectors["domain"]
    return Domain(chain_id=found["chainId"], channels=Address(raw(found["verifyingContract"])))


def test_vectors_regenerated_are_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["make.py", "--check"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / "make.py"), run_name="__main__")
    assert ended.value.code == 0


def test_eip712_vectors_cover_every_message() -> None:
    assert set(load("eip712")["messages"]) == set(KINDS)


@pytest.mark.parametrize("kind", list(KINDS))
def test_eip712_message_hashes_and_signs_as_eth_account(kind: str) -> None:
    vectors = load("eip712")
    domain, case = domain_of(vectors), vectors["messages"][kind]
    made = message(kind, case["value"])
    assert domain.separator == raw(vectors["domain"]["separator"])
    assert struct_hash(made) == raw(case["structHash"])
    assert digest(domain, made) == raw(case["digest"])
    key = Key.from_hex(vectors["secret"])
    assert key.address == raw(case["signer"])
    assert key.sign(domain, made) == raw(case["signature"])
    assert recover(domain, made, raw(case["signature"])) == key.address


def test_ids_match_vectors() -> None:
    vectors = load("ids")
    for case in vectors["channels"]:
        parts = [Address(raw(case[name])) for name in ("payer", "payee", "signer")]
        assert channel_id(*parts) == raw(case["id"])
    for case in vectors["authorizations"]:
        assert authorization_nonce(Hash(raw(case["channel"])), Hash(raw(case["salt"]))) == raw(case["nonce"])
    for case in vectors["groups"]:
        assert group_id(Hash(raw(case["model"])), case["class"], case["tier"], case["cohort"]) == raw(case["id"])


def test_claim_rows_match_vectors() -> None:
    vectors = load("claims")
    for case in vectors["rows"]:
        row = ClaimRow.unpack(raw(case["row"]))
        assert row.pack() == raw(case["row"])
        assert (row.payer, row.cumulative) == (raw(case["payer"]), int(case["cumulative"]))
        assert (row.jobs, row.receipts_root) == (case["jobs"], raw(case["receiptsRoot"]))
        value = {"payer": case["payer"], "payee": vectors["payee"], "cumulative": case["cumulative"]}
        voucher = message("Voucher", {**value, "jobs": case["jobs"], "receiptsRoot": case["receiptsRoot"]})
        assert digest(domain_of(vectors), voucher) == raw(case["digest"])
        assert recover(domain_of(vectors), voucher, row.signature) == raw(case["signer"])


def test_receipts_tree_matches_pymerkle() -> None:
    vectors, tree = load("receipts"), Tree()
    roots = [raw(root) for root in vectors["roots"]]
    assert tree.root() == roots[0]
    for case in vectors["leaves"]:
        leaf = ReceiptLeaf(
            kind=case["kind"],
            hash=Hash(raw(case["hash"])),
            hop_amount=int(case["hopAmount"]),
            windows_paid=case["windowsPaid"],
        )
        assert leaf.encode() == raw(case["data"])
        tree.append(leaf.encode())
        assert tree.root() == roots[len(tree)]
    data = [raw(case["data"]) for case in vectors["leaves"]]
    for case in vectors["inclusion"]:
        index, size, proof = case["index"], case["size"], tuple(map(raw, case["proof"]))
        assert tree.inclusion(index, size) == proof
        verify_inclusion(data[index], index=index, size=size, proof=proof, root=Hash(roots[size]))
    for case in vectors["consistency"]:
        old, new, proof = case["old"], case["new"], tuple(map(raw, case["proof"]))
        assert tree.consistency(old, new) == proof
        verify_consistency(
            old_size=old, new_size=new, old_root=Hash(roots[old]), new_root=Hash(roots[new]), proof=proof
        )


def test_commitments_match_vectors() -> None:
    vectors = load("commitments")
    key = ContentKey(raw(vectors["contentKey"]))
    for name, salt in vectors["salts"].items():
        assert key.salt(name) == raw(salt)
    assert prompt_commitment(key, vectors["promptIds"]) == raw(vectors["prompt"])
    assert ContentKey.public().salt("prompt") == raw(vectors["publicPromptSalt"])
    assert prompt_commitment(ContentKey.public(), vectors["promptIds"]) == raw(vectors["publicPrompt"])
    assert stop_commitment(key, vectors["stopStrings"]) == raw(vectors["stop"])
    assert stop_commitment(key, []) == bytes(32)
    running = RunningHash(key, Hash(raw(vectors["request"])))
    assert running.value == raw(vectors["running"][0])
    for token, value in zip(vectors["outputIds"], vectors["running"][1:], strict=True):
        assert running.extend([token]) == raw(value)


def test_cuts_match_vectors() -> None:
    for case in load("windows")["cuts"]:
        prompt_end = case["inputTokens"] + case["start"]
        windows = Cut(prompt_end=prompt_end).windows(case["end"])
        assert len(windows) == len(case["windows"])
        for window, expected in zip(windows, case["windows"], strict=True):
            assert window == Window(index=expected["index"], start=expected["start"], count=expected["count"])
            to = progress_to(
                prompt_end=prompt_end,
                input_tokens=case["inputTokens"],
                start=case["start"],
                window_end=window.end,
            )
            assert to == expected["to"]
        assert case["windows"][-1]["to"] == case["start"] + case["outputs"]


def test_leaves_match_vectors() -> None:
    vectors = load("windows")
    salt, number, domain = raw(vectors["saltRows"]), vectors["window"], domain_of(vectors)
    for at, boundary in enumerate(vectors["boundaries"]):
        hashes = [row_hash(row["step"], raw(row["data"])) for row in boundary["rows"]]
        assert hashes == [raw(row["hash"]) for row in boundary["rows"]]
        assert window_root(hashes) == raw(boundary["root"])
        assert salted_root(salt, boundary=at, window=number, root=window_root(hashes)) == raw(boundary["salted"])
    leaves = []
    for case in vectors["leaves"]:
        leaf = Signed(message=message("Leaf", case["value"]), signature=raw(case["signature"]))
        assert leaf.digest(domain) == raw(case["digest"])
        leaves.append(leaf)
    assert leaves_root(domain, leaves) == raw(vectors["leavesRoot"])
    chain = vectors["lineage"]
    first = first_lineage(
        Hash(raw(chain["model"])), first_block=chain["firstBlock"], profile=Hash(raw(chain["profile"]))
    )
    assert first == raw(chain["first"])
    assert lineage(first, Hash(raw(vectors["boundaries"][0]["root"]))) == raw(chain["next"])


def test_sealing_matches_vectors() -> None:
    vectors = load("sealing")
    request, job, node = (raw(vectors[name]) for name in ("request", "job", "node"))
    key = ContentKey(raw(vectors["contentKey"]))
    assert key.prompt_key(Hash(request)) == raw(vectors["promptKey"])
    assert key.answer_key(Hash(job)) == raw(vectors["answerKey"])
    for case in vectors["capsules"]:
        prekey = PrekeySecret(kem=case["kem"], secret=raw(case["secret"]))
        assert prekey.public == raw(case["public"])
        opened = prekey.open(raw(case["capsule"]), request=Hash(request), node=Address(node))
        assert opened.secret_bytes() == key.secret_bytes()
    prompt = vectors["prompt"]
    assert open_prompt(key, Hash(request), raw(prompt["sealed"])) == (prompt["ids"], prompt["stop"])
    assert seal_prompt(key, Hash(request), prompt["ids"], prompt["stop"]) == raw(prompt["sealed"])
    opener = AnswerOpener(key, request=Hash(request), job=Hash(job))
    opened = [opener.open(raw(sealed)) for sealed in vectors["answer"]["sealed"]]
    assert opened == [(5, 6, 7), (2,), Note(text=b'{"method":"plain"}')]


def test_manifest_matches_vectors() -> None:
    vectors = load("manifest")
    assert FP32_STRICT.profile_id == raw(vectors["profile"]["id"])
    text = vectors["manifest"]["json"].encode()
    manifest = Manifest.from_json(text)
    assert manifest.to_json() == text
    assert manifest.model_id == raw(vectors["manifest"]["id"])
    assert manifest.profiles == (FP32_STRICT,)
    tensors = [Tensor(name=n, dtype=d, shape=tuple(s), sha256=raw(h)) for n, d, s, h in vectors["tensors"]]
    assert weights_root(tensors) == manifest.weights
    choice = vectors["choice"]
    assert choice_hash(choice["method"], choice["amounts"]) == raw(choice["hash"])


def test_prices_match_vectors() -> None:
    vectors = load("prices")
    for case in vectors["jobs"]:
        terms = Terms(
            profile=Hash(bytes(32)), input_price=int(case["inputPrice"]), output_price=int(case["outputPrice"])
        )
        price = job_price(terms, input_tokens=case["inputTokens"], output_tokens=case["outputTokens"])
        assert price == int(case["price"])
    for case in vectors["shares"]:
        assert worker_share_rounded_down(int(case["amount"]), case["share"]) == int(case["workerAmount"])
    for case in vectors["stages"]:
        assert stage_fee_rounded_up(case["steps"], case["blocks"], int(case["price"])) == int(case["fee"])


def test_records_match_vectors() -> None:
    vectors = load("records")
    for case in vectors["records"]:
        record = message("Record", case["value"])
        assert digest(domain_of(vectors), record) == raw(case["digest"])
        assert recover(domain_of(vectors), record, raw(case["signature"])) == raw(vectors["signer"])
        assert bytes([record.kind]) + record.topic == raw(case["salt"])


@pytest.mark.parametrize("which", ["public", "commitment"])
def test_on_chain_request_matches_vectors(which: str) -> None:
    vectors = load("requests")
    case = vectors if which == "public" else vectors["commitment"]
    request = message("Request", case["value"])
    assert struct_hash(request) == raw(case["structHash"])
    assert digest(domain_of(vectors), request) == raw(case["digest"])

    key = ContentKey(raw(case["contentKey"]))
    assert (key.secret_bytes() == ContentKey.public().secret_bytes()) == (which == "public")
    assert key.salt("prompt") == raw(case["promptSalt"])
    ids = ids_from(raw(case["promptIds"]))
    assert prompt_commitment(key, ids) == raw(case["params"]["prompt"]) == request.prompt
    assert len(ids) == case["params"]["inputTokens"] == request.input_tokens
