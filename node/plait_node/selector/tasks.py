"""Prompts to measure with: six kinds of task over real texts that every Python brings along.

The texts are prose of Python's reference and of docstrings, and sources of the standard library; `SOURCES` names them
all. The short questions and the instructions are ours. A seed decides everything: nothing hangs on the machine but the
version of Python, whose texts these are.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import random
import re
import textwrap
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, cast

from plait_node.selector.errors import UnknownTaskError

__all__ = ["KINDS", "SOURCES", "Ask", "asks", "overlap", "repetition", "word_ids"]

KINDS: Final = ("chat", "code", "summarise", "shared-context", "extract", "rewrite")
MOST_ASKS: Final = 256
LEAST_WORDS: Final = 40
MOST_WORDS: Final = 2_000

# Where each text is from: what it is, module, attribute. "*" are all functions of the module's source.
SOURCES: Final[tuple[tuple[Literal["prose", "code"], str, str], ...]] = (
    ("prose", "pydoc_data.topics", "topics.specialnames"),
    ("prose", "pydoc_data.topics", "topics.compound"),
    ("prose", "pydoc_data.topics", "topics.types"),
    ("prose", "pydoc_data.topics", "topics.formatstrings"),
    ("prose", "pydoc_data.topics", "topics.string-methods"),
    ("prose", "pydoc_data.topics", "topics.debugger"),
    ("prose", "pydoc_data.topics", "topics.execmodel"),
    ("prose", "pydoc_data.topics", "topics.import"),
    ("prose", "pydoc_data.topics", "topics.comparisons"),
    ("prose", "pydoc_data.topics", "topics.assignment"),
    ("prose", "pydoc_data.topics", "topics.strings"),
    ("prose", "pydoc_data.topics", "topics.calls"),
    ("prose", "pydoc_data.topics", "topics.raise"),
    ("prose", "pydoc_data.topics", "topics.binary"),
    ("prose", "heapq", "__about__"),
    ("prose", "difflib", "SequenceMatcher.__doc__"),
    ("prose", "difflib", "Differ.__doc__"),
    ("prose", "pickletools", "__doc__"),
    ("prose", "textwrap", "TextWrapper.__doc__"),
    ("prose", "threading", "Condition.__doc__"),
    ("prose", "threading", "Condition.wait.__doc__"),
    ("prose", "socketserver", "__doc__"),
    ("prose", "codecs", "Codec.encode.__doc__"),
    ("code", "argparse", "*"),
    ("code", "calendar", "*"),
    ("code", "configparser", "*"),
    ("code", "csv", "*"),
    ("code", "dataclasses", "*"),
    ("code", "difflib", "*"),
    ("code", "fractions", "*"),
    ("code", "heapq", "*"),
    ("code", "http.client", "*"),
    ("code", "http.server", "*"),
    ("code", "json.decoder", "*"),
    ("code", "json.encoder", "*"),
    ("code", "plistlib", "*"),
    ("code", "pprint", "*"),
    ("code", "shlex", "*"),
    ("code", "shutil", "*"),
    ("code", "smtplib", "*"),
    ("code", "statistics", "*"),
    ("code", "subprocess", "*"),
    ("code", "tarfile", "*"),
    ("code", "textwrap", "*"),
    ("code", "traceback", "*"),
    ("code", "urllib.parse", "*"),
    ("code", "zipfile", "*"),
)

# Words of each kind's text, without its instruction; those of chat are the question's own.
_WORDS: Final = {"chat": 0, "code": 140, "summarise": 220, "shared-context": 300, "extract": 150, "rewrite": 80}
_QUESTIONS: Final = (
    "Why does the sky look blue at noon but red and orange when the sun goes down?",
    "What happens inside a loaf of bread while it bakes, and why does the crust turn brown?",
    "How do the moon and the sun together make the tides higher on some days than on others?",
    "I want to learn to swim as an adult; what should I practise in the first few weeks?",
    "What is the difference between weather and climate, and why do people often mix them up?",
    "Can you suggest a simple dinner for four people with rice, eggs, spinach and one onion?",
    "Why do some metals rust when they get wet while others stay bright for hundreds of years?",
    "How does a bicycle stay upright when it rolls, and why does it fall over when it stands?",
    "What would be a good plan for a day with two small children in a town by the sea?",
    "How do vaccines teach the body to fight an illness that it has never met before?",
    "Which questions should I ask the owner before I rent a flat in a city I do not know?",
    "Why do we have leap years, and why is there none in most years that end in two zeros?",
    "How can I politely tell a colleague that his long messages are very hard to read?",
    "What makes a violin sound different from a flute when both play the very same note?",
    "How did sailors find out where they were on the open sea before there were satellites?",
    "What are three cheap ways to keep a flat cool during a hot week in the summer?",
    "Why does ice float on water although most things shrink and sink when they get colder?",
    "How does a refrigerator manage to move heat from a cold place to a warm one?",
    "What should somebody who has never run before do to finish five kilometres in two months?",
    "Why do leaves change their colour in autumn, and where does the green go to?",
    "How would you explain compound interest to someone who is about to open a savings account?",
    "What is the best way to remember the names of twenty people whom I meet in one evening?",
    "How do bees tell each other where they have found flowers, and how exact is that?",
    "Why was paper such an important invention, and what did people write on before it?",
    "What could be the reason that my tomato plants have many leaves but hardly any fruit?",
    "How does a search engine decide which of a million pages it shows to me first?",
    "What does it mean that a test is statistically significant, and what does it not mean?",
    "How do aeroplanes fly upside down if it is the shape of their wings that lifts them?",
    "Which tools does a beginner need to build a simple wooden shelf without any screws?",
    "Why do people yawn when they see others yawn, and do animals do the same thing?",
    "How should I prepare for a talk of ten minutes in front of people who know more than I do?",
    "What are the advantages of a small town over a large city for a young family?",
    "How is chocolate made from the beans that grow on a tree, from harvest to bar?",
    "Why does a mirror swap left and right but does not swap the top and the bottom?",
    "What is a good first programming project for someone who likes birds and maps?",
    "How do plants know when it is time to flower if they have no eyes and no clock?",
    "What should I check on an old car before I drive it a thousand kilometres south?",
    "Why are there so many languages in the world, and how does a language die out?",
    "How does noise from a loud road harm people who believe that they are used to it?",
    "What is the idea behind double-entry bookkeeping, and why has it lasted for so long?",
    "How do I choose a pair of hiking boots if one of my feet is larger than the other?",
    "Why do stars twinkle at night while planets mostly shine with a steady light?",
    "What could a school do so that more children read books because they want to?",
    "How does soap remove grease from a plate when water alone just runs off it?",
    "Which everyday habits help most against back pain for people who sit all day long?",
    "Why is the ocean salty when the rivers that run into it carry fresh water?",
    "How would a village change if every house made its own electricity from the sun?",
    "What makes some jokes funny in one country and not funny at all in another one?",
)
_MANNERS: Final = (
    "Answer in two sentences.",
    "Explain it to a child of ten.",
    "Give me the short version, please.",
    "List the main points only.",
    "Please add one example.",
    "Tell me also what is uncertain.",
)
_SUMMARISE: Final = (
    "Summarise the text above in three sentences.",
    "Write a short summary of the text above for someone who has no time to read it.",
    "List the main points of the text above, each in one line.",
)
_REWRITE: Final = (
    "Rewrite the paragraph above in plain words for a beginner, without leaving anything out.",
    "Translate the paragraph above into French.",
    "Translate the paragraph above into German.",
    "Rewrite the paragraph above as a friendly letter to a colleague.",
    "Rewrite the paragraph above in short sentences and keep its order.",
)
_ABOUT: Final = (
    "What does the text mean where it says “{}”, and why does it say so?",
    "Explain in your own words what comes right after “{}” in the text above.",
    "Which condition does the text give around the words “{}”, and what follows from it?",
    "Is there an exception to what the text says with the words “{}”? Name it.",
    "Who or what is concerned by “{}” in the text, and in which case?",
    "What would go wrong if the part of the text with “{}” were not so?",
    "Quote the sentence of the text that has “{}” in it, then say what it is for.",
    "Give an example of what the text describes with “{}”, in one or two lines.",
)
_WORD: Final = re.compile(r"\w+|[^\w\s]")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+")
_RESERVED: Final = 3  # ids that tokenizers keep for padding, beginning and end


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One prompt in two parts."""

    shared: str  # text that all requests of the batch begin with ("" for none)
    own: str  # what follows, different for each request


