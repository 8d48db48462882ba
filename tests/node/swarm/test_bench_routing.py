"""The comparison of routing rules: its optimum against brute force, its baselines against what is said of them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from bench.swarm.routing.__main__ import lines, main, measure
from bench.swarm.routing.baselines import parallax_pipelines, parallax_route, petals_route
from bench.swarm.routing.exact import brute_force, optimum
from bench.swarm.routing.joins import Ours, best_weakest, brute_weakest, improved, random_joiners, rates
from bench.swarm.routing.placing import Joiner, Parallax, Petals, allocate
from bench.swarm.routing.routes import Worker, everything
from bench.swarm.routing.swarms import Node, Place, Swarm, made_record, random_swarm

from plait_node.swarm.completion import Costs

HERE = Place(x=0, y=0, line_ms=0)


def node(owner: int, first: int, last: int, *, ms: float = 10, x: float = 0, queue: int = 0) -> Node:
    made = made_record(owner, first, last, step_s=ms / 1e3 * (last - first), queue=queue)
    return Node(record=made, place=Place(x=x, y=0, line_ms=0), block_s=ms / 1e3, risk=0.0)


def swarm_of(*nodes: Node, blocks: int = 4) -> Swarm:
    template = random_swarm(0)
    needs = replace(template.needs, blocks=blocks, prompt=10, answer=20, chunk=0)
    return replace(template, blocks=blocks, nodes=nodes, worker=HERE, needs=needs)


@pytest.mark.parametrize("seed", range(12))
def test_optimum_is_that_of_brute_force(seed: int) -> None:
    swarm = random_swarm(seed, nodes=9, blocks=12)
    best, tried = optimum(swarm), brute_force(swarm)
    assert best is not None
    assert tried is not None
    assert swarm.completion_s(best) == pytest.approx(swarm.completion_s(tried))
    price = sum(each.record.facts.price * each.blocks for each in best)
    dear = replace(swarm, needs=replace(swarm.needs, max_price=round(price * 0.8)))
    best, tried = optimum(dear), brute_force(dear)
    assert (best is None) == (tried is None)
    if best is not None and tried is not None:
        assert dear.completion_s(best) == pytest.approx(dear.completion_s(tried))


@pytest.mark.parametrize("seed", range(12))
def test_ours_with_everything_known_and_all_in_one_place_is_the_optimum(seed: int) -> None:
    swarm = random_swarm(seed)
    same = replace(swarm, worker=HERE, row=0.045, nodes=[replace(each, place=HERE) for each in swarm.nodes])
    needs = replace(same.needs, hop_s=0.0)
    same = replace(same, needs=needs)
    ours, best = Worker(same, seed).route(everything(same)), optimum(same)
    assert ours is not None
    assert best is not None
    assert same.completion_s(ours) == pytest.approx(same.completion_s(best))
    costs = Costs(needs, everything(same), typical=0)
    edges = [costs.edge(each.record) for each in ours]
    expected = sum(edge.add_s for edge in edges) + (needs.chunks - 1) * max(edge.chunk_s for edge in edges)
    assert same.completion_s(ours) == pytest.approx(expected, rel=1e-4)


def test_petals_takes_the_announced_speed_and_pays_18_ms_a_server() -> None:
    one, two = [node(1, 0, 4, ms=10)], [node(2, 0, 2, ms=6), node(3, 2, 4, ms=6)]
    assert petals_route(swarm_of(*one, *two), seed=0) == tuple(one)  # 40 + 18 < 24 + 36
    slow = node(1, 0, 4, ms=11)
    assert petals_route(swarm_of(slow, *two), seed=0) == tuple(two)
    assert petals_route(swarm_of(replace(slow, block_s=9.0), node(9, 0, 4, ms=12)), seed=0) is not None


def test_petals_server_without_cache_costs_ten_seconds() -> None:
    full = node(1, 0, 4, ms=1)
    full = replace(full, record=replace(full.record, facts=replace(full.record.facts, free_steps=5)))
    free = node(2, 0, 4, ms=900)
    assert petals_route(swarm_of(full, free), seed=0) == (free,)


def test_petals_unpinged_server_counts_as_150_ms_away() -> None:
    near = [node(owner, 0, 4, ms=10 + owner) for owner in range(1, 9)]
    chosen = {petals_route(swarm_of(*near), seed=seed) for seed in range(20)}
    assert len(chosen) > 1  # the fastest is not always among the three that are pinged
    assert petals_route(swarm_of(*near), seed=0, omniscient=True) == (near[0],)


def test_parallax_takes_queue_and_round_trips_into_account() -> None:
    far, near = node(1, 0, 4, ms=10, x=100), node(2, 0, 4, ms=20)
    assert parallax_route(swarm_of(far, near)) == (near,)
    busy = node(3, 0, 4, ms=10, queue=3)
    assert parallax_route(swarm_of(busy, near)) == (near,)


def test_parallax_pipelines_share_no_node() -> None:
    swarm = random_swarm(5)
    pipelines = parallax_pipelines(swarm)
    owners = [each.owner for pipeline in pipelines for each in pipeline]
    assert len(pipelines) > 1
    assert len(set(owners)) == len(owners)


def test_petals_join_takes_the_weakest_window() -> None:
    rule = Petals(6, seed=0)
    for _ in range(3):
        rule.join(Joiner(room=2, block_s=0.01))
    assert sorted(rule.spans) == [(0, 2), (2, 4), (4, 6)]
    assert rule.moved == 6


def test_parallax_first_pipeline_waits_until_it_fits_and_shares_layers_by_speed() -> None:
    rule = Parallax(6)
    rule.join(Joiner(room=5, block_s=0.02))
    assert rule.spans == []
    rule.join(Joiner(room=5, block_s=0.01))
    assert sorted(last - first for first, last in rule.spans) == [2, 4]
    rule.join(Joiner(room=2, block_s=0.01))
    assert rule.spans[-1][1] - rule.spans[-1][0] == 2


def test_parallax_allocation_prefers_more_pipelines_over_fewer_stages() -> None:
    nodes = [Joiner(room=3, block_s=0.01) for _ in range(4)]
    spans = [span for _, span in allocate(nodes, 6)]
    assert sorted(span for span in spans if span is not None) == [(0, 3), (0, 3), (3, 6), (3, 6)]


@pytest.mark.parametrize("seed", range(4))
def test_best_weakest_is_that_of_brute_force(seed: int) -> None:
    joiners = [Joiner(room=2 + (seed + at) % 3, block_s=0.01 * (1 + (seed * at) % 4)) for at in range(4)]
    best, proven = best_weakest(4, joiners, prove_s=20)
    assert proven
    assert best == pytest.approx(brute_weakest(4, joiners))
    bound, proven = best_weakest(4, joiners, prove_s=0)
    assert not proven
    assert bound >= best - 1e-9


def test_ours_joins_reach_no_more_than_the_bound() -> None:
    blocks, joiners = random_joiners(1)
    rule = Ours(blocks)
    for joiner in joiners:
        rule.join(joiner)
    weakest, routed = rates(blocks, joiners, rule.spans)
    assert 0 < routed <= weakest + 1e-9
    found = improved(blocks, joiners, rule.spans)
    assert weakest <= found + 1e-9
    assert found <= best_weakest(blocks, joiners, prove_s=0)[0] + 1e-9


def test_measure_few_seeds_says_ours_is_nearer_than_petals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "routing.json"
    monkeypatch.setattr(sys, "argv", ["routing", "--seeds", "20", "--nodes", "60", "--out", str(out)])
    main()
    found = json.loads(out.read_text())
    for name in ("honest", "some_lie"):
        gap = found["gap"][name]
        assert gap["ours"]["mean"] < gap["petals"]["mean"]
        assert gap["ours"]["swarms"] == 20
        assert all(each["mean"] >= -1e-9 for each in gap.values())
    assert found["routing_ms"]["plan"]["calls"] > 0
    assert "placement, 10_to_30_joins" in capsys.readouterr().out


def test_measure_lines_name_every_rule() -> None:
    text = "\n".join(lines(measure(seeds=2, nodes=30)))
    assert all(name in text for name in ("ours_first_job", "petals", "parallax_dp", "parallax_pipelines"))
