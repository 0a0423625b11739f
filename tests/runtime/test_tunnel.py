"""What the plan promises, SGLang's own scheduler does: at a size that no model runs at here."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from blendrun.bench.tunnel import TunnelRound, TunnelRounds, prompt_ids, run_tunnels
from blendrun.cost.capacity import EngineLimits
from blendrun.cost.hardware import load_hardware, machine
from blendrun.engine.sglang_names import has
from blendrun.engine.tunnel.process import TunnelProcesses
from blendrun.errors import UsageError
from blendrun.events import ignore
from blendrun.lengths.estimate import estimate
from blendrun.models.cards import load_card
from blendrun.names import LengthMode, OrderName, Overlap
from blendrun.planner.plan import Choice, Structure, cost_structure, make_plan
from blendrun.report.schemas.tunnel import tunnel_report
from blendrun.tokens.base import Prompts
from blendrun.tree.build import build_tree
from tests.command import blendrun
from tests.versions import reserves_as_simulated, unexpected

pytestmark = pytest.mark.runtime

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
# Requests, prompt tokens, of these shared by groups of 24, output tokens, kind by kind.
KINDS = ((100, 1536, 0, 8), (96, 1024, 896, 4), (240, 64, 0, 600))
POOL = 40_000


def job() -> Prompts:
    """Compute-heavy requests, such that share, and memory-heavy ones, one kind after the other.

    Those that share begin alike, and each group of them is on an adapter of its own.
    """
    rng, units, outputs, roots = np.random.default_rng(0), [], [], []
    for count, prompt, shared, output in KINDS:
        head = rng.integers(0, 40_000, shared or 48)
        for number in range(count):
            units.append(np.concatenate((head, rng.integers(0, 40_000, prompt - len(head)))).astype(np.int32))
            outputs.append(output)
            roots.append(1 + number // 24 if shared else 0)
    lengths, count = np.array([len(each) for each in units]), len(units)
    return Prompts(
        row=np.arange(count),
        units=np.concatenate(units),
        offsets=np.concatenate(([0], np.cumsum(lengths))),
        unit_tokens=1,
        prompt_tokens=lengths.astype(np.int32),
        root=np.array(roots, dtype=np.uint64),
        cluster=np.zeros(count, dtype=np.uint64),
        bound=np.array(outputs, dtype=np.int32),
        choices=np.ones(count, dtype=np.int32),
        reference=np.array(outputs, dtype=np.int32),
        known=np.ones(count, dtype=np.bool_),
    )


def rounds(prompts: Prompts, choice: Choice, folder: Path) -> TunnelRounds:
    tree = build_tree(prompts)
    structure = Structure(prompts, tree, estimate(prompts, tree, mode=LengthMode.AUTO, history=None))
    limits = EngineLimits(pool_tokens=POOL)
    costed = cost_structure(structure, load_card("llama-3-8b"), machine(load_hardware("h200")), limits=limits)
    return run_tunnels(make_plan(costed, choice), TunnelProcesses(), folder, ignore)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> TunnelRounds:
    choice = Choice((OrderName.GIVEN, OrderName.SORTED, OrderName.BLENDED), (Overlap.EXCLUSIVE, Overlap.MIXED))
    return rounds(job(), choice, tmp_path_factory.mktemp("tunnel"))


def of(found: TunnelRounds, order: OrderName, overlap: Overlap) -> TunnelRound:
    return next(each for each in found.rounds if each.ours and (each.order, each.overlap) == (order, overlap))


def admits_as_planned(each: TunnelRound) -> bool:
    """Whether the plug-in admits, or an SGLang that does so as the simulator has it."""
    return "reserve" in each.cpu or reserves_as_simulated()


def test_what_was_planned_comes_true_on_sglangs_scheduler(found: TunnelRounds) -> None:
    tokens = int(found.plan.costed.structure.prompts.prompt_tokens.sum())
    for each in found.rounds:
        if each.ours:
            what = (each.order, each.overlap)
            assert not unexpected(each.notes), what
            if not admits_as_planned(each):
                continue
            assert each.seconds == pytest.approx(each.planned.seconds, rel=0.03), what
            assert each.steps == pytest.approx(each.planned.steps, rel=0.08), what
            assert abs(each.hit_tokens - each.planned.hit_tokens) < 0.01 * tokens, what
            # Nothing of another adapter's.
            assert each.retractions or each.hit_tokens <= found.plan.costed.structure.tree.shared_tokens, what
            assert max(each.retractions, each.planned.retractions) <= 2, what


def test_a_blend_fed_live_is_no_list(found: TunnelRounds) -> None:
    # Handed over at once, or with one side's head in the other's way, it takes as long as depth first.
    blended, depth_first = (of(found, name, Overlap.MIXED) for name in (OrderName.BLENDED, OrderName.SORTED))
    assert depth_first.seconds > 1.3 * blended.seconds
    if admits_as_planned(depth_first):
        assert blended.rows > 1.2 * depth_first.rows


def test_sglang_as_it_comes_computes_prefixes_again(found: TunnelRounds) -> None:
    stock, ours = found.rounds[0], of(found, OrderName.GIVEN, Overlap.EXCLUSIVE)
    assert not stock.ours
    assert stock.hit_tokens < 0.9 * ours.hit_tokens
    comes_true(found, stock)


def comes_true(found: TunnelRounds, each: TunnelRound) -> None:
    tokens = int(found.plan.costed.structure.prompts.prompt_tokens.sum())
    assert each.seconds == pytest.approx(each.planned.seconds, rel=0.02)
    assert each.steps == pytest.approx(each.planned.steps, rel=0.02)
    assert abs(each.hit_tokens - each.planned.hit_tokens) < 0.01 * tokens


@pytest.mark.skipif(not reserves_as_simulated(), reason="older versions admit more")
def test_sglangs_own_admission_of_answers_that_may_end_before_their_bound(tmp_path: Path) -> None:
    # In random order: what is computed twice, what the cache drops and when it is looked at again all depend on it.
    prompts = job()
    places = np.random.default_rng(1).permutation(len(prompts))[:300]
    sizes = prompts.prompt_tokens[places]
    ids = [prompts.units[prompts.offsets[place] : prompts.offsets[place + 1]] for place in places]
    shuffled = replace(
        prompts,
        **{name: getattr(prompts, name)[places] for name in ("root", "cluster", "choices", "reference")},
        row=np.arange(len(places)),
        units=np.concatenate(ids),
        offsets=np.concatenate(([0], np.cumsum(sizes))),
        prompt_tokens=sizes,
        bound=2 * prompts.bound[places],
        known=np.zeros(len(places), dtype=np.bool_),
    )
    free = rounds(shuffled, Choice((OrderName.GIVEN,), (Overlap.EXCLUSIVE,)), tmp_path)
    for each in free.rounds:
        comes_true(free, each)


def test_what_a_step_costs_is_told_by_part(found: TunnelRounds) -> None:
    blended = of(found, OrderName.BLENDED, Overlap.MIXED)
    hooked = {"gate", "sides", "reserve", "budget", *filter(has, ["next_use"])}
    assert set(blended.cpu) == {"scheduler", "model"} | hooked
    assert all(seconds >= 0 for seconds in blended.cpu.values())
    (card,) = tunnel_report([found], job="job", model="llama-3-8b").cards
    assert [row.engine for row in card.rows] == ["sglang", *["blendrun"] * 6]
    # SGLang's own bound, far above what the pool holds.
    assert card.max_running >= 2048


def test_requests_that_want_several_answers_are_refused_not_run_as_one(found: TunnelRounds, tmp_path: Path) -> None:
    costed = found.plan.costed
    choices = costed.structure.prompts.choices.copy()
    choices[:3] = 2
    prompts = replace(costed.structure.prompts, choices=choices)
    plan = replace(found.plan, costed=replace(costed, structure=replace(costed.structure, prompts=prompts)))
    with pytest.raises(UsageError, match=r"^3 requests want several answers \(n\), which a tunnel does not run"):
        run_tunnels(plan, TunnelProcesses(), tmp_path, ignore)


def test_the_command_says_what_is_real_and_what_is_priced(tmp_path: Path) -> None:
    before = dict(os.environ)
    trace = tmp_path / "trace.jsonl"
    lines = [{"id": f"{place}", "prompt_tokens": 200, "output_tokens": 20 + place % 3} for place in range(30)]
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = "--model llama-3-8b --hardware h100-sxm --kv-tokens 2000 --orders given --overlap exclusive -q"
    words = ["bench", "tunnel", str(trace), *asked.split()]
    told = blendrun(*words, env={"COLUMNS": "120"})
    assert told.returncode == 0, told.stderr
    assert "not calibrated: step times by the card's rates" in told.stdout
    assert "nothing was computed" in told.stdout
    assert "given, as it comes" in told.stdout
    report = json.loads(blendrun(*words, "--json").stdout)
    jsonschema.validate(report, json.loads((SCHEMAS / "bench-tunnel.json").read_text(encoding="utf-8")))
    assert report["output_tokens"] == sum(20 + place % 3 for place in range(30))
    # What the scheduler's processes are told, nothing else is.
    assert dict(os.environ) == before


def test_ids_share_what_units_share() -> None:
    prompts = job()
    first, second = (prompt_ids(prompts, number) for number in (100, 101))
    assert (first[:896] == second[:896]).all()
    assert first[896] != second[896]
    assert len(first) == 1024