@dataclass(frozen=True, slots=True, kw_only=True)
class _Function:
    """A function among its module's lines: from index `first` on; its last third begins at `cut`."""

    lines: Sequence[str]
    first: int
    cut: int


def asks(kind: str, *, count: int, seed: int, words: int | None = None) -> list[Ask]:
    """Return `count` (1 to 256) prompts of a kind; the same arguments give the same prompts, wherever that is.

    `words` (40 to 2,000) replaces the usual length of the text, which is kept to about a fifth; chat asks several
    questions at once to get there. For shared-context it is the length of the shared text.

    Raises:
        UnknownTaskError: there is no such kind.
        ValueError: `count` or `words` is out of range.
    """
    if kind not in KINDS:
        raise UnknownTaskError(kind, known=KINDS)
    if not 1 <= count <= MOST_ASKS:
        raise ValueError(f"a batch has 1 to {MOST_ASKS} prompts, not {count}")
    if words is not None and not LEAST_WORDS <= words <= MOST_WORDS:
        raise ValueError(f"a text has {LEAST_WORDS} to {MOST_WORDS} words, not {words}; leave it out for the usual")
    draw = random.Random(f"{kind} {count} {seed}")  # noqa: S311 -- texts to measure with are no secret
    length = words or _WORDS[kind]
    if kind == "shared-context":
        (text,) = _passages(draw, 1, length)
        return [Ask(shared=text + "\n\n", own=question) for question in _questions_about(text, draw, count)]
    return [Ask(shared="", own=own) for own in _owns(kind, draw, count, length)]


