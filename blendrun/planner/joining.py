"""What it would bring to plan the rest of a job anew with requests that have come since."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import LEFT, Order
from blendrun.events import Listener, ignore
from blendrun.names import OrderName
from blendrun.planner.plan import Choice, Costed, make_plan
from blendrun.planner.run_plan import cost_again
from blendrun.simulate.draw import draw_outputs
from blendrun.simulate.portfolio import simulate_portfolio


@dataclass(frozen=True, slots=True)
class Joining:
    """Seconds of two jobs. apart: one after the other; together: planned as one. first: of the first alone.

    longest: that the longest answer of the first takes, as its steps are on the mean. held: until all that an engine
    has of the first is answered; what is planned of the first alone knows of none.
    """

    apart: float
    together: float
    first: float
    longest: float
    held: float = 0.0


def joining(costed: Costed, later: NDArray[np.bool_], choice: Choice, listener: Listener = ignore) -> Joining:
    """later: bool (M,), prompts of the second job; both have some.

    One after the other is the better of two: each as its own plan has it, with nothing in the cache when the second
    begins; and both orders as one, where the second finds what the first has left and no step is lost between them.
    """
    whole = make_plan(costed, choice, listener)
    orders, seconds, longest = list[NDArray[np.int64]](), list[float](), 0.0
    for numbers in (np.flatnonzero(~later), np.flatnonzero(later)):
        alone = cost_again(costed, costed.structure.take(numbers))
        plan = make_plan(alone, choice, listener)
        outcome = plan.portfolio.chosen.outcome
        if not orders:
            longest = float(alone.structure.lengths.mean.max()) * outcome.seconds / max(outcome.steps, 1)
        orders.append(numbers[plan.order.prompt])
        seconds.append(outcome.seconds)
    apart = min(sum(seconds), _behind(costed, np.concatenate(orders), choice, listener))
    return Joining(apart, whole.portfolio.chosen.outcome.seconds, seconds[0], longest)


def _behind(costed: Costed, prompts: NDArray[np.int64], choice: Choice, listener: Listener) -> float:
    """Seconds of prompts in this order, on one replica. prompts: i64 (M,)."""
    structure = costed.structure
    order = Order(OrderName.GIVEN, prompts, np.full(len(prompts), LEFT, dtype=np.uint8))
    found = simulate_portfolio(
        structure.tree,
        structure.prompts,
        structure.lengths,
        [order],
        [],
        costed.model,
        costed.machine,
        pool=replace(costed.pool, replicas=1),
        demand=costed.demand,
        overlaps=choice.overlaps,
        chunk=costed.chunk,
        max_running=costed.limits.max_running,
        shared_reads=costed.limits.shared_reads,
        outputs=draw_outputs(structure.lengths),
        listener=listener,
    )
    return found.chosen.outcome.seconds
