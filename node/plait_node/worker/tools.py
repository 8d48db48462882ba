"""What all jobs of a worker share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from plait.protocol.checks import NodeDirectory
from plait.protocol.ids import Address
from plait_node.worker.ahead import Proposers
from plait_node.worker.desk import HopDesk
from plait_node.worker.links import LinkPool

if TYPE_CHECKING:
    from plait.protocol.manifest import Manifest
    from plait.protocol.tokens import Decodes
    from plait.protocol.typed import Domain
    from plait_node.worker.signer import WorkerSigner

__all__ = ["Patience", "Tools"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a job waits, in seconds, and how far it goes unpaid."""

    open_s: float = 10.0
    first_token_s: float = 60.0
    step_s: float = 20.0
    pay_s: float = 20.0
    deadline_s: float = 2.0  # work ends this long before the request's deadline
    credit_windows: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What all jobs of a worker share."""

    owner: Address
    domain: Domain
    directory: NodeDirectory
    pool: LinkPool
    desk: HopDesk
    signer: WorkerSigner
    manifest: Manifest
    tokenizer: Decodes
    clock: Callable[[], float]
    patience: Patience = field(default_factory=Patience)
    proposers: Proposers = lambda _, __: None
