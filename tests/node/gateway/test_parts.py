"""Whose the payer's money is: every base unit at most once, the first who worked first."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st
from tests.sdk.swarm import Swarm

from plait.protocol.ids import Address
from plait.protocol.money import MILLION, job_price, worker_share_rounded_down
from plait_node.gateway.parts import Part, covered, parts_of
from plait_node.worker.cover import Cover

WORKERS = [Address(bytes([at]) * 20) for at in (1, 2, 3)]
LEAD = 40

# Of each attempt: who ran it, how many tokens it was paid for, how many it delivered beyond those in vain.
attempts = st.lists(st.tuples(st.sampled_from(WORKERS), st.integers(0, 60), st.integers(0, 9)), min_size=1, max_size=6)
prices = st.integers(0, 30_000_000)


def played(made: list[tuple[Address, int, int]], profile: bytes) -> list[SimpleNamespace]:
    """Return attempts as the gateway follows them; one that delivered nothing has no progress."""
    return [
        SimpleNamespace(
            job=SimpleNamespace(attempt=at, worker=worker, profile=profile),
            progress=tokens > 0 or None,
            paid_output=tokens,
            windows=-(-tokens // 16),
        )
        for at, (worker, tokens, _) in enumerate(made, start=1)
    ]


@given(made=attempts, inputs=st.integers(1, 300), price=prices, more=prices)
def test_parts_are_the_price_and_the_input_is_the_first_workers(
    made: list[tuple[Address, int, int]], inputs: int, price: int, more: int
) -> None:
    swarm = Swarm()
    terms = type(swarm.terms)(profile=swarm.terms.profile, input_price=price, output_price=more)
    quote, request = SimpleNamespace(terms=(terms,)), SimpleNamespace(input_tokens=inputs)
    parts = parts_of(quote, request, played(made, terms.profile))  # type: ignore[arg-type]
    tokens = sum(count for _, count, _ in made)
    whole = job_price(terms, input_tokens=inputs, output_tokens=tokens)
    assert sum(part.amount for part in parts) == (whole if tokens else 0)
    assert [part.worker for part in parts] == [worker for worker, _, _ in made]
    prompt = job_price(terms, input_tokens=inputs, output_tokens=0)
    first = next((part for part, (_, count, _) in zip(parts, made, strict=True) if count), None)
    assert first is None or first.amount >= prompt
    assert {part.lead for part in parts} == {0 if tokens else prompt}


@st.composite
def money(draw: st.DrawFn) -> tuple[list[Part], list[int]]:
    """Draw parts, and what the payer has paid at growing times, never more than they and the prompt cost."""
    amounts = draw(st.lists(st.tuples(st.sampled_from(WORKERS), st.integers(0, 500)), min_size=1, max_size=6))
    parts = [
        Part(attempt=at, worker=worker, amount=amount, windows=1, lead=LEAD)
        for at, (worker, amount) in enumerate(amounts)
    ]
    most = max(LEAD, sum(part.amount for part in parts))
    return parts, sorted(draw(st.lists(st.integers(0, most), min_size=1, max_size=5)))


@given(drawn=money(), share=st.integers(0, MILLION), ended=st.booleans())
def test_covered_is_never_more_than_was_paid_or_earned_and_only_grows(
    drawn: tuple[list[Part], list[int]], share: int, ended: bool
) -> None:
    parts, times = drawn
    before: dict[Address, int] = {}
    for paid in times:
        found = covered(paid, parts, ended=ended)
        assert sum(worker_share_rounded_down(each, share) for each in found.values()) <= paid
        for worker, amount in found.items():
            earned = sum(part.amount for part in parts if part.worker == worker)
            lead = 0 if ended or any(part.amount for part in parts) else LEAD
            assert before.get(worker, 0) <= amount <= max(earned, lead)
        before = found
    everything = covered(sum(part.amount for part in parts), parts, ended=True)
    assert sum(everything.values()) == sum(part.amount for part in parts)


@given(made=attempts, inputs=st.integers(1, 300), price=prices, more=prices, share=st.integers(0, MILLION))
def test_worker_asks_for_exactly_what_its_gateway_owes(
    made: list[tuple[Address, int, int]], inputs: int, price: int, more: int, share: int
) -> None:
    """The last attempt's worker computes from the stream what the gateway computes from its attempts."""
    swarm = Swarm()
    terms = type(swarm.terms)(profile=swarm.terms.profile, input_price=price, output_price=more)
    quote, request = SimpleNamespace(terms=(terms,)), SimpleNamespace(input_tokens=inputs)
    parts = parts_of(quote, request, played(made, terms.profile))  # type: ignore[arg-type]
    worker = made[-1][0]
    others = sum(part.amount for part in parts if part.worker != worker)
    unpaid = sum(lost for _, _, lost in made[:-1])
    to = unpaid + sum(count for _, count, _ in made)
    task = SimpleNamespace(
        request=SimpleNamespace(profiles=(terms.profile,), max_tokens=600),
        price=lambda _, tokens: job_price(terms, input_tokens=inputs, output_tokens=tokens),
    )
    cover = Cover(task=task, share=share, others=others)  # type: ignore[arg-type]
    if any(count for _, count, _ in made):
        whole = sum(part.amount for part in parts)
        owed = worker_share_rounded_down(covered(whole, parts, ended=True)[worker], share)
        assert cover.needed(to, unpaid=unpaid) == owed
        cover.paid = owed
        assert cover.to(unpaid=unpaid) >= to
