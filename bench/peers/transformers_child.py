"""The process behind `transformers_generate.TransformersPeer`: FOLDER DTYPE THREADS.

It prints one JSON line when the model is loaded, then reads one request a line and answers with one.
"""

from __future__ import annotations

import json
import sys

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging


def main() -> None:
    folder, dtype, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    say({"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        say({"tokens": answer(model, asked["prompts"], asked["new_tokens"], together=asked["together"])})


def answer(model: PreTrainedModel, prompts: list[list[int]], new_tokens: int, *, together: bool) -> list[list[int]]:
    """Return greedy ids per prompt; prompts that come together have one length."""
    batches = [prompts] if together else [[prompt] for prompt in prompts]
    found: list[list[int]] = []
    for batch in batches:
        ids = torch.tensor(batch)
        options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        found += model.generate(ids, max_new_tokens=new_tokens, **options)[:, ids.shape[1] :].tolist()
    return found


def say(value: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
