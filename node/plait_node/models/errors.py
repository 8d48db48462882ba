"""What can be wrong with a published model's folder.

ModelStoreError
├── ModelMissingError       no folder for this model; names those that exist
├── ModelFileMissingError   a file of the folder, or the weights file, is not there
├── ModelFileHashError      a file is not the one that the manifest names
├── ModelFetchError         no source gave what is missing; names the sources
└── ModelTakenError         the chain holds this id with other blocks or profiles
"""

from __future__ import annotations

from pathlib import Path

from plait.protocol.errors import PlaitError

__all__ = [
    "ModelFetchError",
    "ModelFileHashError",
    "ModelFileMissingError",
    "ModelMissingError",
    "ModelStoreError",
    "ModelTakenError",
]


class ModelStoreError(PlaitError):
    """Root of what the model folder raises."""

    code = "model"


class ModelMissingError(ModelStoreError):
    """The folder holds no such model."""


class ModelFileMissingError(ModelStoreError):
    """A file is not there."""

    def __init__(self, path: Path, advice: str) -> None:
        super().__init__(f"{path} is missing; {advice}")
        self.path = path


class ModelFileHashError(ModelStoreError):
    """A file is not the one that the manifest names."""

    def __init__(self, path: Path, advice: str) -> None:
        super().__init__(f"{path} is not the file that the manifest names; {advice}")
        self.path = path


class ModelFetchError(ModelStoreError):
    """No source gave what is missing."""


class ModelTakenError(ModelStoreError):
    """Somebody published this id with other facts."""
