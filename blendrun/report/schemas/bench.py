"""`blendrun bench simulate --json`: a versioned schema (docs/schemas/bench-simulate.json), made of these classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from blendrun.bench.simulate import Cell, UnreachableCell
from blendrun.cost.base import Machine
from blendrun.names import OrderName, Overlap
from blendrun.version import __version__

SCHEMA_VERSION = 2
BLENDED, SORTED, GIVEN = "blended", "sorted", "given"


@dataclass(frozen=True, slots=True)
class CellRow:
    """One workload on one overlap mode. Simulated: a model's numbers.

    rho: seconds of compute over seconds of memory as the paper counts them, at peak rates; null where nothing is
    decoded. sharing: prompt tokens that an infinite prefix cache saves over all. Both as asked for; `achieved_*` is
    what the workload has. Of a file they are the same. density: compute over memory at the machine's achieved rates, as
    `blendrun plan` has it; null where nothing is decoded.
    kinds: requests of each kind; empty for a file.
    bound_seconds: compute and memory perfectly overlapped. practical_seconds: the least of any order on this mode,
    longest answer, pool and reads of the weights counted (docs/paper.md#the-practical-bound).
    seconds: makespan of each order, with the best step budget of those tried. plain_seconds: the given order on SGLang
    as it comes. gpus: the machine's. parts_sharing: tokens that a prefix cache for each replica saves over what one for
    all would; null for one replica.
    """

    rho: float | None
    sharing: float
    overlap: str
    achieved_rho: float | None
    achieved_sharing: float
    density: float | None
    requests: int
    kinds: dict[str, int]
    prompt_tokens: int
    output_tokens: int
    bound_seconds: float
    practical_seconds: float
    seconds: dict[str, float]
    plain_seconds: float
    gpus: int
    parts_sharing: float | None

    @property
    def gain(self) -> float | None:
        """How much faster the blend is than the best simple order: 0.1 is 10 %. None without both."""
        simple = [seconds for name, seconds in self.seconds.items() if name != BLENDED]
        return min(simple) / self.seconds[BLENDED] - 1 if simple and BLENDED in self.seconds else None

    @property
    def over_sorted(self) -> float | None:
        """How much faster the blend is than the depth-first order. None without both."""
        both = {BLENDED, SORTED} <= set(self.seconds)
        return self.seconds[SORTED] / self.seconds[BLENDED] - 1 if both else None

    @property
    def over_given(self) -> float | None:
        """How much faster the blend is than file order. None without both."""
        both = {BLENDED, GIVEN} <= set(self.seconds)
        return self.seconds[GIVEN] / self.seconds[BLENDED] - 1 if both else None

    @property
    def best_seconds(self) -> float:
        """Of the fastest order."""
        return min(self.seconds.values())


@dataclass(frozen=True, slots=True)
class RefusedCell:
    """A cell that no workload of these kinds reaches."""

    rho: float
    sharing: float
    why: str


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What `blendrun bench simulate --json` prints. workload: kinds of the recipe, or the files."""

    schema_version: int
    blendrun: str
    workload: str
    model: str
    hardware: str
    gpus: tuple[int, ...]
    seed: int | None
    cells: tuple[CellRow, ...]
    refused: tuple[RefusedCell, ...]


def bench_report(
    workload: str,
    model: str,
    machines: Sequence[Machine],
    seed: int | None,
    cells: Sequence[Cell],
    refused: Sequence[UnreachableCell],
) -> BenchReport:
    """All cells, each overlap mode a row."""
    return BenchReport(
        schema_version=SCHEMA_VERSION,
        blendrun=__version__,
        workload=workload,
        model=model,
        hardware=machines[0].card.name,
        gpus=tuple(on.gpus for on in machines),
        seed=seed,
        cells=tuple(row for cell in cells for row in _rows(cell)),
        refused=tuple(RefusedCell(each.rho, each.sharing, each.why) for each in refused),
    )


def bench_json(report: BenchReport) -> bytes:
    """One line of JSON."""
    return msgspec.json.encode(report)


def bench_schema() -> bytes:
    """The JSON Schema of `bench_json`'s output."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(BenchReport)), indent=2)


def _rows(cell: Cell) -> list[CellRow]:
    portfolio, costed = cell.plan.portfolio, cell.plan.costed
    tree, bound = costed.structure.tree, costed.bound
    seconds: dict[Overlap, dict[str, float]] = {}
    for each in sorted(portfolio.candidates, key=lambda each: list(OrderName).index(each.order)):
        seconds.setdefault(each.overlap, {})[str(each.order)] = each.seconds
    return [
        CellRow(
            rho=cell.rho if math.isfinite(cell.rho) else None,
            sharing=cell.sharing,
            overlap=str(overlap),
            achieved_rho=cell.achieved_rho if math.isfinite(cell.achieved_rho) else None,
            achieved_sharing=cell.achieved_sharing,
            density=bound.compute / bound.memory if bound.memory > 0 else None,
            requests=tree.prompts,
            kinds=cell.kinds,
            prompt_tokens=tree.prompt_tokens,
            output_tokens=int((portfolio.outputs * costed.structure.prompts.choices).sum()),
            bound_seconds=bound.overlapped,
            practical_seconds=portfolio.practical_seconds,
            seconds=found,
            plain_seconds=portfolio.plain.seconds,
            gpus=costed.machine.gpus,
            parts_sharing=cell.plan.partition.kept_sharing if cell.plan.partition is not None else None,
        )
        for overlap, found in sorted(seconds.items(), key=lambda item: list(Overlap).index(item[0]))
    ]
