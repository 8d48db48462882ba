"""Publish models and keep their files; weights stay where they are and are checked as they are loaded."""

from __future__ import annotations

from plait_node.models.errors import ModelStoreError
from plait_node.models.publishing import PublishedModel, prepare, publish
from plait_node.models.store import ModelStore, StoredModel

__all__ = ["ModelStore", "ModelStoreError", "PublishedModel", "StoredModel", "prepare", "publish"]
