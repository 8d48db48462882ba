"""transformers' continuous batching with its CUDA graphs on the same shape, beside ours: 64 requests."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from bench.gpu import llama8b
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.generation.configuration_utils import ContinuousBatchingConfig, GenerationConfig

from plait.protocol.ids import HASH_ZERO, keccak
from plait.protocol.messages import Sampling
from plait_node.engine.local_route import LocalRequest, LocalRoute

REQUESTS, PROMPT, ANSWER, SHORT = 64, 128, 264, 8
GREEDY = Sampling(temperature=0, top_p=1_000_000, top_k=0, stop=HASH_ZERO)


def run(facts: dict[str, Any]) -> dict[str, Any]:
    """Return tokens a second of both while they generate, prompts and start-up left out, and ours over theirs."""
    del facts
    draw = np.random.default_rng(0)
    prompts = [draw.integers(0, 100_000, PROMPT).tolist() for _ in range(REQUESTS)]
    ours = _ours(prompts)
    gc.collect()
    torch.cuda.empty_cache()
    theirs = _theirs(prompts)
    return {
        "requests": REQUESTS,
        "prompt": PROMPT,
        "answer": ANSWER,
        "plait_tokens_s": round(ours, 1),
        "generate_batch_tokens_s": round(theirs, 1),
        "ratio": round(ours / theirs, 2),
    }


def _rate(seconds: Callable[[int], float]) -> float:
    """Return tokens a second from a long and a short answer, the faster of two runs each."""
    seconds(SHORT)
    long, short = (min(seconds(count) for _ in range(2)) for count in (ANSWER, SHORT))
    return REQUESTS * (ANSWER - SHORT) / (long - short)


def _ours(prompts: list[list[int]]) -> float:
    route = LocalRoute([llama8b.random_engine(kv_steps=65_536)], profile="bf16", margins=False)

    def seconds(count: int) -> float:
        requests = [
            LocalRequest(
                request=keccak(index.to_bytes(2, "big")),
                prompt=prompt,
                max_tokens=count,
                sampling=GREEDY,
                seed=HASH_ZERO,
            )
            for index, prompt in enumerate(prompts)
        ]
        began = time.perf_counter()
        route.run(requests, {"continuous-batching": REQUESTS})
        return time.perf_counter() - began

    return _rate(seconds)


def _theirs(prompts: list[list[int]]) -> float:
    config = LlamaConfig(
        vocab_size=llama8b.SHAPE.vocabulary,
        hidden_size=llama8b.SHAPE.hidden,
        intermediate_size=llama8b.SHAPE.inner,
        num_hidden_layers=llama8b.BLOCKS,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=llama8b.CONTEXT,
        attn_implementation="sdpa",
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            model = LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)

    def seconds(count: int) -> float:
        began = time.perf_counter()
        found = model.generate_batch(
            prompts,
            generation_config=GenerationConfig(max_new_tokens=count, do_sample=False, eos_token_id=-1, pad_token_id=0),
            # The default takes all memory for keys, and its graphs then find none.
            continuous_batching_config=ContinuousBatchingConfig(use_cuda_graph=True, max_memory_percent=0.5),
            progress_bar=False,
        )
        took = time.perf_counter() - began
        if {len(output.generated_tokens) for output in found.values()} != {count}:
            raise RuntimeError("generate_batch gave another number of tokens than it was asked for")
        return took

    return _rate(seconds)
