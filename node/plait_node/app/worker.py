"""Put a worker together: offers, routes, generation, payments to stages, requests from the chain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from plait.ledger import DebtBook, PayerBook, SharedBook
from plait.protocol.manifest import Manifest
from plait.protocol.messages import Terms
from plait.protocol.tokens import ChatTokenizer
from plait_node.app.base import Base, background, clock, connected
from plait_node.app.door import Door
from plait_node.app.onchain import answer_on_chain
from plait_node.app.swarm_numbers import swarm_numbers
from plait_node.app.weights import opened_model
from plait_node.chain_tiers import ChainTiers
from plait_node.config import WorkerConfig
from plait_node.engine.methods.prompt_lookup import ROW_COST, PromptLookup
from plait_node.models import StoredModel
from plait_node.selector import PROMPT_LOOKUP, LiveSelector, Options, model_facts
from plait_node.selector.machine import measure_in_background
from plait_node.selector.observe import HARDWARE, load_hardware
from plait_node.selector.training import load_trained, refit_in_background
from plait_node.settlement import Claimer, Limits, Opener, Till
from plait_node.swarm import Directory
from plait_node.worker import (
    Admission,
    HopDesk,
    Income,
    LinkPool,
    Membership,
    OfferKeeper,
    OfferTerms,
    Planner,
    PrekeyRing,
    PromptBox,
    Proposer,
    Tools,
    WorkerRole,
    WorkerSigner,
)
from plait_node.worker import WorkerConfig as RoleConfig

_AGAIN_S = 0.5
_DEPOSIT_S = 3.0  # how long a gateway's deposit may be on its way to our endpoint


@asynccontextmanager
async def run(base: Base, config: WorkerConfig) -> AsyncGenerator[dict[str, object]]:
    """Take jobs of a group, have stages answer them, pay the stages."""
    # budget: the one place that puts a worker together
    stored = await opened_model(base, config.model)
    manifest, owner, domain, key = stored.manifest, base.config.owner, base.domain, base.key
    offer = _offer(config, manifest)
    prekeys = PrekeyRing(base.home.path / "prekeys.json", key=key, domain=domain, node=owner, clock=clock)
    directory = base.directory()
    door = Door(base, relay_mib=config.relay_mib)
    hops = PayerBook(base.journal, domain, key, payer=None if config.channel_deposit else owner)
    opener = _opener(base, config, hops)
    tools, selector = _tools(base, stored, door, hops, opener), _selector(base, config, stored)
    planner = _planner(tools, directory, selector, offer, opener)
    group = _membership(base, config)
    opened = door.open(tools.pool.serve, config.listen, announce=config.announce)
    async with connected(base.config, "plait-worker") as broker, opened:
        claimer = _claimer(base)
        income = Income(
            _till(base),
            broker,
            DebtBook(base.journal, "gateway"),
            gateways=config.gateways,
            on_payment=claimer.notify,
        )
        role = WorkerRole(
            RoleConfig(parallel_jobs=config.parallel_jobs),
            tools=tools,
            planner=planner,
            admission=Admission(
                owner=owner,
                domain=domain,
                directory=base.keys,
                prekeys=prekeys,
                manifest=manifest,
                payers=config.payers,
                least=(config.input_price, config.output_price),
                share=config.share,
            ),
            announcer=base.announcer(),
            broker=broker,
            jobs=group.jobs,
            full=lambda: base.disk.full,
            income=income,
        )
        keeper = OfferKeeper(
            offer,
            broker=broker,
            planner=planner,
            membership=group,
            prekeys=prekeys,
            key=key,
            domain=domain,
            node=owner,
            clock=clock,
        )
        try:
            prompts = PromptBox(broker, prekeys=prekeys, owner=owner)
            on_chain = answer_on_chain(base, role, prompts, max_callback_gas=config.max_callback_gas)
            base.drain.add(close=partial(_close, role, keeper), busy=lambda: role.busy)
            base.metrics.add(partial(swarm_numbers, directory, manifest))
            works = [directory.run([config.model]), keeper.run(), role.run(), on_chain, selector.run(), income.run()]
            if "stage" not in base.config.roles:  # whose claimer is one for all of the journal
                works.append(claimer.run())
            if opener is not None:
                opener.on_funded = tools.desk.funded
                works.append(opener.run())
            async with background(*works):
                while not await keeper.put():  # noqa: ASYNC110 -- stages announce themselves, nobody tells us
                    await asyncio.sleep(_AGAIN_S)
                yield {"class": group.hardware, "tier": group.tier, **door.facts()}
        finally:
            await tools.pool.close()


async def _close(role: WorkerRole, keeper: OfferKeeper) -> None:
    """Take no more jobs and tell the gateways so."""
    role.close()
    await keeper.close()


def _till(base: Base) -> Till:
    """Return what takes the payments of gateways of other owners."""
    return Till(
        owner=base.config.owner,
        key=base.key,
        domain=base.domain,
        channels=base.reader,
        payees=base.payees(),
        clock=clock,
        unpaid_s=_DEPOSIT_S,
    )


def _claimer(base: Base) -> Claimer:
    """Return what claims from gateways of other owners; a gateway beside it claims from the payers."""
    claimer = base.claimer()
    if "gateway" in base.config.roles:
        book = SharedBook(base.journal, base.domain, base.config.owner)
        claimer.owns = lambda channel: not book.logged(channel)
    return claimer


def _offer(config: WorkerConfig, manifest: Manifest) -> OfferTerms:
    prices = {"input_price": config.input_price, "output_price": config.output_price}
    return OfferTerms(
        model=config.model,
        terms=tuple(Terms(profile=each.profile_id, **prices) for each in manifest.profiles),
        max_input=config.max_input,
        max_output=config.max_output,
        share=config.share,
        parallel_jobs=config.parallel_jobs,
    )


def _membership(base: Base, config: WorkerConfig) -> Membership:
    tiers = ChainTiers(base.reader, clock=clock)
    return Membership(
        config.model,
        config.device_class,
        owner=base.config.owner,
        tiers=tiers,
        clock=clock,
        path=base.home.path / "groups.json",
    )


def _planner(
    tools: Tools, directory: Directory, selector: LiveSelector, offer: OfferTerms, opener: Opener | None
) -> Planner:
    return Planner(
        directory=directory,
        manifest=tools.manifest,
        chooser=selector,
        max_price=lambda _: offer.max_route_price(),
        clock=clock,
        rtt_s=tools.pool.rtt_s,
        spare_s=tools.patience.deadline_s,
        hesitation_s=opener.hesitation_s if opener is not None else lambda _: 0.0,
    )


def _opener(base: Base, config: WorkerConfig, hops: PayerBook) -> Opener | None:
    """Return what funds the channels to stages; None where the operator opens them."""
    if not config.channel_deposit:
        return None
    return Opener(
        base.journal,
        base.writer,
        Limits(deposit=config.channel_deposit, most=config.channels_most, share=config.channel_top_up),
        promised=lambda payee: hops.channel(payee).cumulative,
    )


def _tools(base: Base, stored: StoredModel, door: Door, hops: PayerBook, opener: Opener | None) -> Tools:
    owner, domain, key = base.config.owner, base.domain, base.key
    pool = LinkPool(door.meeting)
    desk = HopDesk(channel=hops.channel, pool=pool, domain=domain, directory=base.keys, deposits=opener)
    pool.report_to(desk)
    return Tools(
        owner=owner,
        domain=domain,
        directory=base.keys,
        pool=pool,
        desk=desk,
        signer=WorkerSigner(guard=base.guard, key=key, domain=domain),
        manifest=stored.manifest,
        tokenizer=ChatTokenizer.of(
            stored.manifest, tokenizer_json=stored.tokenizer_json, chat_template=stored.chat_template.encode()
        ),
        clock=clock,
        proposers=lookup,
    )


def _selector(base: Base, config: WorkerConfig, stored: StoredModel) -> LiveSelector:
    folder = base.home.selector_folder
    return LiveSelector(
        folder,
        model=model_facts(stored.manifest, stored.tensors),
        hardware=load_hardware(folder / HARDWARE),
        trained=load_trained(folder),
        clock=clock,
        options=Options(budget=config.job_budget or None, over_budget=config.over_budget),
        refit=refit_in_background(folder),
        measure=measure_in_background(folder / HARDWARE),
    )


def lookup(method: str, busy: float) -> Proposer | None:
    """Guess by look-up; a further row costs what it computes, not what it travels."""
    return PromptLookup(row_cost=ROW_COST * busy) if method == PROMPT_LOOKUP else None
