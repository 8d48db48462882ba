"""Vectors of all descriptions, made once before anything is timed; they depend on no outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.selector.baselines.metainf import texts_of
from bench.selector.cells import Cell

from plait_model.text_encoder import MeanPooled, MiniLm
from plait_node.selector.describe import describe_candidate
from plait_node.selector.embeddings import Embeddings, text_encoder
from plait_node.selector.errors import HistoryError

__all__ = ["ENCODER", "OTHER_ENCODER", "embedded"]

ENCODER: Final = MiniLm.name
OTHER_ENCODER: Final = MeanPooled.name


def embedded(cells: Sequence[Cell], encoder: str) -> Embeddings | None:
    """Return the vectors of every text of these cells, or None where the encoder is not installed."""
    made = Embeddings(encoder, make=text_encoder)
    texts = [text for cell in cells for text in texts_of(cell.question)]
    texts += [describe_candidate(each) for cell in cells for each in cell.question.candidates]
    try:
        made.keep(texts)
    except HistoryError:
        return None
    return made
