"""The real model and what the reference says about it, computed once per test run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from tokenizers import Tokenizer

from plait_model.gguf import find_embedded_model
from plait_model.manifest_build import BuiltModel, build_manifest
from plait_model.reference import load_reference

PATH = find_embedded_model("smollm2-135m")
ANSWER = 64
# Where the reference's two best logits lie closer than this, either token is right.
TIE = 1e-4
QUESTIONS = (
    "Explain in two sentences why the sky is blue.",
    "Write a short poem about the sea.",
    "What is the capital of France, and what is it known for?",
    "List ten fruits, one per line.",
    "Count from 1 to 30, separated by commas.",
    "Write a Python function that adds two numbers, with a docstring and two examples.",
    "Tell me a story about a dragon that was afraid of fire.",
    "Why do we have seasons? Explain it to a child of six years.",
    "Give me a recipe for pancakes, step by step.",
    "Translate 'good morning, how are you?' into as many languages as you know.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy:
    """One prompt, the reference's greedy answer, and by how much each of its tokens won."""

    prompt: list[int]
    answer: list[int]
    gaps: list[float]


@cache
def built() -> BuiltModel:
    return build_manifest(PATH, name="smollm2-135m")


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.from_str(built().tokenizer_json.decode())


def chat_ids(question: str) -> list[int]:
    return tokenizer().encode(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n").ids


@cache
def greedy_answers() -> tuple[Greedy, ...]:
    """Answer all questions by `generate` on the whole model, in one batch, padded on the left."""
    torch.set_num_threads(1)
    prompts = [chat_ids(question) for question in QUESTIONS]
    longest = max(map(len, prompts))
    padded = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    model = load_reference(PATH, built().manifest)
    done = model.generate(
        padded,
        attention_mask=mask,
        do_sample=False,
        eos_token_id=None,
        max_new_tokens=ANSWER,
        output_logits=True,
        pad_token_id=0,
        return_dict_in_generate=True,
    )
    best = torch.stack(done.logits, dim=1).topk(2).values
    gaps = (best[..., 0] - best[..., 1]).tolist()
    answers = done.sequences[:, longest:].tolist()
    return tuple(Greedy(prompt=p, answer=a, gaps=g) for p, a, g in zip(prompts, answers, gaps, strict=True))
