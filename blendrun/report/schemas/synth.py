"""`blendrun synth --json`: a versioned schema (docs/schemas/synth.json), made of these classes."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from blendrun.cost.balance import bound_seconds
from blendrun.cost.base import Machine
from blendrun.cost.formulas import demand
from blendrun.models.card import ModelCard
from blendrun.synth.workload import Synthesis, known_lengths
from blendrun.version import __version__

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class KindRow:
    """Requests of one kind and their tokens, shared ones counted each time."""

    name: str
    requests: int
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class SynthReport:
    """What `blendrun synth --json` prints.

    rho: compute over memory seconds as the paper counts them, at peak rates; target_rho was asked for. sharing: prompt
    tokens that an infinite prefix cache saves over all. density: what `blendrun plan` shows for this model and
    hardware, at achieved rates; null where nothing is decoded. memory, stretch: the kind whose answers were made
    longer by a factor near 1, so that whole requests meet the density.
    """

    schema_version: int
    blendrun: str
    model: str
    hardware: str
    gpus: int
    seed: int
    requests: int
    prompt_tokens: int
    shared_tokens: int
    target_rho: float
    rho: float
    target_sharing: float
    sharing: float
    density: float | None
    memory: str
    stretch: float
    kinds: tuple[KindRow, ...]


def synth_report(made: Synthesis, model: str, card: ModelCard, on: Machine) -> SynthReport:
    """on: the machine at achieved rates, which a plan takes."""
    prompts, tree = made.prompts, made.tree
    bound = bound_seconds(demand(tree, prompts, known_lengths(prompts), card, on), on)
    totals = (
        np.bincount(made.kind, weights=column, minlength=3) for column in (prompts.prompt_tokens, prompts.reference)
    )
    rows = zip(made.counts.items(), *totals, strict=True)
    return SynthReport(
        schema_version=SCHEMA_VERSION,
        blendrun=__version__,
        model=model,
        hardware=on.card.name,
        gpus=on.gpus,
        seed=made.recipe.seed,
        requests=len(prompts),
        prompt_tokens=tree.prompt_tokens,
        shared_tokens=tree.shared_tokens,
        target_rho=made.recipe.rho,
        rho=made.rho,
        target_sharing=made.recipe.sharing,
        sharing=made.sharing,
        density=bound.compute / bound.memory if bound.memory > 0 else None,
        memory=made.recipe.memory.name,
        stretch=made.stretch,
        kinds=tuple(KindRow(name, count, int(prompt), int(output)) for (name, count), prompt, output in rows),
    )


def synth_json(report: SynthReport) -> bytes:
    """One line of JSON."""
    return msgspec.json.encode(report)


def synth_schema() -> bytes:
    """The JSON Schema of `synth_json`'s output."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(SynthReport)), indent=2)
