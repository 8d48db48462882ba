"""One frame of rows around the engine: decode, draw, encode, hash. Runs in the engine's thread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from plait.protocol.ids import Hash
from plait.protocol.manifest import Manifest
from plait.protocol.messages import Request
from plait_model.sampler import sample
from plait_node.commit import RowHashes, hash_rows, hash_tail_rows
from plait_node.engine import StepInput, StepOutput
from plait_node.engine.errors import NumericsError
from plait_node.wire import TensorError, decode_rows, encode_rows, row_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """From which step on the last stage draws tokens, and by what."""

    first_step: int  # P - 1
    request: Hash
    terms: Request

    def position(self, step: int) -> int:
        """Return the absolute output position drawn from the row of `step`."""
        return step + 1 - self.terms.input_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """What came out of some rows; on the last stage the hashes are of those that were accepted."""

    step: int
    count: int
    speculative: int  # steps before the end that may be taken back
    codec: str
    data: bytes
    inputs: RowHashes
    outputs: RowHashes
    tokens: tuple[int, ...]  # drawn from the last of the hashed rows

    @property
    def end(self) -> int:
        """Return the first step after the rows."""
        return self.step + self.count

    @property
    def certain(self) -> int:
        """Return the first step that may be taken back."""
        return self.end - self.speculative


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """Encoded rows of one frame; `draw` is set on the last stage. Computed in parts while it is a prompt's."""

    job: Hash
    step: int
    count: int
    codec: str
    gives: str  # the codec of the rows that come out
    data: bytes
    whole: bool
    draw: Draw | None
    manifest: Manifest
    speculative: int = 0  # steps before the end that may be taken back
    draft: tuple[int, ...] = ()  # the ids of those of its rows that are guessed, on the last stage

    @property
    def end(self) -> int:
        """Return the first step after the rows."""
        return self.step + self.count

    @property
    def certain(self) -> int:
        """Return the first step that may be taken back, which may lie before the rows."""
        return self.end - self.speculative

    @property
    def guessed(self) -> bool:
        """Tell whether the first row is a guess too."""
        return self.certain <= self.step

    def given(self, first: int, last: int) -> StepInput:
        """Return some of the rows; raise `TensorError` for rows nobody could compute with."""
        manifest = self.manifest
        rows = decode_rows(
            self._bytes(first, last),
            codec=self.codec,
            count=last - first,
            width=manifest.hidden,
            limit=manifest.vocabulary,
        )
        draw = self.draw
        drawn = 0 if draw is None else max(0, last - max(first, draw.first_step))
        greedy = draw is not None and draw.terms.sampling.temperature == 0
        return StepInput(job=self.job, start=first, rows=rows, logits=drawn, best=greedy)

    def made(self, given: StepInput, output: StepOutput) -> StepDone:
        """Return the rows that came out, all hashes, and the tokens; raise errors of the sampler."""
        step, count = given.start, len(given.rows)
        data = self._encoded(output)
        received = self._bytes(step, step + count)
        in_width, out_width = row_bytes(self.codec, self.manifest.hidden), row_bytes(self.gives, self.manifest.hidden)
        tokens: tuple[int, ...] = ()
        if self.draw is None:
            outputs = hash_rows(step, data, width=out_width)
        else:
            tokens = self._accepted(self._drawn(self.draw, output, end=step + count))
            kept = len(tokens) if self.speculative else count
            received = received[: kept * in_width]
            outputs = hash_tail_rows(step, data[: kept * out_width], width=out_width, sampled=tokens)
        return StepDone(
            step=step,
            count=count,
            speculative=self.speculative,
            codec=self.gives,
            data=data,
            inputs=hash_rows(step, received, width=in_width),
            outputs=outputs,
            tokens=tokens,
        )

    def _encoded(self, output: StepOutput) -> bytes:
        try:
            return encode_rows(output.rows, codec=self.gives)
        except TensorError as error:  # good rows came, and ours do not fit the codec: nobody else is to blame
            raise NumericsError(f"rows came out that {self.gives} cannot hold: {error}") from error

    @staticmethod
    def _drawn(draw: Draw, output: StepOutput, *, end: int) -> Iterator[int]:
        """Draw from the rows whose heads were asked for, the last of which is before step `end`."""
        if output.best is not None:
            yield from output.best.tolist()
        elif output.logits is not None:
            for step, row in enumerate(output.logits, end - len(output.logits)):
                yield sample(
                    row,
                    seed=draw.terms.seed,
                    request=draw.request,
                    position=draw.position(step),
                    sampling=draw.terms.sampling,
                ).id

    def _accepted(self, drawn: Iterator[int]) -> tuple[int, ...]:
        """Take ids position by position, for as long as the row that follows is that of the id drawn."""
        tokens: list[int] = []
        follow = self.draft[1:] if self.guessed else self.draft
        for at, token in enumerate(drawn):
            tokens.append(token)
            if follow[at : at + 1] != (token,):
                break
        return tuple(tokens)

    def _bytes(self, first: int, last: int) -> bytes:
        """Return the bytes of some rows; of the last ones whatever is there, so that none too many go unseen."""
        width = row_bytes(self.codec, self.manifest.hidden)
        until = None if last == self.end else (last - self.step) * width
        return self.data[(first - self.step) * width : until]
