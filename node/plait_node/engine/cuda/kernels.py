"""What lies between the matrix products of one decode step, in Triton; each reads and writes its rows once.

Every kernel runs inside a CUDA graph: what changes from step to step (where a job's keys lie, how many there are) is
read from device memory, never from an argument.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["add_norm", "attend", "combine", "gate", "keep", "multiply"]


@triton.jit
def add_norm(
    rows, made, after, scale, out, eps, width, HAS_MADE: tl.constexpr, HAS_AFTER: tl.constexpr, WIDE: tl.constexpr
):
    """Add made to rows, through a norm of its own where `after` is given; out is the norm of rows."""
    row = tl.program_id(0)
    at = tl.arange(0, WIDE)
    inside = at < width
    x = tl.load(rows + row * width + at, mask=inside, other=0.0)
    if HAS_MADE:
        y = tl.load(made + row * width + at, mask=inside, other=0.0).to(tl.float32)
        if HAS_AFTER:
            by = 1.0 / tl.sqrt(tl.sum(y * y, axis=0) / width + eps)
            y = y * by * tl.load(after + at, mask=inside, other=0.0)
        x += y
        tl.store(rows + row * width + at, x, mask=inside)
    by = 1.0 / tl.sqrt(tl.sum(x * x, axis=0) / width + eps)
    normed = x * by * tl.load(scale + at, mask=inside, other=0.0)
    tl.store(out + row * width + at, normed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def keep(
    qkv, positions, bases, rooms, frequencies, query_norm, key_norm, layer, eps,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, HALF: tl.constexpr, HAS_NORM: tl.constexpr,
    KV: tl.constexpr,
):  # fmt: skip
    """Norm and rotate one head of a row in place; a key, and its value, also go behind the job's accepted steps."""
    row, head = tl.program_id(0), tl.program_id(1)
    position = tl.load(positions + row)
    at = tl.arange(0, HALF)
    inside = at < WIDTH // 2
    low = qkv + row * (HEADS + 2 * GROUPS) * WIDTH + head * WIDTH + at
    a = tl.load(low, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(low + WIDTH // 2, mask=inside, other=0.0).to(tl.float32)
    if HAS_NORM:
        by = 1.0 / tl.sqrt((tl.sum(a * a, axis=0) + tl.sum(b * b, axis=0)) / WIDTH + eps)
        scale = query_norm if head < HEADS else key_norm
        a = a * by * tl.load(scale + at, mask=inside, other=0.0)
        b = b * by * tl.load(scale + WIDTH // 2 + at, mask=inside, other=0.0)
    angle = position.to(tl.float32) * tl.load(frequencies + at, mask=inside, other=0.0)
    cosine, sine = tl.cos(angle), tl.sin(angle)
    first, second = a * cosine - b * sine, b * cosine + a * sine
    if head < HEADS:
        tl.store(low, first.to(qkv.dtype.element_ty), mask=inside)
        tl.store(low + WIDTH // 2, second.to(qkv.dtype.element_ty), mask=inside)
    else:
        room = tl.load(rooms + row)
        kept = tl.load(bases + row).to(tl.pointer_type(KV))
        key = kept + ((layer * 2 * GROUPS + head - HEADS) * room + position) * WIDTH + at
        tl.store(key, first.to(KV), mask=inside)
        tl.store(key + WIDTH // 2, second.to(KV), mask=inside)
        value = key + GROUPS * room * WIDTH
        given = low + GROUPS * WIDTH
        tl.store(value, tl.load(given, mask=inside, other=0.0).to(KV), mask=inside)
        tl.store(value + WIDTH // 2, tl.load(given + WIDTH // 2, mask=inside, other=0.0).to(KV), mask=inside)


@triton.jit
def attend(
    qkv, positions, bases, rooms, partial, best, total, layer, window, scale,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, EACH: tl.constexpr,
    PAD: tl.constexpr, SPLITS: tl.constexpr, STEP: tl.constexpr, KV: tl.constexpr,
):  # fmt: skip
    """One of SPLITS parts of the keys, for all query heads of a group: a softmax's best score, sum and mixed values."""
    # budget: one loop and the nine values that it carries
    row, group, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    end = tl.load(positions + row).to(tl.int32) + 1
    first = tl.maximum(end - window, 0) if window > 0 else 0
    part = tl.cdiv(tl.cdiv(end - first, SPLITS), STEP) * STEP
    begin = first + split * part
    stop = tl.minimum(begin + part, end)
    room = tl.load(rooms + row)
    kept = tl.load(bases + row).to(tl.pointer_type(KV))
    keys = kept + (layer * 2 * GROUPS + group) * room * WIDTH
    values = keys + GROUPS * room * WIDTH
    heads, at, steps = tl.arange(0, PAD), tl.arange(0, WIDE), tl.arange(0, STEP)
    inside = at < WIDTH
    queries = tl.load(
        qkv + row * (HEADS + 2 * GROUPS) * WIDTH + (group * EACH + heads[:, None]) * WIDTH + at[None],
        mask=(heads[:, None] < EACH) & inside[None],
        other=0.0,
    ).to(KV)
    high = tl.full((PAD,), float("-inf"), tl.float32)
    sums = tl.zeros((PAD,), tl.float32)
    mixed = tl.zeros((PAD, WIDE), tl.float32)
    for t in range(begin, stop, STEP):
        seen = t + steps < stop
        place = (t + steps[:, None]) * WIDTH + at[None]
        mask = seen[:, None] & inside[None]
        k = tl.load(keys + place, mask=mask, other=0.0)
        scores = tl.where(seen[None], tl.dot(queries, tl.trans(k), input_precision="ieee") * scale, float("-inf"))
        higher = tl.maximum(high, tl.max(scores, axis=1))
        shrink = tl.exp(high - higher)
        p = tl.exp(scores - higher[:, None])
        sums = sums * shrink + tl.sum(p, axis=1)
        v = tl.load(values + place, mask=mask, other=0.0)
        mixed = mixed * shrink[:, None] + tl.dot(p.to(KV), v, input_precision="ieee")
        high = higher
    to = (row * HEADS + group * EACH + heads) * SPLITS + split
    tl.store(best + to, high, mask=heads < EACH)
    tl.store(total + to, sums, mask=heads < EACH)
    tl.store(partial + to[:, None] * WIDTH + at[None], mixed, mask=(heads[:, None] < EACH) & inside[None])


@triton.jit
def combine(partial, best, total, out, WIDTH: tl.constexpr, WIDE: tl.constexpr, SPLITS: tl.constexpr):
    """Join the parts of one head of one row; a part without keys has no weight."""
    head = tl.program_id(0)
    splits, at = tl.arange(0, SPLITS), tl.arange(0, WIDE)
    inside = at < WIDTH
    high = tl.load(best + head * SPLITS + splits)
    weight = tl.exp(high - tl.max(high, axis=0))
    whole = tl.sum(weight * tl.load(total + head * SPLITS + splits), axis=0)
    parts = tl.load(partial + (head * SPLITS + splits[:, None]) * WIDTH + at[None], mask=inside[None], other=0.0)
    mixed = tl.sum(parts * weight[:, None], axis=0) / whole
    tl.store(out + head * WIDTH + at, mixed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def gate(both, out, inner, GELU: tl.constexpr, STEP: tl.constexpr):
    """Write activation(gate) * up, where a row of `both` is gate and up."""
    row, part = tl.program_id(0), tl.program_id(1)
    at = part * STEP + tl.arange(0, STEP)
    inside = at < inner
    x = tl.load(both + row * 2 * inner + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both + row * 2 * inner + inner + at, mask=inside, other=0.0).to(tl.float32)
    if GELU:
        t = 0.7978845608028654 * (x + 0.044715 * x * x * x)
        active = x - x / (1.0 + tl.exp(2.0 * t))
    else:
        active = x / (1.0 + tl.exp(-x))
    tl.store(out + row * inner + at, (active * up).to(out.dtype.element_ty), mask=inside)


@triton.jit
def multiply(x, weight, out, rows, cols, ROWS: tl.constexpr, STEP: tl.constexpr):
    """Multiply weight with one row x: what bounds it is how fast the weight streams in."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    acc = tl.zeros((ROWS, STEP), tl.float32)
    for k in range(0, cols, STEP):
        at = k + tl.arange(0, STEP)
        mask = (row[:, None] < rows) & (at[None] < cols)
        w = tl.load(weight + row[:, None].to(tl.int64) * cols + at[None], mask=mask, other=0.0)
        v = tl.load(x + at, mask=at < cols, other=0.0).to(tl.float32)
        acc += w.to(tl.float32) * v[None]
    tl.store(out + row, tl.sum(acc, axis=1).to(out.dtype.element_ty), mask=row < rows)
