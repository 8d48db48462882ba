"""Write the vectors that pytest and forge read, by paths that share no code with the package `plait`.

Hashes come from eth_utils, typed data from eth_account, trees from pymerkle, abi.encode from eth_abi, key
derivation from hmac, HPKE from RFC 9180 spelled out below. `--check` compares instead of writing.
"""

# ruff: noqa: ANN401 made-up values of JSON have no common type
# ruff: noqa: T201 it talks to a terminal
# budget: one page that restates the whole protocol reads better than ten
from __future__ import annotations

import hashlib
import hmac
import json
import re
import sys
from fractions import Fraction
from itertools import product
from math import ceil, floor
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PublicKey, Suite
from eth_abi import encode as abi_encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils import keccak
from pymerkle import InmemoryTree

HERE = Path(__file__).parent
CHAIN_ID = 31337
TYPES = """
Prekey(address node,uint16 kem,bytes key,uint64 validFrom,uint64 expires)
Terms(bytes32 profile,uint96 inputPrice,uint96 outputPrice)
Worker(address node,bytes32 prekey,uint32 share)
Quote(address gateway,bytes32 model,bytes8 group,Terms[] terms,Worker[] workers,uint32 maxInput,uint32 maxOutput,uint64 expires)
Sampling(uint32 temperature,uint32 topP,uint32 topK,bytes32 stop)
Request(address payer,address gateway,bytes32 quote,bytes32 model,bytes32[] profiles,bytes32 prompt,Sampling sampling,uint32 inputTokens,uint32 maxTokens,uint96 maxPrice,bytes32 seed,bytes32 nonce,uint64 deadline)
Stage(address node,uint16 first,uint16 last,uint96 price)
Job(bytes32 request,uint32 attempt,address worker,Stage[] route,bytes32 profile,bytes32 choice,uint32 start,uint32 row,bytes32 tokens,uint64 closesAt)
Leaf(bytes32 job,uint16 stage,uint32 window,uint32 start,uint32 count,bytes32 inRoot,bytes32 outRoot,bytes32 upLeaf,bytes32 prevLeaf,bytes32 print)
Progress(bytes32 job,uint32 to,bytes32 tokens,bytes32 leaves)
Receipt(bytes32 request,bytes32[] segments,uint32 inputTokens,uint32 outputTokens,bytes32 tokens,uint96 price,uint8 finish,uint64 finishedAt,uint64 closesAt)
Voucher(address payer,address payee,uint96 cumulative,uint32 jobs,bytes32 receiptsRoot)
Pay(bytes32 request,bytes32 voucher,uint96 amount,uint32 to)
Ack(bytes32 voucher,uint64 at)
Close(address payer,address payee,address signer,uint96 claimed,uint32 exitAt)
Record(uint8 kind,bytes32 topic,address node,uint64 sequence,uint64 expires,bytes32 body)
Hello(address node,address peer,bool dialer,bytes32 certificate,bytes32 nonce,bytes32 peerNonce)
Cancel(bytes32 request,uint32 to)
Resume(bytes32 request,uint64 after,uint64 expires)
Fetch(bytes32 job,uint16 stage,uint32 window,bytes reader,uint64 expires)
ServiceKey(address owner,address key)
"""  # noqa: E501 copied line by line from docs/protocol.md
SALTS = ("prompt", "tokens", "rows", "stop")
Json = dict[str, Any]


def hexed(value: bytes) -> str:
    return "0x" + value.hex()


def word(label: str) -> bytes:
    return keccak(text=label)


def account(label: str) -> Any:
    return Account.from_key(word(f"key/{label}"))


def owner(label: str) -> str:
    return account(label).address.lower()


CHANNELS = owner("channels")


def types() -> Json:
    found: Json = {}
    for name, fields in re.findall(r"^(\w+)\((.*)\)$", TYPES, re.MULTILINE):
        pairs = [field.split(" ") for field in fields.split(",")]
        found[name] = [{"type": kind, "name": key} for kind, key in pairs]
    return found