def repetition(ids: Sequence[int]) -> float:
    """Return the share of tokens, 0 to below 1, that end a run of three seen before among `ids`."""
    seen: set[tuple[int, ...]] = set()
    found = 0
    for run in _runs(ids):
        found += run in seen
        seen.add(run)
    return found / len(ids) if ids else 0.0


def overlap(prompt: Sequence[int], answer: Sequence[int]) -> float:
    """Return the share of the answer's tokens, 0 to 1, that end a run of three seen in the prompt.

    A run may begin at the prompt's end, as for whoever looks up the answer's first token.
    """
    seen = set(_runs(prompt))
    before = prompt[-2:]
    runs = _runs([*before, *answer])
    return sum(run in seen for run in runs) / len(answer) if answer else 0.0


def word_ids(text: str, vocabulary: int) -> list[int]:
    """Return an id below `vocabulary` for each word and sign, for models whose weights mean nothing.

    Raises:
        ValueError: the vocabulary has no more than the three ids that are never given.
    """
    if vocabulary <= _RESERVED:
        raise ValueError(f"a vocabulary has more than {_RESERVED} ids, not {vocabulary}")
    return [_RESERVED + zlib.crc32(word.encode()) % (vocabulary - _RESERVED) for word in _WORD.findall(text)]


def _runs(ids: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return (tuple(ids[end - 3 : end]) for end in range(3, len(ids) + 1))


def _owns(kind: str, draw: random.Random, count: int, words: int) -> list[str]:
    match kind:
        case "chat":
            return _chat(draw, count, words)
        case "code":
            return _code(draw, count, words)
        case "extract":
            return [_extract(text, draw) for text in _passages(draw, count, words)]
        case _:
            told = _SUMMARISE if kind == "summarise" else _REWRITE
            return [f"{text}\n\n{draw.choice(told)}" for text in _passages(draw, count, words)]


def _chat(draw: random.Random, count: int, words: int) -> list[str]:
    """Return questions that differ up to 48, and from there on with another wish for the answer."""
    order = draw.sample(_QUESTIONS, len(_QUESTIONS))
    first = draw.randrange(len(_MANNERS))
    made: list[str] = []
    for index in range(count):
        turn, place = divmod(index, len(order))
        text = order[place]
        further = itertools.cycle([*order[place + 1 :], *order[:place]])
        while len(text.split()) < words:
            text += " " + next(further)
        made.append(f"{text} {_MANNERS[(first + place + turn) % len(_MANNERS)]}")
    return made


def _questions_about(text: str, draw: random.Random, count: int) -> list[str]:
    """Return questions, each about four words that follow each other in the text."""
    words = text.split()
    parts = list(dict.fromkeys(" ".join(words[at : at + 4]) for at in range(len(words) - 3)))
    chosen = draw.sample([(part, ask) for part in parts for ask in _ABOUT], count)
    return [ask.format(part) for part, ask in chosen]


def _extract(text: str, draw: random.Random) -> str:
    lines = textwrap.wrap(text, 72)
    wanted = sorted(draw.sample(range(1, len(lines) + 1), max(1, len(lines) // 3)))
    numbered = "\n".join(f"{number}: {line}" for number, line in enumerate(lines, start=1))
    names = ", ".join(map(str, wanted))
    return f"{numbered}\n\nCopy these lines of the text exactly as they stand, and nothing else: {names}."


def _passages(draw: random.Random, count: int, words: int) -> list[str]:
    """Return texts that begin at paragraphs far from each other, in random order."""
    paragraphs = _paragraphs()
    step = len(paragraphs) // count
    first = draw.randrange(len(paragraphs))
    starts = [first + place * step + draw.randrange(step) for place in range(count)]
    draw.shuffle(starts)
    return [_passage(paragraphs, start, words) for start in starts]


def _passage(paragraphs: Sequence[str], start: int, words: int) -> str:
    """Return whole sentences from a paragraph on, 90 to 115 % of so many words; a long last one is cut."""
    taken: list[str] = []
    for place in itertools.count(start):
        for sentence in _SENTENCE_END.split(paragraphs[place % len(paragraphs)]):
            taken += sentence.split()
            if len(taken) >= words * 9 // 10:
                return " ".join(taken[: words * 115 // 100])
    raise AssertionError  # counting has no end


def _code(draw: random.Random, count: int, words: int) -> list[str]:
    """Return heads of functions that are long enough; where they are too few, of any with enough lines before them."""
    least = words * 9 // 10
    long = [each for each in _functions() if _words(each.lines[each.first : each.cut]) >= least]
    if len(long) < count:
        long = [each for each in _functions() if _words(each.lines[: each.cut]) >= least]
    return [_head(each, least) for each in draw.sample(long, count)]


def _head(function: _Function, least: int) -> str:
    """Return whole lines of a function's head, and lines before it, until there are `least` words."""
    first, end = function.first, function.first + 1
    while end < function.cut and _words(function.lines[first:end]) < least:
        end += 1
    while first > 0 and _words(function.lines[first:end]) < least:
        first -= 1
    return textwrap.dedent("\n".join(function.lines[first:end])).strip("\n")


def _words(lines: Sequence[str]) -> int:
    return sum(len(line.split()) for line in lines)


@lru_cache(maxsize=1)
def _paragraphs() -> tuple[str, ...]:
    """Return all prose in the table's order, no two with the same eight words at their beginning."""
    found: dict[tuple[str, ...], str] = {}
    for what, module, attribute in SOURCES:
        if what != "prose":
            continue
        for block in re.split(r"\n\s*\n", _text(module, attribute)):
            words = block.split()
            if words and words[0] in {"*", "-"}:
                words = words[1:]
            text = " ".join(words)
            if _reads_as_prose(text):
                found.setdefault(tuple(words[:8]), text)
    return tuple(found.values())


def _reads_as_prose(text: str) -> bool:
    """Return whether it is a paragraph, and no table, heading or code."""
    letters = sum(sign.isalpha() or sign == " " for sign in text)
    return len(text.split()) >= 12 and letters >= 0.9 * len(text) and text[0].isupper() and "." in text


def _text(module: str, attribute: str) -> str:
    """Return a source of prose; nothing where this version of Python has none there."""
    value: object = importlib.import_module(module)
    for name in attribute.split("."):
        value = cast("dict[str, object]", value).get(name) if isinstance(value, dict) else getattr(value, name, None)
    return inspect.cleandoc(value) if isinstance(value, str) else ""


@lru_cache(maxsize=1)
def _functions() -> tuple[_Function, ...]:
    """Return all functions of six lines or more."""
    found: list[_Function] = []
    for what, module, _ in SOURCES:
        if what != "code":
            continue
        source = inspect.getsource(importlib.import_module(module))
        lines = source.splitlines()
        nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
        # The number of the last line is the index behind it.
        places = ((node.lineno - 1, node.end_lineno or node.lineno) for node in nodes)
        found += [
            _Function(lines=lines, first=first, cut=end - (end - first) // 3)
            for first, end in places
            if end - first >= 6
        ]
    return tuple(found)
