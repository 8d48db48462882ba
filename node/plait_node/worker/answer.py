"""One Job's answer as it grows: ids, running hash, sealing, and when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plait.protocol.commitments import RunningHash
from plait.protocol.messages import Finish
from plait.protocol.sealing import AnswerSealer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.protocol.choice import ChoiceNote
    from plait.protocol.ids import Hash
    from plait.protocol.manifest import Manifest
    from plait.protocol.tokens import Decodes
    from plait_node.worker.admission import Task


class Answer:
    """Takes sampled ids; `finish` is set with the last one."""

    def __init__(
        self, task: Task, *, job: Hash, manifest: Manifest, tokenizer: Decodes, ids: Sequence[int] = ()
    ) -> None:
        """Begin behind the `ids` that earlier attempts delivered."""
        self._task = task
        self._manifest = manifest
        self._tokenizer = tokenizer
        self._sealer = AnswerSealer(task.content_key, request=task.digest, job=job)
        self._running = RunningHash(task.content_key, task.digest)
        self._hashes = [self._running.value]
        self._sealed = len(ids)
        self.ids: list[int] = []
        self.finish: int | None = None
        for token in ids:
            self.take(token)

    @property
    def end(self) -> int:
        """Return the first step that has no row when the answer ends with the ids so far."""
        return self._task.request.input_tokens + max(0, len(self.ids) - 1)

    def take(self, token: int) -> None:
        """Add a sampled id; notice the end."""
        self.ids.append(token)
        self._hashes.append(self._running.extend((token,)))
        if token in self._manifest.end_tokens:
            self.finish = Finish.STOP
        elif self._task.stop and self._stopped():
            self.finish = Finish.STOP_STRING
        elif len(self.ids) >= self._task.request.max_tokens:
            self.finish = Finish.LENGTH

    @property
    def delivered(self) -> tuple[int, ...]:
        """Return the ids that were sealed, by whatever attempt."""
        return tuple(self.ids[: self._sealed])

    @property
    def sealed(self) -> int:
        """Return how many ids were sealed, by whatever attempt."""
        return self._sealed

    def token_at(self, step: int) -> int:
        """Return the id that is the input row of a step."""
        prompt = self._task.ids
        return prompt[step] if step < len(prompt) else self.ids[step - len(prompt)]

    def hash_at(self, count: int) -> Hash:
        """Return the running hash after this many ids."""
        return self._hashes[count]

    def seal_new(self) -> bytes | None:
        """Return a chunk of the ids not sealed yet, None when there are none."""
        fresh = self.ids[self._sealed :]
        if not fresh:
            return None
        self._sealed = len(self.ids)
        return self._sealer.seal(fresh)

    def seal_note(self, note: ChoiceNote) -> bytes:
        """Return the chunk that closes the answer."""
        return self._sealer.seal_note(note.to_json())

    def _stopped(self) -> bool:
        text = self._tokenizer.decode(self.ids)
        return any(stop in text for stop in self._task.stop)