def sample(all_types: Json, kind: str, path: str) -> Any:
    """Make up a value from nothing but its type and path, at the edges of its range now and then."""
    seed = word(path)
    if kind.endswith("[]"):
        return [sample(all_types, kind[:-2], f"{path}/{index}") for index in range(1 + seed[0] % 3)]
    if kind in all_types:
        return {each["name"]: sample(all_types, each["type"], f"{path}.{each['name']}") for each in all_types[kind]}
    if kind.startswith("uint"):
        bits = int(kind[4:])
        number = int.from_bytes(seed, "big") % (1 << bits)
        return {0: 0, 1: (1 << bits) - 1}.get(seed[1] % 5, number)
    if kind == "bool":
        return bool(seed[0] & 1)
    if kind == "address":
        return hexed(seed[12:])
    return hexed(seed if kind in ("bytes", "bytes32") else seed[: int(kind[5:])])


def typed(all_types: Json, kind: str, value: Json) -> tuple[bytes, bytes, Any]:
    """Return (struct hash, digest, signable)."""
    domain_type = [
        {"name": "name", "type": "string"},
        {"name": "version", "type": "string"},
        {"name": "chainId", "type": "uint256"},
        {"name": "verifyingContract", "type": "address"},
    ]
    signable = encode_typed_data(
        full_message={
            "types": {"EIP712Domain": domain_type, **all_types},
            "primaryType": kind,
            "domain": {"name": "plait", "version": "1", "chainId": CHAIN_ID, "verifyingContract": CHANNELS},
            "message": value,
        }
    )
    return signable.body, keccak(b"\x19\x01" + signable.header + signable.body), signable


def sign(signable: Any, who: str) -> str:
    signature = account(who).sign_message(signable)
    vs = signature.s | ((signature.v - 27) << 255)
    return hexed(signature.r.to_bytes(32, "big") + vs.to_bytes(32, "big"))


def eip712() -> Json:
    all_types, messages, separator = types(), {}, b""
    for kind in all_types:
        value = sample(all_types, kind, kind)
        hashed, digest, signable = typed(used(all_types, kind), kind, value)
        separator = signable.header
        messages[kind] = {
            "value": value,
            "structHash": hexed(hashed),
            "digest": hexed(digest),
            "signer": owner("signer"),
            "signature": sign(signable, "signer"),
        }
    secret = hexed(word("key/signer"))
    domain = {"chainId": CHAIN_ID, "verifyingContract": CHANNELS, "separator": hexed(separator)}
    return {"domain": domain, "secret": secret, "messages": messages}


def used(all_types: Json, kind: str) -> Json:
    """Return the types a message needs: eth_account refuses two roots."""
    found = {kind: all_types[kind]}
    for field in all_types[kind]:
        base = field["type"].removesuffix("[]")
        if base in all_types:
            found |= used(all_types, base)
    return found


def ids() -> Json:
    channels = []
    for index in range(4):
        parts = [owner(f"{name}{index}") for name in ("payer", "payee", "session")]
        channels.append(
            {
                "payer": parts[0],
                "payee": parts[1],
                "signer": parts[2],
                "id": hexed(keccak(abi_encode(["address"] * 3, parts))),
            }
        )
    groups = []
    for klass, tier, cohort in (("cpu", 0, 0), ("gpu-80g", 3, 7)):
        text = json.dumps([hexed(word("model")), klass, tier, cohort], separators=(",", ":"))
        groups.append(
            {
                "model": hexed(word("model")),
                "class": klass,
                "tier": tier,
                "cohort": cohort,
                "id": hexed(keccak(text=text)[:8]),
            }
        )
    return {"channels": channels, "authorizations": authorizations(channels), "groups": groups}


def authorizations(channels: list[Json]) -> list[Json]:
    cases = []
    for channel, salt in ((channels[0], bytes(32)), (channels[0], word("salt")), (channels[1], word("salt"))):
        nonce = keccak(abi_encode(["bytes32", "bytes32"], [bytes.fromhex(channel["id"][2:]), salt]))
        cases.append({"channel": channel["id"], "salt": hexed(salt), "nonce": hexed(nonce)})
    return cases


def claims() -> Json:
    rows = []
    for index, cumulative in enumerate((0, 1, 123_456_789, (1 << 96) - 1)):
        value = {
            "payer": owner(f"payer{index}"),
            "payee": owner("payee"),
            "cumulative": cumulative,
            "jobs": index * 1000,
            "receiptsRoot": hexed(word(f"root{index}")),
        }
        hashed, digest, signable = typed({"Voucher": types()["Voucher"]}, "Voucher", value)
        signature = sign(signable, "session")
        packed = (
            bytes.fromhex(value["payer"][2:])
            + cumulative.to_bytes(12, "big")
            + value["jobs"].to_bytes(4, "big")
            + word(f"root{index}")
            + bytes.fromhex(signature[2:])
        )
        rows.append(
            {
                **{key: str(item) if key == "cumulative" else item for key, item in value.items()},
                "structHash": hexed(hashed),
                "digest": hexed(digest),
                "signer": owner("session"),
                "signature": signature,
                "row": hexed(packed),
            }
        )
    domain = {"chainId": CHAIN_ID, "verifyingContract": CHANNELS}
    return {"domain": domain, "payee": owner("payee"), "secret": hexed(word("key/session")), "rows": rows}


