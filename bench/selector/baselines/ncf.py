"""NCF (He and others, 2017): factors of cells and candidates, joined by a small network.

A held-out cell has no factors of its own, so a linear layer makes them from its features (the cold start); a candidate
has an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from bench.selector.cells import Cell, Question
from bench.selector.features import Scaler, cell_features, relative, stacked
from bench.selector.matrix import scores
from torch import Tensor, nn

__all__ = ["Ncf"]

_FACTORS: Final = 10  # this, the rate and the epochs as in the code of MetaOOD (facts 1.4)
_RATE: Final = 0.01
_EPOCHS: Final = 10
_BATCH: Final = 32


class _Network(nn.Module):
    def __init__(self, features: int, candidates: int) -> None:
        super().__init__()
        self.cells = nn.Linear(features, _FACTORS)
        self.candidates = nn.Embedding(candidates, _FACTORS)
        self.head = nn.Sequential(nn.Linear(3 * _FACTORS, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, features: Tensor, candidates: Tensor) -> Tensor:
        left, right = self.cells(features), self.candidates(candidates)
        return self.head(torch.cat([left, right, left * right], dim=1))[:, 0]


class Ncf:
    """Predicts log seconds over those of the cell's default, standardised on the training cells."""

    name = "NCF"

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._scaler = Scaler(mean=np.zeros(0), spread=np.ones(0))
        self._network: _Network | None = None

    def fit(self, cells: Sequence[Cell], seed: int) -> None:
        """Train for ten epochs."""
        self._names = tuple(dict.fromkeys(name for cell in cells for name in cell.timings))
        features = stacked([cell.question for cell in cells])
        self._scaler = Scaler.fit(features)
        scaled = self._scaler.apply(features)
        owners = np.concatenate([np.full(len(cell.timings), index) for index, cell in enumerate(cells)])
        columns = torch.tensor([self._names.index(each.name) for cell in cells for each in cell.question.candidates])
        wanted = np.concatenate([relative(cell) for cell in cells])
        wanted = (wanted - wanted.mean()) / (wanted.std() or 1.0)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._network = _Network(scaled.shape[1], len(self._names))
            _train(self._network, torch.from_numpy(scaled[owners]).float(), columns, torch.from_numpy(wanted).float())

    def rank(self, question: Question) -> Mapping[str, float]:
        """Return the predictions for every candidate of the training cells."""
        if self._network is None:
            return {}
        features = torch.from_numpy(self._scaler.apply(cell_features(question))).float()
        with torch.no_grad():
            found = self._network(features.expand(len(self._names), -1), torch.arange(len(self._names)))
        return scores(self._names, found.double().numpy())


def _train(network: _Network, features: Tensor, columns: Tensor, wanted: Tensor) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE)
    for _ in range(_EPOCHS):
        for part in torch.randperm(len(wanted)).split(_BATCH):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(network(features[part], columns[part]), wanted[part])
            loss.backward()
            optimizer.step()
