"""How far an answer is paid for, and how far it may go on before the next payment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plait.protocol.windows import WINDOW_STEPS

if TYPE_CHECKING:
    from plait_node.worker.admission import Task
    from plait_node.worker.payer import PayerWatch


class Purse:
    """The payer's side of one attempt, in steps."""

    def __init__(self, task: Task, payer: PayerWatch, *, prompt_end: int, credit_windows: int) -> None:
        """Count from the end of the attempt's prompt: the request's and what earlier attempts delivered."""
        self._task = task
        self._payer = payer
        self._prompt_end = prompt_end
        self._credit_windows = credit_windows

    def paid_end(self, *, closed: int) -> int:
        """Return the first step not paid for: by the payer, or out of the fee on the chain for `closed` windows."""
        if self._task.quote is None:
            return max(self._prompt_end, closed)
        return max(self._prompt_end, self._task.request.input_tokens + self._payer.to - 1)

    def credit_end(self, paid_end: int) -> int:
        """Return the first step beyond what is paid and the credit line, which an unpaid prompt uses up too."""
        if self._payer.prompt_unpaid:
            return max(self._prompt_end, WINDOW_STEPS * self._credit_windows)
        return paid_end + WINDOW_STEPS * self._credit_windows

    def starved(self, step: int) -> bool:
        """Tell whether the row of a step waits for a payment."""
        if self._task.quote is None or step < self._prompt_end:
            return False
        return step >= self.credit_end(self.paid_end(closed=0))