def tree_cases(leaves: list[bytes]) -> Json:
    tree = InmemoryTree(algorithm="keccak_256")
    roots = [hexed(keccak(b""))]
    for leaf in leaves:
        tree.append_entry(leaf)
        roots.append(hexed(tree.get_root()))
    inclusion, consistency = [], []
    for size in (1, 2, 3, 5, 8, 13, len(leaves)):
        for index in sorted({0, size // 2, size - 1}):
            path = tree.prove_inclusion(index + 1, size).path[1:]  # counts from 1, begins with the leaf
            inclusion.append({"index": index, "size": size, "proof": [hexed(each) for each in path]})
    for old, new in ((1, 2), (1, 8), (3, 7), (4, 7), (6, 7), (8, 13), (7, len(leaves)), (16, len(leaves))):
        consistency.append({"old": old, "new": new, "proof": rfc9162_consistency(leaves, old, new)})
    return {"roots": roots, "inclusion": inclusion, "consistency": consistency}


def mth(leaves: list[bytes]) -> bytes:
    """Compute MTH as RFC 9162 section 2.1.1 words it."""
    if len(leaves) == 1:
        return keccak(b"\0" + leaves[0])
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return keccak(b"\1" + mth(leaves[:k]) + mth(leaves[k:])) if leaves else keccak(b"")


def rfc9162_consistency(leaves: list[bytes], old: int, new: int) -> list[str]:
    """Compute PROOF(m, D_n) as RFC 9162 section 2.1.4.1 words it."""

    def subproof(m: int, part: list[bytes], whole: bool) -> list[bytes]:
        n = len(part)
        if m == n:
            return [] if whole else [mth(part)]
        k = 1
        while k * 2 < n:
            k *= 2
        if m <= k:
            return [*subproof(m, part[:k], whole), mth(part[k:])]
        return [*subproof(m - k, part[k:], False), mth(part[:k])]

    return [hexed(each) for each in subproof(old, leaves[:new], True)]


def receipts() -> Json:
    leaves, packed = [], []
    for index in range(21):
        leaf = {
            "kind": index % 5 == 4,
            "hash": word(f"job{index}"),
            "hopAmount": index**7 * 1_000,
            "windowsPaid": index * 3,
        }
        data = abi_encode(["uint8", "bytes32", "uint96", "uint32"], [int(leaf["kind"]), *list(leaf.values())[1:]])
        packed.append(data)
        leaves.append(
            {
                "kind": int(leaf["kind"]),
                "hash": hexed(leaf["hash"]),
                "hopAmount": str(leaf["hopAmount"]),
                "windowsPaid": leaf["windowsPaid"],
                "data": hexed(data),
            }
        )
    cases = tree_cases(packed)
    assert cases["roots"][-1] == hexed(mth(packed))
    return {"leaves": leaves, **cases}


def hkdf(secret: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 of 32 bytes without salt (RFC 5869)."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\1", "sha256")


def ids_packed(tokens: list[int]) -> bytes:
    return b"".join(token.to_bytes(4, "big") for token in tokens)


def commitments() -> Json:
    secret, request = word("content key"), word("request")
    prompt, output, stop = [1, 49_151, 0, 256, 77], [5, 6, 4_294_967_294, 2], ["\n\n", "END", "é"]
    running = keccak(hkdf(secret, b"plait/1/salt/tokens") + request)
    chain = [hexed(running)]
    for token in output:
        running = keccak(running + ids_packed([token]))
        chain.append(hexed(running))
    stop_json = json.dumps(stop, ensure_ascii=False, separators=(",", ":")).encode()
    return {
        "contentKey": hexed(secret),
        "request": hexed(request),
        "salts": {name: hexed(hkdf(secret, b"plait/1/salt/" + name.encode())) for name in SALTS},
        "promptIds": prompt,
        "prompt": hexed(keccak(hkdf(secret, b"plait/1/salt/prompt") + ids_packed(prompt))),
        "publicPromptSalt": hexed(hkdf(bytes(32), b"plait/1/salt/prompt")),
        "publicPrompt": hexed(keccak(hkdf(bytes(32), b"plait/1/salt/prompt") + ids_packed(prompt))),
        "stopStrings": stop,
        "stop": hexed(keccak(hkdf(secret, b"plait/1/salt/stop") + stop_json)),
        "outputIds": output,
        "running": chain,
    }


def cut(prompt_end: int, row: int, end: int) -> list[Json]:
    """Cut by the words of section 6: every step that is a border is listed, then steps are dealt out."""
    borders = set(range(0, prompt_end, 16)) | {prompt_end, end}
    borders |= set(range(prompt_end, end, 16))
    inner = sorted(step for step in borders if row < step <= end)
    starts = [row, *inner[:-1]]
    return [
        {"index": index, "start": start, "count": stop - start}
        for index, (start, stop) in enumerate(zip(starts, inner, strict=True))
    ]


def windows() -> Json:
    cases = []
    for prompt, start, outputs in (
        (1, 0, 1),
        (16, 0, 40),
        (37, 0, 1),
        (37, 0, 33),
        (37, 5, 20),
        (48, 0, 17),
        (5, 11, 1),
    ):
        end = prompt + start + outputs - 1
        pieces = cut(prompt + start, 0, end)
        for piece in pieces:
            last = piece["start"] + piece["count"]
            piece["to"] = start if last < prompt + start else last - prompt + 1
        cases.append({"inputTokens": prompt, "start": start, "outputs": outputs, "end": end, "windows": pieces})
    return {"cuts": cases, **leaves_of_three()}


def leaves_of_three() -> Json:
    """One window through three stages: row hashes, roots, salted roots, leaves, progress."""
    salt, job = hkdf(word("content key"), b"plait/1/salt/rows"), word("job")
    boundaries = [[hashlib.sha256(f"{b}/{step}".encode()).digest() for step in range(16, 21)] for b in range(4)]
    rows, roots, salted = [], [], []
    for boundary, data in enumerate(boundaries):
        hashes = [hashlib.sha256(step.to_bytes(4, "big") + row).digest() for step, row in enumerate(data, 16)]
        root = mth(hashes)
        inner = keccak(salt + boundary.to_bytes(2, "big") + (1).to_bytes(4, "big"))
        rows.append([{"step": 16 + i, "data": hexed(data[i]), "hash": hexed(hashes[i])} for i in range(5)])
        roots.append(root)
        salted.append(keccak(inner + root))
    leaves = chained_leaves(job, salted)
    data = [bytes.fromhex(leaf["digest"][2:] + leaf["signature"][2:]) for leaf in leaves]
    first = keccak(word("model") + (10).to_bytes(2, "big") + word("profile"))
    return {
        "domain": {"chainId": CHAIN_ID, "verifyingContract": CHANNELS},
        "saltRows": hexed(salt),
        "window": 1,
        "boundaries": [{"rows": rows[b], "root": hexed(roots[b]), "salted": hexed(salted[b])} for b in range(4)],
        "leaves": leaves,
        "leavesRoot": hexed(mth(data)),
        "lineage": {
            "model": hexed(word("model")),
            "firstBlock": 10,
            "profile": hexed(word("profile")),
            "first": hexed(first),
            "next": hexed(keccak(first + roots[0])),
        },
    }


def chained_leaves(job: bytes, salted: list[bytes]) -> list[Json]:
    leaves, upstream = [], bytes(32)
    for stage in range(3):
        value = {
            "job": hexed(job),
            "stage": stage,
            "window": 1,
            "start": 16,
            "count": 5,
            "inRoot": hexed(salted[stage]),
            "outRoot": hexed(salted[stage + 1]),
            "upLeaf": hexed(upstream),
            "prevLeaf": hexed(word(f"prev{stage}")),
            "print": hexed(bytes(32)),
        }
        _, upstream, signable = typed({"Leaf": types()["Leaf"]}, "Leaf", value)
        leaves.append({"value": value, "digest": hexed(upstream), "signature": sign(signable, f"stage{stage}")})
    return leaves


def hpke_seal(public: bytes, ephemeral: bytes, plain: bytes, info: bytes) -> bytes:
    """RFC 9180 base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, sequence 0."""

    def labeled_extract(suite: bytes, salt: bytes, label: bytes, key: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + key, "sha256")

    def labeled_expand(suite: bytes, key: bytes, label: bytes, context: bytes, size: int) -> bytes:
        info_ = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context
        return hmac.digest(key, info_ + b"\1", "sha256")[:size]

    secret = x25519.X25519PrivateKey.from_private_bytes(ephemeral)
    enc = secret.public_key().public_bytes_raw()
    shared = secret.exchange(x25519.X25519PublicKey.from_public_bytes(public))
    kem = b"KEM" + (0x20).to_bytes(2, "big")
    eae = labeled_extract(kem, b"", b"eae_prk", shared)
    shared_secret = labeled_expand(kem, eae, b"shared_secret", enc + public, 32)
    suite = b"HPKE" + b"".join(each.to_bytes(2, "big") for each in (0x20, 1, 3))
    psk_id = labeled_extract(suite, b"", b"psk_id_hash", b"")
    context = b"\0" + psk_id + labeled_extract(suite, b"", b"info_hash", info)
    scheduled = labeled_extract(suite, shared_secret, b"secret", b"")
    key = labeled_expand(suite, scheduled, b"key", context, 32)
    nonce = labeled_expand(suite, scheduled, b"base_nonce", context, 12)
    return enc + ChaCha20Poly1305(key).encrypt(nonce, plain, b"")


def varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])


