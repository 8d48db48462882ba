"""What became of a job: signed, claimed, final. Claimed and final are read from the chain, with a tree proof."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from plait.chain.reader import GATEWAY, JUROR, STAGE, WORKER
from plait.client.answers import JobStatus, Node
from plait.client.archive import Filed
from plait.client.edge import ChainEdge, Claim
from plait.client.errors import UnknownRequestError
from plait.client.purse import Purse
from plait.ledger.payer import PaidJob
from plait.protocol.errors import BadProofError, VerificationError
from plait.protocol.ids import Hash, address, to_hex
from plait.protocol.receipts import RECEIPT
from plait.protocol.tree import verify_inclusion

if TYPE_CHECKING:
    from plait.client.core import AsyncPlait

_ROLES = {GATEWAY: "gateway", WORKER: "worker", STAGE: "stage", JUROR: "juror"}


class AsyncJobs:
    """The namespace `jobs`."""

    def __init__(self, client: AsyncPlait) -> None:
        self._client = client

    async def get(self, request: str) -> JobStatus:
        """Return where a job of this wallet stands; raise `UnknownRequestError`."""
        archive, purse, edge = await self._client.archive(), await self._client.purse(), await self._client.edge()
        name, filed = archive.get(request)
        return await job_status(name, filed, purse=purse, edge=edge)

    async def list(self) -> list[JobStatus]:
        """Return where all jobs of this wallet stand."""
        return [await self.get(each) for each in (await self._client.archive()).list()]


async def job_status(request: Hash, filed: Filed, *, purse: Purse, edge: ChainEdge) -> JobStatus:
    """Return a job's status; raise `VerificationError` when a claim's root does not hold the job's leaf."""
    paid = purse.job(request)
    leaf = paid.leaf if paid else None
    claim = await _claim(paid, purse, edge) if paid else None
    status: Literal["open", "signed", "claimed", "final"] = "signed" if leaf else "open"
    if claim is not None:
        head, final = await edge.heads()
        past = claim.block <= final and head.timestamp > filed.closes_at
        status = "final" if past else "claimed"
    return JobStatus(
        id=to_hex(request),
        status=status,
        ended=None if leaf is None else "receipt" if leaf.kind == RECEIPT else "aborted",
        paid=paid.paid if paid else 0,
        receipt=to_hex(leaf.hash) if leaf and leaf.kind == RECEIPT else None,
        transaction=to_hex(claim.transaction) if claim else None,
        block=claim.block if claim else None,
        gas_used=claim.gas_used if claim else None,
        gateway=filed.gateway,
    )


async def _claim(paid: PaidJob, purse: Purse, edge: ChainEdge) -> Claim | None:
    if paid.leaf is None or paid.place is None:
        return None
    place = paid.place
    claim = next((each for each in await edge.claims(paid.channel) if each.jobs > place), None)
    if claim is None:
        return None
    proof = purse.channel(paid.payee).inclusion(place, claim.jobs)
    try:
        verify_inclusion(paid.leaf.encode(), index=place, size=claim.jobs, proof=proof, root=claim.root)
    except BadProofError as error:
        raise VerificationError("claim", "the claimed root does not hold this job as it was signed") from error
    return claim


class AsyncNodes:
    """The namespace `nodes`."""

    def __init__(self, client: AsyncPlait) -> None:
        self._client = client

    async def get(self, owner: str) -> Node:
        """Return a node as the chain has it; raise `UnknownRequestError` when nobody registered under this address."""
        edge = await self._client.edge()
        found = await edge.node(address(owner))
        if found is None:
            raise UnknownRequestError(f"no node is registered under {owner}; an owner's address is asked for")
        return Node(
            owner=to_hex(found.owner),
            roles=tuple(name for bit, name in _ROLES.items() if found.roles & bit),
            endpoint=found.endpoint,
            stake=found.stake,
            active=found.active,
            jailed=found.jailed,
            reputation=await edge.reputation(found.owner),
        )
