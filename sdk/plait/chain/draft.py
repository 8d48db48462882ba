"""What a deployment has sent so far, on disk before it is sent: a run that was stopped goes on from there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PlainSerializer, ValidationError

from plait.chain.deployments import AddressText, HashText, Parameters, Part, write_whole
from plait.chain.errors import DeploymentError
from plait.chain.lane import Transaction
from plait.chain.plan import Plan, Step
from plait.chain.values import Data
from plait.protocol.ids import keccak, to_hex

_DataText = Annotated[Data, PlainSerializer(to_hex)]


class Sent(Part):
    """A signed transaction; fees in wei per gas."""

    hash: HashText
    gas: int
    max_fee: int
    tip: int
    raw: _DataText


class Draft(Part):
    """A draft file: which deployment was begun, and every transaction that was signed for it."""

    chain_id: int
    deployer: AddressText
    nonce: int
    token: AddressText | None
    parameters: Parameters
    code: HashText  # of what all transactions carry
    sent: dict[str, tuple[Sent, ...]] = Field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Draft | None:
        """Read a draft file, None if there is none; raise `DeploymentError`."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise DeploymentError(f"{path} cannot be read as a draft of a deployment; {_anew(path)}") from error

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """Return the draft of a deployment that has sent nothing yet."""
        return cls(
            chain_id=plan.chain_id,
            deployer=plan.deployer,
            nonce=plan.nonce,
            token=plan.token.address if plan.token else None,
            parameters=plan.parameters,
            code=keccak(*(step.code for step in plan.steps)),
        )


class Journal:
    """The draft of one deployment as it goes on; without a path it is kept in memory alone."""

    def __init__(self, plan: Plan, path: Path | None = None, *, draft: Draft | None = None) -> None:
        """Begin, or go on from a draft; raise `DeploymentError` when that is of another deployment."""
        self._draft = Draft.of(plan)
        self.path = path
        if draft:
            begun = draft.model_dump(exclude={"sent"})
            now = self._draft.model_dump(exclude={"sent"})
            other = [name.replace("_", " ") for name, value in now.items() if begun[name] != value]
            if other:
                raise DeploymentError(
                    f"{path} was begun with other {', '.join(other)}: run it again as it was begun, or {self.anew}"
                )
            self._draft = draft

    @property
    def anew(self) -> str:
        """Return what to do when the deployment cannot go on."""
        return _anew(self.path) if self.path else "deploy again, with a key that nothing else uses"

    def keep(self) -> None:
        """Write the draft file, if there is one."""
        if self.path:
            write_whole(self.path, self._draft)

    def discard(self) -> None:
        """Remove the draft file: the deployment is complete."""
        if self.path:
            self.path.unlink(missing_ok=True)

    def variants(self, step: Step) -> list[Transaction]:
        """Return what was signed for a step, the last one last."""
        return [
            Transaction(
                sender=self._draft.deployer,
                nonce=step.nonce,
                to=None,
                data=step.code,
                value=0,
                gas=each.gas,
                max_fee=each.max_fee,
                tip=each.tip,
                hash=each.hash,
                raw=each.raw,
            )
            for each in self._draft.sent.get(step.contract, ())
        ]

    def add(self, step: Step, tx: Transaction) -> None:
        """Write down a signed transaction."""
        new = Sent(hash=tx.hash, gas=tx.gas, max_fee=tx.max_fee, tip=tx.tip, raw=tx.raw)
        sent = self._draft.sent | {step.contract: (*self._draft.sent.get(step.contract, ()), new)}
        self._draft = self._draft.model_copy(update={"sent": sent})
        self.keep()


def _anew(path: Path) -> str:
    return f"delete {path} to start over (what it placed stays on the chain, unused)"