def sealing(before: Json) -> Json:
    secret, request, job, node = word("content key"), word("request"), word("job"), bytes.fromhex(owner("worker")[2:])
    prekey = word("prekey")
    public = x25519.X25519PrivateKey.from_private_bytes(prekey).public_key().public_bytes_raw()
    info = b"plait/1/key" + request + node
    prompt_ids, stop = [1, 49_151, 0, 256, 0], ["END"]
    packed = b"".join(map(varint, prompt_ids))
    body = b"\x0a" + varint(len(packed)) + packed + b"\x12" + varint(3) + b"END"
    plain = len(body).to_bytes(4, "big") + body
    plain += bytes(-len(plain) % 1024)
    answer = ChaCha20Poly1305(hkdf(secret, b"plait/1/answer" + job))
    chunks = [b"\0" + ids_packed([5, 6, 7]), b"\0" + ids_packed([2]), b'\1{"method":"plain"}']
    sealed = [answer.encrypt(at.to_bytes(12, "big"), chunk, request + job) for at, chunk in enumerate(chunks)]
    prompt_key = hkdf(secret, b"plait/1/prompt" + request)
    return {
        "contentKey": hexed(secret),
        "request": hexed(request),
        "job": hexed(job),
        "node": hexed(node),
        "promptKey": hexed(prompt_key),
        "answerKey": hexed(hkdf(secret, b"plait/1/answer" + job)),
        "capsules": [
            {
                "kem": 0x20,
                "secret": hexed(prekey),
                "public": hexed(public),
                "capsule": hexed(hpke_seal(public, word("ephemeral"), secret, info)),
            },
            hybrid(before, secret, info),
        ],
        "prompt": {
            "ids": prompt_ids,
            "stop": stop,
            "plain": hexed(plain),
            "sealed": hexed(ChaCha20Poly1305(prompt_key).encrypt(bytes(12), plain, request)),
        },
        "answer": {"plain": [hexed(each) for each in chunks], "sealed": [hexed(each) for each in sealed]},
    }


