"""PROTOCOL section 7 once more, in plain integers and `math`, sharing no line with the sampler.

Run as a program it prints the vectors of chain_tests/vectors/sampler.json.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import sys
from typing import Any

import numpy as np
from Crypto.Hash import keccak

MASK = 2**64 - 1
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)


def philox_block(counter: int, key: int) -> tuple[int, int, int, int]:
    c = [counter >> 64 * word & MASK for word in range(4)]
    k = [key >> 64 * word & MASK for word in range(2)]
    for _ in range(10):
        first, second = c[0] * MULTIPLIERS[0], c[2] * MULTIPLIERS[1]
        c = [second >> 64 ^ c[1] ^ k[0], second & MASK, first >> 64 ^ c[3] ^ k[1], first & MASK]
        k = [(k[word] + WEYL[word]) & MASK for word in range(2)]
    return c[0], c[1], c[2], c[3]


def raw_words(seed: bytes, request: bytes, position: int, count: int) -> list[int]:
    digest = keccak.new(digest_bits=256, data=seed + request).digest()
    key = int.from_bytes(digest[:16], "little")
    words: list[int] = []
    block = position << 128
    while len(words) < count:
        block += 1  # the generator steps its counter before it makes a block
        words += philox_block(block, key)
    return words[:count]


def draw(
    logits: list[float], *, seed: bytes, request: bytes, position: int, temperature: int, top_p: int, top_k: int
) -> int:
    if temperature == 0:
        return max(range(len(logits)), key=lambda index: (logits[index], -index))
    x = [logit / (temperature / 1_000_000) for logit in logits]
    kept = sorted(range(len(x)), key=lambda index: (-x[index], index))
    if top_k:
        kept = kept[:top_k]
    if top_p < 1_000_000:
        mass: list[float] = []
        for index in kept:
            mass.append((mass[-1] if mass else 0.0) + math.exp(x[index] - x[kept[0]]))
        length = next(n for n, reached in enumerate(mass, 1) if reached * 1_000_000 >= top_p * mass[-1])
        kept = kept[:length]
    words = raw_words(seed, request, position, len(logits))

    def score(index: int) -> float:
        u = ((words[index] >> 12) + 0.5) * 2.0**-52
        return x[index] - math.log(-math.log(u))

    return max(kept, key=lambda index: (score(index), -index))


def draw_from_all(row: np.ndarray, *, noise: np.ndarray, temperature: int, top_p: int, top_k: int) -> tuple[int, float]:
    """Return the token and its margin, by sorting and looking at the whole row in float64, whatever is asked for."""
    x = row.astype(np.float64)
    kept, scores, border = np.arange(len(x)), x, np.inf
    if temperature:
        x /= temperature / 1_000_000
        kept = np.argsort(-x, kind="stable")[: top_k or None]
        if top_p < 1_000_000:
            mass = np.cumsum(np.exp(x[kept] - x[kept[0]]))
            border = float(np.abs(mass / mass[-1] - top_p / 1_000_000).min())
            kept = kept[: int(np.argmax(mass * 1_000_000 >= top_p * mass[-1])) + 1]
        scores = x[kept] + noise[kept]
    token = int(kept[scores == scores.max()].min())
    others = scores[kept != token]
    gap = float(scores.max() - others.max()) if len(others) else np.inf
    return token, min(gap, border)


def made_logits(label: str, count: int) -> list[float]:
    """Return fp32 values in [-12, 12): uint32 of SHA-256(label, index as 4 bytes)[:4], scaled by 24 / 2**32."""
    found = []
    for index in range(count):
        word = int.from_bytes(hashlib.sha256(label.encode() + index.to_bytes(4, "big")).digest()[:4], "big")
        found.append(struct.unpack("<f", struct.pack("<f", word * 24 / 2**32 - 12))[0])
    return found


def case(number: int, **fields: Any) -> dict[str, Any]:
    seed = keccak.new(digest_bits=256, data=b"seed %d" % number).digest()
    request = keccak.new(digest_bits=256, data=b"request %d" % number).digest()
    fields = {"temperature": 1_000_000, "topP": 1_000_000, "topK": 0, "position": number, **fields}
    logits = fields.get("logits") or made_logits(fields["logits_seed"], fields["vocab"])
    token = draw(
        logits,
        seed=seed,
        request=request,
        position=fields["position"],
        temperature=fields["temperature"],
        top_p=fields["topP"],
        top_k=fields["topK"],
    )
    made = {"seed": "0x" + seed.hex(), "request": "0x" + request.hex(), "vocab": len(logits), **fields}
    return {**made, "token": token}


def vectors() -> dict[str, Any]:
    small = [1.5, -0.25, 3.0, 3.0, 0.5, -7.0, 2.75, 0.0]
    tied = [2.0, 2.0, 2.0, 2.0, 2.0]
    cases = [
        case(0, logits=small, temperature=0),
        case(1, logits=tied, temperature=0, topP=1, topK=1),
        case(2, logits=tied, topK=1),
        case(3, logits=tied, topP=400_000),
        *(case(number, logits=small) for number in range(4, 8)),
        *(case(number, logits=small, temperature=700_000, topP=900_000, topK=5) for number in range(8, 12)),
        case(12, logits=small, topP=1),
        case(13, logits=small, temperature=4_294_967_295, position=4_294_967_295),
        case(14, logits=small, temperature=1),
        *(case(number, logits_seed=f"logits {number}", vocab=1_000) for number in range(15, 18)),
        *(case(number, logits_seed=f"logits {number}", vocab=1_000, topP=800_000) for number in range(18, 21)),
        *(case(number, logits_seed=f"logits {number}", vocab=1_000, topK=40) for number in range(21, 24)),
        case(24, logits_seed="logits 24", vocab=49_152, temperature=800_000, topP=950_000, topK=0),
        case(25, logits_seed="logits 25", vocab=49_152, temperature=0),
        case(26, logits_seed="logits 26", vocab=49_152, temperature=1_500_000, topK=50, position=2**31),
    ]
    return {
        "section": 7,
        "logits_seed": "logit i = fp32(uint32(SHA-256(UTF-8 of the seed, i as 4 bytes)[:4]) * 24 / 2**32 - 12)",
        "cases": cases,
    }


if __name__ == "__main__":
    json.dump(vectors(), sys.stdout, indent=1)
    sys.stdout.write("\n")
