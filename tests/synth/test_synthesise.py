"""A made workload has the density and the sharing that were asked for, or is refused in a sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from blendrun.cost.hardware import load_hardware, machine
from blendrun.errors import UsageError
from blendrun.models.cards import load_card
from blendrun.synth.draw import draw
from blendrun.synth.kinds import COMPUTE, MEMORY, SHARE, Kind
from blendrun.synth.recipe import RHO_TOLERANCE, SHARING_TOLERANCE, Recipe, UnreachableError
from blendrun.synth.workload import Synthesis, synthesise

MODEL, PEAK = load_card("llama-3-8b"), machine(load_hardware("a100-80g"), 1, "peak")


def recipe(
    rho: float = 1.4,
    sharing: float = 0.35,
    requests: int = 4_000,
    seed: int = 0,
    *,
    kinds: tuple[str, str, str] = ("burstgpt", "openvid", "mmlu"),
) -> Recipe:
    return Recipe.of(*kinds, rho=rho, sharing=sharing, requests=requests, seed=seed)


def columns(made: Synthesis) -> list[np.ndarray]:
    prompts = made.prompts
    return [prompts.units, prompts.offsets, prompts.prompt_tokens, prompts.reference, prompts.cluster, made.kind]


@pytest.mark.parametrize(("rho", "sharing"), [(1.4, 0.35), (0.9, 0.35), (1.4, 0.05), (0.9, 0.05)])
def test_the_mixes_of_the_paper_have_their_density_and_sharing(rho: float, sharing: float) -> None:
    made = synthesise(recipe(rho, sharing), MODEL, PEAK)
    assert made.rho == pytest.approx(rho, rel=0.005)
    assert made.sharing == pytest.approx(sharing, abs=0.005)
    assert len(made.prompts) == sum(made.counts.values()) == 4_000
    # docs/paper.md#requests-of-each-trace has counts for 400,000: 335,000 / 65,000 / 408 of mix 1.
    assert made.counts["openvid"] < 10 < made.counts["mmlu"] < made.counts["burstgpt"]


@pytest.mark.parametrize("compute", COMPUTE)
@pytest.mark.parametrize("memory", MEMORY)
def test_every_pair_of_kinds_can_be_mixed(compute: str, memory: str) -> None:
    made = synthesise(recipe(1.2, 0.25, kinds=(compute, memory, "mmlu")), MODEL, PEAK)
    assert made.rho == pytest.approx(1.2, rel=RHO_TOLERANCE)
    assert made.sharing == pytest.approx(0.25, abs=SHARING_TOLERANCE)
    assert min(made.counts.values()) > 0


def test_the_same_seed_is_the_same_workload_and_another_is_not() -> None:
    first, again, other = (columns(synthesise(recipe(seed=seed), MODEL, PEAK)) for seed in (3, 3, 4))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first[2], other[2])


def test_the_mix_follows_the_model_and_the_card() -> None:
    """Density depends on both, so other rates need another number of long answers."""
    here = synthesise(recipe(requests=20_000), MODEL, PEAK)
    there = synthesise(recipe(requests=20_000), MODEL, machine(load_hardware("h100-sxm"), 1, "peak"))
    # An H100 has 3.17 times the arithmetic of an A100 and 1.64 times the bandwidth.
    assert there.counts["openvid"] < 0.75 * here.counts["openvid"]


@pytest.mark.parametrize("kind", [*COMPUTE.values(), *MEMORY.values(), *SHARE.values()], ids=lambda kind: kind.name)
def test_lengths_have_the_published_means(kind: Kind) -> None:
    drawn = draw(kind, 100_000, 0)
    assert drawn.prompt.mean() == pytest.approx(kind.prompt, rel=0.02)
    assert drawn.output.mean() == pytest.approx(kind.output, rel=0.05)
    assert drawn.prompt.min() > kind.prefix
    assert drawn.output.min() >= 1


def test_more_requests_begin_with_the_same_ones() -> None:
    few, many = draw(COMPUTE["burstgpt"], 100, 7), draw(COMPUTE["burstgpt"], 1_000, 7)
    assert np.array_equal(few.prompt, many.prompt[:100])
    assert np.array_equal(few.output, many.output[:100])


def test_kinds_share_their_prefixes_and_nothing_else() -> None:
    made = synthesise(recipe(), MODEL, PEAK)
    counts, kinds = made.counts, {kind.name: kind for kind in made.recipe.kinds}
    groups = len(np.unique(made.group[made.kind == 1]))
    assert groups == kinds["mmlu"].groups
    saved = sum(kind.prefix * counts[name] - kind.system for name, kind in kinds.items())
    saved -= groups * (kinds["mmlu"].prefix - kinds["mmlu"].system)
    assert made.tree.shared_tokens == saved


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rho": 0.0}, "--rho 0: a density is a number above 0"),
        ({"rho": -1.0}, "--rho -1"),
        ({"rho": float("nan")}, "--rho nan"),
        ({"rho": float("inf")}, "--rho inf"),
        ({"sharing": -0.1}, "--sharing -0.1: it is a share of the prompt tokens"),
        ({"sharing": 1.0}, "--sharing 1: "),
        ({"sharing": float("nan")}, "--sharing nan"),
        ({"requests": 0}, "--requests 0: give a number from 1 to 10,000,000"),
        ({"requests": 10_000_001}, "--requests 10000001"),
        ({"seed": -1}, "--seed -1"),
        ({"kinds": ("chatgpt", "openvid", "mmlu")}, "--compute chatgpt: known are burstgpt, azure, wildchat, sharegpt"),
        ({"kinds": ("burstgpt", "youtube", "mmlu")}, "--memory youtube: known are openvid, limo"),
        ({"kinds": ("burstgpt", "openvid", "gsm8k")}, "--share gsm8k: known are mmlu"),
    ],
)
def test_a_number_or_name_that_makes_no_sense_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        recipe(**change)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rho": 0.05}, "--rho 0.05 is out of reach of burstgpt, mmlu and openvid"),
        ({"rho": 200.0}, "--rho 200 is out of reach"),
        ({"sharing": 0.9}, "--sharing 0.9 is out of reach"),
        ({"sharing": 0.0}, "--sharing 0 is out of reach"),
        ({"requests": 100}, "too few to meet it; ask for "),
        ({"requests": 1}, "ask for "),
    ],
)
def test_a_mix_out_of_reach_says_what_is_in_reach(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UnreachableError) as error:
        synthesise(recipe(**change), MODEL, PEAK)
    assert message in str(error.value)


def test_as_many_requests_as_the_refusal_asks_for_are_enough() -> None:
    with pytest.raises(UnreachableError) as error:
        synthesise(recipe(requests=100), MODEL, PEAK)
    enough = int(str(error.value).partition("ask for ")[2].split()[0].replace(",", ""))
    assert 500 < enough < 5_000
    assert synthesise(recipe(requests=enough), MODEL, PEAK).rho == pytest.approx(1.4, rel=RHO_TOLERANCE)