def hybrid(before: Json, secret: bytes, info: bytes) -> Json:
    """Return a capsule to open: ML-KEM's encapsulation is random, so one made once is kept."""
    if "capsules" in before:
        return before["capsules"][1]
    inner = mlkem.MLKEM768PrivateKey.from_seed_bytes(word("seed a") + word("seed b")).public_key()
    outer = x25519.X25519PrivateKey.from_private_bytes(word("prekey")).public_key()
    suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
    return {
        "kem": 0x647A,
        "secret": hexed(word("seed a") + word("seed b") + word("prekey")),
        "public": hexed(inner.public_bytes_raw() + outer.public_bytes_raw()),
        "capsule": hexed(suite.encrypt(secret, MLKEM768X25519PublicKey(inner, outer), info=info)),
    }


def manifests() -> Json:
    profile = dict.fromkeys(("accumulate", "decodeCodec", "prefillCodec", "weights"), "fp32")
    profile |= {"name": "fp32-strict", "sampler": "plait/1"}
    tensors = [["b.weight", "F32", [4], "b"], ["a.weight", "Q4_1", [2, 64], "a"], ["a.bias", "F32", [2], "c"]]
    for tensor in tensors:
        tensor[3] = hexed(hashlib.sha256(tensor[3].encode()).digest())
    leaves = [compact(tensor) for tensor in sorted(tensors, key=lambda tensor: tensor[0].encode())]
    manifest = {
        "architecture": "llama",
        "blocks": 30,
        "bosToken": "<|im_start|>",
        "chatTemplate": hexed(word("template")),
        "config": {"head_dim": 64, "rms_norm_eps": 0.00001, "tie_word_embeddings": True},
        "context": 8192,
        "endTokens": [2],
        "eosToken": "<|im_end|>",
        "hidden": 576,
        "licence": "Apache-2.0",
        "name": "SmolLM2-135M-Instruct",
        "profiles": [profile],
        "tokenizer": hexed(word("tokenizer")),
        "version": 1,
        "vocabulary": 49152,
        "weights": hexed(mth(leaves)),
    }
    text = compact(manifest).replace(b"1e-05", b"0.00001")  # RFC 8785 writes numbers as ECMAScript does
    return {
        "profile": {"json": compact(profile).decode(), "id": hexed(keccak(compact(profile)))},
        "manifest": {"json": text.decode(), "id": hexed(keccak(text))},
        "tensors": tensors,
        "choice": {
            "method": "chunked-prefill",
            "amounts": {"chunk": 32},
            "hash": hexed(keccak(text='{"amounts":{"chunk":32},"method":"chunked-prefill"}')),
        },
    }


