"""Play the role of a worker: pull jobs, plan a route, drive generation, pay stages, sign the receipt."""

from __future__ import annotations

from plait_node.worker.admission import Admission, Task
from plait_node.worker.ahead import Proposer
from plait_node.worker.desk import HopDesk
from plait_node.worker.errors import PrekeyError, StageFailure, TakenOverError, UnpaidError, WorkerError
from plait_node.worker.income import Income
from plait_node.worker.links import LinkPool
from plait_node.worker.membership import Membership
from plait_node.worker.offers import OfferKeeper, OfferTerms
from plait_node.worker.plan import Chooser, Planner
from plait_node.worker.prekeys import PrekeyRing
from plait_node.worker.prompts import PromptBox
from plait_node.worker.role import WorkerConfig, WorkerRole
from plait_node.worker.serving import Done
from plait_node.worker.signer import WorkerSigner
from plait_node.worker.tools import Patience, Tools

__all__ = [
    "Admission",
    "Chooser",
    "Done",
    "HopDesk",
    "Income",
    "LinkPool",
    "Membership",
    "OfferKeeper",
    "OfferTerms",
    "Patience",
    "Planner",
    "PrekeyError",
    "PrekeyRing",
    "PromptBox",
    "Proposer",
    "StageFailure",
    "TakenOverError",
    "Task",
    "Tools",
    "UnpaidError",
    "WorkerConfig",
    "WorkerError",
    "WorkerRole",
    "WorkerSigner",
]
