"""What the demo does, step by step, with the SDK alone. Numbers in brackets are those of docs/architecture.md."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from network import Facts
from strikes import STRIKES, Strike

from plait import Plait
from plait.client.sync import Stream

_QUESTION = "Explain in two sentences why the sky is blue."
_EVENING = "And why is it red in the evening?"
_TRIES = 6
_NIGHT = "And why is it black at night?"
_ON_CHAIN = "Name the capital of France."
_LONG = "Write a long story about a lighthouse keeper and the sea."
_CLAIMED_S = 30.0
_LONG_TOKENS = 96
_STRIKE_AFTER_TOKENS = 24
_STRUCK_BLOCK = 10
_PAYEES = ("gateway", "stage-ash", "stage-birch", "stage-cedar")


class StoryError(Exception):
    """Something did not happen as it must."""


def _route(told: Told) -> tuple[str, ...]:
    return tuple(stage.node for stage in told.answer.job.route)


def _talk(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def _must(otherwise: str, *, true: bool) -> None:
    if not true:
        raise StoryError(otherwise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One answer and how it came."""

    answer: Any
    text: str
    first_token_s: float
    tokens_per_s: float


@dataclass(slots=True)
class Story:
    """Runs the steps against one local network and gathers the summary."""

    facts: Facts
    home: Path
    up_s: float
    _summary: dict[str, Any] = field(default_factory=dict[str, Any])

    def tell(self) -> dict[str, Any]:
        """Run every step; raise `StoryError` or `PlaitError` at the first that fails."""
        facts = self.facts
        self._summary["networkUpSeconds"] = round(self.up_s, 1)
        with Plait(rpc=facts.rpc, deployment=facts.deployment, key=facts.payer_key, home=self.home) as client:
            before = self._reputations(client)
            first = self._question(client)
            self._shared_prefix(client, first)
            self._on_chain(client)
            self._lose_some(client)
            self._settle(client, first, before)
        self._audit()
        return self._summary

    def _say(self, part: str, text: str) -> None:
        print(f"[{part}] {text}", flush=True)

    def _ask(self, client: Plait, messages: list[dict[str, str]], *, max_tokens: int = 96) -> Told:
        began, first, count, text = time.monotonic(), 0.0, 0, ""
        stream = client.chat.completions.create(
            model=self.facts.model, messages=messages, max_tokens=max_tokens, temperature=0, stream=True
        )
        print("    ", end="")
        for chunk in stream:
            piece = chunk.choices[0].delta.content or ""
            if piece and not first:
                first = time.monotonic()
            print(piece.replace("\n", "\n    "), end="", flush=True)
            text, count = text + piece, count + 1
        print(flush=True)
        answer = stream.completion
        tokens, took = answer.usage.completion_tokens, time.monotonic() - first
        rate = (tokens - 1) / took if tokens > 1 else 0.0
        return Told(answer=answer, text=text, first_token_s=first - began, tokens_per_s=rate)

    def _facts_of(self, told: Told) -> dict[str, Any]:
        answer = told.answer
        return {
            "request": answer.id,
            "answer": told.text,
            "finish": answer.choices[0].finish_reason,
            "route": [
                {"blocks": [stage.first, stage.last], "node": stage.node, "name": self._name(stage.node)}
                for stage in answer.job.route
            ],
            "method": answer.job.method,
            "reason": answer.job.reason,
            "firstTokenSeconds": round(told.first_token_s, 2),
            "tokensPerSecond": round(told.tokens_per_s, 1),
            "price": str(answer.receipt.price),
            "verification": {"level": answer.verification.level, "checks": list(answer.verification.checks)},
        }

    def _name(self, owner: str) -> str:
        return next((str(each["name"]) for each in self.facts.processes if each["owner"] == owner), owner)

    def _show(self, told: Told) -> dict[str, Any]:
        facts = self._facts_of(told)
        usage = told.answer.usage
        self._say("5 method", facts["reason"])
        stages = (f"{each['blocks'][0]}-{each['blocks'][1] - 1} {each['name']}" for each in facts["route"])
        self._say("4 route", " -> ".join(stages))
        checks = facts["verification"]["checks"]
        listed = f"{len(checks)} checks passed" if "question" in self._summary else ", ".join(checks)
        self._say("8 verify", f"{facts['verification']['level']}: {listed}")
        self._say(
            "8 pay",
            f"{usage.prompt_tokens} + {usage.completion_tokens} tokens for {facts['price']} base units; "
            f"first token after {facts['firstTokenSeconds']} s, then {facts['tokensPerSecond']} tokens/s",
        )
        return facts

    def _question(self, client: Plait) -> Told:
        self._say("1 ask", _QUESTION)
        told = self._ask(client, _talk(_QUESTION))
        self._summary["question"] = self._show(told)
        return told

    def _shared_prefix(self, client: Plait, first: Told) -> None:
        """Go on talking, twice from the same point: the second time the stages know all but the last question."""
        talk = [*_talk(_QUESTION), {"role": "assistant", "content": first.text}]
        methods, routes = [first.answer.job.method], [_route(first)]
        for part, question in (("followUp", _EVENING), *(("sharedPrefix", _NIGHT),) * _TRIES):
            self._say("1 ask", f"(the talk goes on) {question}")
            told = self._ask(client, [*talk, *_talk(question)], max_tokens=32)
            self._summary[part] = self._show(told)
            methods.append(told.answer.job.method)
            if part == "sharedPrefix" and _route(told) in routes[1:]:
                break
            # A busy machine makes the planner prefer the other holder of the middle blocks, which knows no prefix yet.
            routes.append(_route(told))
        self._say("5 method", f"chosen so far: {', '.join(methods)}")
        cached = ["prefix-cache" in method.split("+") for method in methods]
        _must(
            f"the method is {methods[-1]} although the prefix is shared",
            true=cached[-1] and not cached[0],
        )

    def _on_chain(self, client: Plait) -> None:
        self._say("on chain", f"escrowed for a named node: {_ON_CHAIN}")
        number = client.requests.submit(model=self.facts.model, messages=_talk(_ON_CHAIN), max_tokens=24, fee=10_000)
        answer = client.requests.wait(number, timeout=60)
        print(f"    {answer.content}")
        self._say("on chain", f"request {number} fulfilled in transaction {answer.transaction}")
        self._summary["onChain"] = {
            "request": number,
            "answer": answer.content,
            "transaction": answer.transaction,
            "gas": answer.gas_used,
        }

    def _lose(self, client: Plait, part: str, strike: Strike) -> Told:
        """Ask for a long answer, strike one of those who make it in the middle, and see it go on."""
        self._say("1 ask", f"{_LONG} ({strike.told})")
        last, text, gap = time.monotonic(), "", 0.0
        stream = client.chat.completions.create(
            model=self.facts.model, messages=_talk(_LONG), max_tokens=_LONG_TOKENS, temperature=0, stream=True
        )
        struck, healed = "", contextlib.ExitStack()
        print("    ", end="")
        with healed:
            for chunk in stream:
                piece = chunk.choices[0].delta.content or ""
                print(piece.replace("\n", "\n    "), end="", flush=True)
                text, now = text + piece, time.monotonic()
                gap, last = max(gap, now - last) if struck else 0.0, now
                if not struck and stream.usage.completion_tokens >= _STRIKE_AFTER_TOKENS:
                    struck = self._victim(stream, strike)
                    healed.enter_context(strike.upon(int(str(self.facts.process(struck)["pid"]))))
        print(flush=True)
        _must("the answer ended before anything happened", true=bool(struck))
        return self._went_on(client, part, stream, text=text, struck=struck, strike=strike, gap=gap)

    def _went_on(
        self, client: Plait, part: str, stream: Stream, *, text: str, struck: str, strike: Strike, gap: float
    ) -> Told:
        answer = stream.completion
        told = Told(answer=answer, text=text, first_token_s=0.0, tokens_per_s=0.0)
        attempts, how = answer.job.attempt, strike.done
        went_on = f"the answer went on after {gap:.1f} s, by attempt {attempts}"
        kept = attempts == 1 and strike.may_stay
        self._say("7 failure", f"{struck} was {how}; {strike.may_stay if kept else went_on}")
        _must(f"{struck} was {how} and nobody took over", true=attempts > 1 or kept)
        _must(f"the route still names {struck}", true=kept or struck not in [self._name(node) for node in _route(told)])
        spent = client.jobs.get(answer.id)
        self._say("8 pay", f"paid once: {spent.paid} base units, the receipt says {answer.receipt.price}")
        _must(f"{spent.paid} paid", true=spent.paid == answer.receipt.price)
        self._summary[part] = {
            "struck": struck,
            "how": how,
            "pauseSeconds": round(gap, 2),
            "attempts": attempts,
            "segments": len(answer.receipt.segments),
            "paid": str(spent.paid),
            "finish": answer.choices[0].finish_reason,
        }
        return told

    def _victim(self, stream: Stream, strike: Strike) -> str:
        """Return the name of the stage that holds the middle blocks, or of the worker that drives the answer."""
        holder = next(stage.node for stage in stream.job.route if stage.first == _STRUCK_BLOCK)
        return self._name(holder if strike.at == "stage" else stream.job.worker)

    def _lose_some(self, client: Plait) -> None:
        """Freeze, slow and kill a stage, kill the worker; every answer is the one that nobody disturbed."""
        told = [self._lose(client, part, strike) for part, strike in STRIKES.items()]
        self._say("1 ask", f"{_LONG} (nothing happens to anybody)")
        undisturbed = self._ask(client, _talk(_LONG), max_tokens=_LONG_TOKENS)
        self._summary["undisturbed"] = self._show(undisturbed)
        same = {each.text for each in told} == {undisturbed.text}
        every = f"all {len(told) + 1} answers are the same, token by token"
        self._say("7 failure", every if same else "the answers differ")
        _must("an answer changed because of what happened to its makers", true=same)

    def _settle(self, client: Plait, first: Told, before: dict[str, int]) -> None:
        job = client.jobs.get(first.answer.id)
        deadline = time.monotonic() + _CLAIMED_S
        while job.status == "signed" and time.monotonic() < deadline:
            time.sleep(0.5)
            job = client.jobs.get(first.answer.id)
        _must(f"the receipt is still {job.status} after {_CLAIMED_S:.0f} s", true=job.status in {"claimed", "final"})
        self._say("9 settle", f"receipt {job.status} in transaction {job.transaction}, verified against the chain")
        self._summary["settlement"] = {"status": job.status, "transaction": job.transaction, "gas": job.gas_used}
        after = self._reputations(client)
        for name in _PAYEES:
            self._say("9 settle", f"reputation of {name}: {before[name]} before, {after[name]} after")
        grown = all(after[name] > before[name] for name in ("gateway", "stage-ash"))
        _must("work was settled and reputation stayed", true=grown)
        self._summary["reputation"] = {"before": before, "after": after}

    def _reputations(self, client: Plait) -> dict[str, int]:
        owners = {name: str(self.facts.process(name)["owner"]) for name in _PAYEES}
        return {name: client.nodes.get(owner).reputation for name, owner in owners.items()}

    def _audit(self) -> None:
        plait = Path(sys.executable).with_name("plait")
        command = [str(plait), "audit", "--rpc", self.facts.rpc, "--deployment", str(self.facts.deployment)]
        subprocess.run(command, check=False, timeout=60)
        found = subprocess.run([*command, "--json"], check=False, timeout=60, capture_output=True, text=True)
        _must(f"plait audit: {found.stderr.strip()}", true=found.returncode in {0, 1})
        report = json.loads(found.stdout)
        self._summary["audit"] = {name: report[name] for name in ("lastBlock", "logs", "owed", "counts", "findings")}
        _must(f"the audit has {len(report['findings'])} finding(s)", true=report["clean"])