def compact(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def prices() -> Json:
    jobs = []
    for tokens_in, tokens_out, price_in, price_out in (
        (0, 0, 2_000_000, 8_000_000),
        (1, 1, 1, 1),
        (31, 64, 2_000_000, 8_000_000),
        (999_999, 1_000_001, 3, 7),
        (4_294_967_295, 4_294_967_295, 10**12, 10**12),
    ):
        price = ceil(Fraction(tokens_in * price_in, 10**6)) + ceil(Fraction(tokens_out * price_out, 10**6))
        jobs.append(
            {
                "inputTokens": tokens_in,
                "outputTokens": tokens_out,
                "inputPrice": str(price_in),
                "outputPrice": str(price_out),
                "price": str(price),
            }
        )
    parts = product((0, 1, 999, 10**18), (0, 1, 333_333, 10**6))
    shares = [[amount, share, floor(Fraction(amount * share, 10**6))] for amount, share in parts]
    stages = ((1, 10, 60_000), (37, 10, 60_000), (2, 3, 166_667), (0, 5, 9))
    fees = [[s, b, p, ceil(Fraction(s * b * p, 10**6))] for s, b, p in stages]
    return {
        "jobs": jobs,
        "shares": [{"amount": str(a), "share": s, "workerAmount": str(w)} for a, s, w in shares],
        "stages": [{"steps": s, "blocks": b, "price": str(p), "fee": str(f)} for s, b, p, f in fees],
    }


def records() -> Json:
    body = b"any body"
    cases = []
    for kind in range(3):
        value = {
            "kind": kind,
            "topic": hexed(word(f"topic{kind}")),
            "node": owner("worker"),
            "sequence": 1_800_000_000_000 + kind,
            "expires": 1_800_000_060,
            "body": hexed(keccak(body)),
        }
        _, digest, signable = typed({"Record": types()["Record"]}, "Record", value)
        cases.append(
            {
                "value": value,
                "bodyBytes": hexed(body),
                "salt": hexed(bytes([kind]) + word(f"topic{kind}")),
                "digest": hexed(digest),
                "signature": sign(signable, "worker"),
            }
        )
    return {"domain": {"chainId": CHAIN_ID, "verifyingContract": CHANNELS}, "signer": owner("worker"), "records": cases}


PARAMS = (
    "address payer,address gateway,bytes32 model,bytes32 profile,bytes32 prompt,uint32 temperature,uint32 topP,"
    "uint32 topK,uint32 inputTokens,uint32 maxTokens,uint96 fee,uint64 exclusiveUntil,uint64 deadline,"
    "uint32 callbackGas"
)


def on_chain() -> Json:
    """One request with a public prompt, and one whose prompt reaches the node off chain under a key of its own."""
    times = {"exclusiveUntil": 1_799_999_940, "deadline": 1_800_000_000}
    greedy = {"temperature": 0, "topP": 1_000_000, "topK": 0, "maxTokens": 16, "fee": 5_000, **times, "callbackGas": 0}
    widest = {"temperature": 700_000, "topP": 1, "topK": (1 << 32) - 1, "maxTokens": (1 << 32) - 1}
    widest |= {"fee": (1 << 96) - 1, **times, "callbackGas": 1_000_000}
    return {
        "domain": {"chainId": CHAIN_ID, "verifyingContract": CHANNELS},
        "requests": owner("requests"),
        **on_chain_case(7, bytes(32), [1, 2, 3], greedy),
        "commitment": on_chain_case(8, word("content key"), [1, 49_151, 0, 256, 77], widest),
    }


def on_chain_case(identifier: int, content_key: bytes, prompt_ids: list[int], order: Json) -> Json:
    seed = keccak(abi_encode(["uint256", "address", "uint256"], [CHAIN_ID, owner("requests"), identifier]))
    salt = hkdf(content_key, b"plait/1/salt/prompt")
    asked = {
        "payer": owner("caller"),
        "gateway": owner("gateway"),
        "model": hexed(word("model")),
        "profile": hexed(word("profile")),
        "prompt": hexed(keccak(salt + ids_packed(prompt_ids))),
        "inputTokens": len(prompt_ids),
        **order,
    }
    params = {field.split(" ")[1]: asked[field.split(" ")[1]] for field in PARAMS.split(",")}
    value = request_of(params, seed)
    hashed, digest, _ = typed(used(types(), "Request"), "Request", value)
    return {
        "id": identifier,
        "seed": hexed(seed),
        "contentKey": hexed(content_key),
        "promptSalt": hexed(salt),
        "promptIds": hexed(ids_packed(prompt_ids)),
        "params": params,
        "paramsHash": hexed(keccak(encoded(params))),
        "value": value,
        "structHash": hexed(hashed),
        "digest": hexed(digest),
    }


def encoded(params: Json) -> bytes:
    """Encode the struct word by word, as abi.encode lays out a struct of fixed size."""
    kinds = [field.split(" ")[0] for field in PARAMS.split(",")]
    values = [
        bytes.fromhex(each[2:]) if kind == "bytes32" else each
        for kind, each in zip(kinds, params.values(), strict=True)
    ]
    return abi_encode(kinds, values)


def request_of(params: Json, seed: bytes) -> Json:
    """Return the message that a request on chain stands for (section 3, on-chain path)."""
    sampling = {name: params[name] for name in ("temperature", "topP", "topK")} | {"stop": hexed(bytes(32))}
    return {
        "payer": params["payer"],
        "gateway": params["gateway"],
        "quote": hexed(bytes(32)),
        "model": params["model"],
        "profiles": [params["profile"]],
        "prompt": params["prompt"],
        "sampling": sampling,
        "inputTokens": params["inputTokens"],
        "maxTokens": params["maxTokens"],
        "maxPrice": params["fee"],
        "seed": hexed(seed),
        "nonce": hexed(seed),
        "deadline": params["deadline"],
    }


def safe(value: Any) -> Any:
    """Write integers that a double does not hold as decimal strings, as everywhere in our JSON."""
    if isinstance(value, dict):
        return {key: safe(item) for key, item in value.items()}
    if isinstance(value, list):
        return [safe(item) for item in value]
    return str(value) if type(value) is int and value > 2**53 - 1 else value


def main() -> int:
    """Write or check every file; return 1 when a file differs."""
    kept = HERE / "sealing.json"
    before = json.loads(kept.read_text()) if kept.exists() else {}
    made = {
        "eip712": eip712(),
        "ids": ids(),
        "claims": claims(),
        "receipts": receipts(),
        "commitments": commitments(),
        "windows": windows(),
        "sealing": sealing(before),
        "manifest": manifests(),
        "prices": prices(),
        "records": records(),
        "requests": on_chain(),
    }
    stale = []
    for name, value in made.items():
        path, text = HERE / f"{name}.json", json.dumps(safe(value), indent=1, ensure_ascii=False) + "\n"
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(path.name)
    if stale:
        print(f"stale vectors: {', '.join(stale)}; run chain_tests/vectors/make.py")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
