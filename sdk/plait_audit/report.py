"""Run the checks over a replay, and say what came out: as a table for a person, as JSON for a machine."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from plait.chain.reader import ChainReader
from plait.protocol.ids import to_hex
from plait_audit.checks import CHECKS
from plait_audit.checks.backing import owed
from plait_audit.load import Replay, replay
from plait_audit.state import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an audit looked at and what it found."""

    replay: Replay
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Whether everything adds up."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it; amounts as decimal strings."""
        state = self.replay.state
        return {
            "firstBlock": self.replay.first,
            "lastBlock": self.replay.block.number,
            "lastBlockHash": to_hex(self.replay.block.hash),
            "logs": self.replay.logs,
            "owed": {name: str(amount) for name, amount in owed(state).items()},
            "counts": _counts(self.replay),
            "findings": [_finding(finding) for finding in self.findings],
            "clean": self.clean,
        }


async def audit(reader: ChainReader, *, last: int | None = None) -> Report:
    """Replay the logs and run every check at the same block."""
    found = await replay(reader, last=last)
    findings = list(found.state.findings)
    for check in CHECKS:
        findings += [finding async for finding in check(reader, found)]
    return Report(replay=found, findings=tuple(findings))


def show(report: Report, console: Console) -> None:
    """Print the report as tables."""
    state, block = report.replay.state, report.replay.block
    console.print(
        f"blocks {report.replay.first} to {block.number} ({to_hex(block.hash)[:18]}...), {report.replay.logs} logs"
    )
    table = Table("rebuilt from logs", "count", "base units owed")
    debts = owed(state)
    counts = _counts(report.replay)
    deposits = sum(channel.deposit - channel.claimed for channel in state.channels.values())
    table.add_row("channels", str(counts["channels"]), f"{deposits:,}")
    table.add_row("payees' accounts", str(counts["accounts"]), f"{debts['Channels'] - deposits:,}")
    table.add_row("nodes", str(counts["nodes"]), f"{debts['NodeRegistry']:,}")
    table.add_row("open requests", str(counts["openRequests"]), f"{debts['Requests']:,}")
    table.add_row("claims", str(counts["claims"]), "")
    table.add_row("failed callbacks", str(counts["failedCallbacks"]), "")
    table.add_row("verdicts against nodes", str(counts["verdicts"]), "")
    console.print(table)
    if report.clean:
        console.print("clean: storage equals the logs, and every debt is backed")
        return
    for check, count in sorted(Counter(finding.check for finding in report.findings).items()):
        console.print(f"{check}: {count} finding(s)", style="red")
    for finding in report.findings:
        console.print(f"  {_where(finding)}  {finding.check}: {finding.text}", soft_wrap=True, highlight=False)


def _counts(found: Replay) -> dict[str, int]:
    state = found.state
    return {
        "channels": len(state.channels),
        "accounts": len(state.accounts),
        "claims": sum(account.rows for account in state.accounts.values()),
        "nodes": len(state.nodes),
        "models": len(state.models),
        "requests": len(state.requests),
        "openRequests": sum(request.status == "open" for request in state.requests.values()),
        "failedCallbacks": sum(request.callback_failed for request in state.requests.values()),
        "verdicts": sum(node.verdicts for node in state.nodes.values()),
    }


def _where(finding: Finding) -> str:
    place = finding.place
    return f"block {place.block} tx {to_hex(place.tx)} log {place.index}" if place else "no log"


def _finding(finding: Finding) -> dict[str, Any]:
    place = asdict(finding.place) | {"tx": to_hex(finding.place.tx)} if finding.place else None
    return {"check": finding.check, "text": finding.text, "place": place}
