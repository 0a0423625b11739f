"""What a plan's order would take on an engine with more than blendrun turns on by itself: drafts, a cache on the host.

Both rest on what nobody has measured here (how many drafts are right, what loading hides), so a plan only says what
they would bring, by the order that was chosen without them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from blendrun.cost.base import Machine
from blendrun.errors import UsageError
from blendrun.names import Overlap
from blendrun.planner.plan import Plan
from blendrun.simulate.base import Drafts, HostCache, SimulatedEngine, StepTime
from blendrun.simulate.portfolio import Candidate
from blendrun.simulate.simulator import simulate


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What one thing would bring. setting: of it, for a person. overlap: the mode that it was simulated on.

    seconds: of the whole job with it. without: as planned.
    """

    setting: str
    overlap: Overlap
    seconds: float
    without: float

    @property
    def gain(self) -> float:
        """How many times as fast, less 1."""
        return self.without / max(self.seconds, 1e-9) - 1


def drafts_at_the_tail(plan: Plan, count: int, acceptance: float) -> WhatIf:
    """`count` drafts a row where few enough rows decode for them to be free."""
    rows = rows_with_free_drafts(plan.portfolio.step, count, acceptance)
    drafts = Drafts(count, acceptance, rows)
    setting = f"{count} drafts at {acceptance:.0%} acceptance, while {rows:,} rows or fewer decode"
    return _again(plan, setting, lambda engine: replace(engine, drafts=drafts))


def drafts_in_every_step(plan: Plan, count: int, acceptance: float) -> WhatIf | None:
    """The same in every step that decodes, on the best order of exclusive mode; None where that was not simulated.

    SGLang's n-gram drafts are like this: there in every step, and never mixed with prefill.
    """
    exclusive = [each for each in plan.portfolio.candidates if each.overlap is Overlap.EXCLUSIVE]
    if not exclusive:
        return None
    best, drafts = min(exclusive, key=lambda each: each.seconds), Drafts(count, acceptance)
    setting = f"{count} drafts at {acceptance:.0%} acceptance in every step"
    return _again(plan, setting, lambda engine: replace(engine, drafts=drafts), best)


def cache_in_host_memory(plan: Plan, gigabytes: float) -> WhatIf:
    """`gigabytes` of host memory for each device: a prefix that is evicted and used again comes back from there.

    Raises UsageError where the card does not say how fast.
    """
    pool, one = plan.costed.pool, plan.costed.machine
    host = HostCache(
        tokens=int(gigabytes * 1e9 * pool.gpus / pool.token_bytes),
        token_seconds=pool.token_bytes / (_host_rate(one) * pool.gpus),
    )
    setting = f"{gigabytes:g} GB of host memory a device"
    return _again(plan, setting, lambda engine: replace(engine, host=host))


def rows_with_free_drafts(step: StepTime, count: int, acceptance: float) -> int:
    """Most rows of a step in which drafts pay whatever is in the cache: closed form, from the reading of the weights.

    A step of r rows with k drafts multiplies r (k + 1) tokens and moves on by E; without drafts it reads the weights, w
    tokens' worth. It takes no longer an answered token up to r = w E / (k + 1).
    """
    tokens = Drafts(count, acceptance).tokens
    return max(int(step.weights / step.decode_token * tokens / (count + 1)), 1)


def _host_rate(machine: Machine) -> float:
    rate = machine.card.host_bandwidth
    if rate is None:
        raise UsageError(
            f"{machine.card.name}: the card has no host_bandwidth (byte/s from the host's memory to one device); "
            "give a card of your own that says it"
        )
    return rate.value


def _again(
    plan: Plan,
    setting: str,
    change: Callable[[SimulatedEngine], SimulatedEngine],
    candidate: Candidate | None = None,
) -> WhatIf:
    """The candidate (None: the chosen one) simulated once more on a changed engine; of several parts, the slowest."""
    wanted = candidate or plan.portfolio.chosen
    seconds = 0.0
    for part in [each.plan for each in plan.parts] or [plan]:
        portfolio, costed = part.portfolio, part.costed
        [mine] = [each for each in portfolio.candidates if (each.order, each.overlap) == (wanted.order, wanted.overlap)]
        structure = costed.structure
        outcome = simulate(
            *(structure.tree, structure.prompts, mine.fed, portfolio.outputs, portfolio.step, change(mine.engine)),
            expected=portfolio.expected,
        )
        seconds = max(seconds, outcome.seconds)
    return WhatIf(setting, wanted.overlap, seconds, plan.portfolio.chosen.seconds)
