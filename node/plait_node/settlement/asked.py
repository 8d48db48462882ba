"""What was asked of our node on chain, as the journal keeps it: requests as emitted, and prompts once they came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from plait.chain import Log, RequestParameters, artifact, ids_bytes, ids_from
from plait.ledger import Journal
from plait.protocol.commitments import prompt_commitment
from plait.protocol.errors import BadRequestError
from plait.protocol.ids import Hash, keccak
from plait.protocol.sealing import ContentKey

_TOPICS = 4  # of a `Requested` event


@dataclass(frozen=True, slots=True, kw_only=True)
class OnchainRequest:
    """A request to our node; `digest` is its name everywhere, `ids` are the prompt's tokens, none until they came."""

    number: int
    digest: Hash
    parameters: RequestParameters
    block: int
    topics: tuple[Hash, ...]  # the event as emitted, so that a restart reads the same
    data: bytes
    ids: tuple[int, ...] = field(default=(), repr=False)
    content_key: ContentKey = field(default=ContentKey.public(), repr=False, compare=False)

    @classmethod
    def from_event(cls, block: int, topics: Sequence[Hash], data: bytes) -> OnchainRequest:
        """Read a `Requested` event."""
        values = artifact("Requests").event("Requested").decode(topics, data)
        return cls(
            number=values["id"],
            digest=Hash(values["request"]),
            parameters=RequestParameters.from_event(values["params"]),
            block=block,
            topics=tuple(topics),
            data=data,
        )

    @classmethod
    def from_bytes(cls, stored: bytes) -> OnchainRequest:
        """Read what `to_bytes` returned."""
        topics = [Hash(stored[at : at + 32]) for at in range(8, 8 + 32 * _TOPICS, 32)]
        return cls.from_event(int.from_bytes(stored[:8], "big"), topics, stored[8 + 32 * _TOPICS :])

    def to_bytes(self) -> bytes:
        """Return the request as emitted, without its prompt."""
        return self.block.to_bytes(8, "big") + b"".join(self.topics) + self.data

    @property
    def open_hash(self) -> Hash:
        """Return what `Requests.openRequest` says while the request is open: the event's data is abi.encode(params)."""
        return keccak(self.data)


class Asked:
    """The journal's tables of requests and prompts. A prompt is kept under the commitment to it, not under a number.

    So it does not matter in which order the two come, nor what a reorganisation makes of the numbers.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def waiting(self, now: float) -> list[OnchainRequest]:
        """Return the requests whose deadline has not passed, oldest first, each with its prompt if that has come."""
        rows = self._journal.all(
            "SELECT body, ids, content_key FROM asked LEFT JOIN prompts USING (prompt) "
            "WHERE asked.deadline > ? ORDER BY number",
            int(now),
        )
        return [_joined(*row) for row in rows]

    def take(self, found: Log) -> None:
        """Keep what a `Requested` or `PromptPublished` event says."""
        if found.topics[0] == artifact("Requests").event("Requested").topic:
            request = OnchainRequest.from_event(found.block, found.topics, found.data)
            asked = request.parameters
            self._journal.run(
                "INSERT OR REPLACE INTO asked VALUES (?, ?, ?, ?, ?)",
                request.number,
                request.block,
                asked.prompt,
                asked.deadline,
                request.to_bytes(),
            )
            return
        values = artifact("Requests").event("PromptPublished").decode(found.topics, found.data)
        self.give(values["id"], ids_from(values["ids"]), ContentKey.public())

    def give(self, number: int, ids: Sequence[int], content_key: ContentKey) -> None:
        """Keep the prompt of a request; raise `BadRequestError` when it is not what the request commits to."""
        row = self._journal.one("SELECT prompt, deadline FROM asked WHERE number = ?", number)
        if row is None:
            raise BadRequestError(f"no request {number} names this node; send its prompt once its transaction is mined")
        prompt, deadline = row
        if prompt_commitment(content_key, ids) != prompt:
            raise BadRequestError(f"this prompt is not what request {number} commits to; send the same ids and key")
        self._journal.run(
            "INSERT INTO prompts VALUES (?, ?, ?, ?) "
            "ON CONFLICT (prompt) DO UPDATE SET deadline = max(deadline, excluded.deadline)",
            prompt,
            ids_bytes(ids),
            content_key.secret_bytes(),
            deadline,
        )

    def unwind(self, to: int) -> None:
        """Forget the requests of the blocks after `to`."""
        self._journal.run("DELETE FROM asked WHERE block > ?", to)

    def forget(self, before: float) -> None:
        """Forget requests and prompts whose deadline lies before a time: nobody may answer them any more."""
        self._journal.run("DELETE FROM asked WHERE deadline < ?", int(before))
        self._journal.run("DELETE FROM prompts WHERE deadline < ?", int(before))


def _joined(body: bytes, ids: bytes | None, content_key: bytes | None) -> OnchainRequest:
    request = OnchainRequest.from_bytes(body)
    if ids is None or content_key is None:
        return request
    return replace(request, ids=ids_from(ids), content_key=ContentKey(content_key))
