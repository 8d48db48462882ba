"""Raw prompts begin as the model's own tokenizer begins a text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.sdk.swarm import START, TEMPLATE, manifest, tokenizer_json
from tokenizers import Tokenizer, processors

from plait.client.catalogue import Served
from plait.protocol.errors import ManifestError
from plait.protocol.ids import keccak, to_hex
from plait.protocol.tokens import ChatTokenizer
from plait.proxy.asked import read_chat, read_completion
from plait.proxy.errors import ParameterError
from plait.proxy.prompts import Prompts


def served(folder: Path, processor: processors.PostProcessor | None = None) -> Served:
    """Return a model whose tokenizer ends with that processor, its file in the folder."""
    made = Tokenizer.from_str(tokenizer_json().decode())
    if processor is not None:
        made.post_processor = processor
    data = made.to_str().encode()
    of = replace(manifest(), tokenizer=keccak(data))
    (folder / to_hex(of.tokenizer)).write_bytes(data)
    words = ChatTokenizer.of(of, tokenizer_json=data, chat_template=TEMPLATE.encode())
    return Served(manifest=of, tokenizer=words, gateways=())


def template(single: str) -> processors.PostProcessor:
    return processors.TemplateProcessing(single=single, special_tokens=[("<|im_start|>", START)])


def raw(prompt: object) -> object:
    return read_completion({"model": "tiny", "prompt": prompt})


@pytest.mark.parametrize(
    ("processor", "opening"),
    [(None, []), (template("<|im_start|> $A"), [START]), (template("$A <|im_start|>"), [])],
    ids=["none", "before", "after"],
)
def test_raw_prompt_gets_what_the_tokenizer_puts_before_a_text(
    tmp_path: Path, processor: processors.PostProcessor | None, opening: list[int]
) -> None:
    model, prompts = served(tmp_path, processor), Prompts(tmp_path)

    assert prompts.ids(raw("Why?"), model) == [*opening, *model.tokenizer.encode("Why?")]
    assert prompts.ids(raw("<|im_start|>Why"), model).count(START) == 1
    assert prompts.ids(raw([1, 2]), model) == [1, 2]


def test_raw_prompt_of_a_changed_file_is_refused(tmp_path: Path) -> None:
    model = served(tmp_path)
    (tmp_path / to_hex(model.manifest.tokenizer)).write_bytes(b"{}")

    with pytest.raises(ManifestError, match="delete it"):
        Prompts(tmp_path).ids(raw("Why?"), model)


def test_chat_that_the_template_refuses_names_the_messages(tmp_path: Path) -> None:
    data = tokenizer_json()
    refusing = b"{{ raise_exception('one turn only') }}"
    of = replace(manifest(), chat_template=keccak(refusing))
    words = ChatTokenizer.of(of, tokenizer_json=data, chat_template=refusing)
    asked = read_chat({"model": "tiny", "messages": [{"role": "user", "content": "x"}]})

    with pytest.raises(ParameterError, match="one turn only") as refused:
        Prompts(tmp_path).ids(asked, Served(manifest=of, tokenizer=words, gateways=()))
    assert refused.value.param == "messages"
