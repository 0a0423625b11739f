"""How many answers decode at once where the pool is full, and how many the decode graphs are to hold."""

from __future__ import annotations

import numpy as np

from blendrun.cost.base import HardwareCard
from blendrun.cost.capacity import EngineLimits, KvPool
from blendrun.cost.reserve import default_graph_rows, graph_size, largest_graph
from blendrun.lengths.base import Lengths
from blendrun.simulate.base import Outcome
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree

# Short answers run together for a while. In simulated jobs of six mixes nine of ten steps had up to 1.5 times the mean.
_SPREAD = 2.0
# More than at the fullest moment, by so much where lengths are known, and where they are guessed: answers that turn out
# shorter leave room for more.
_MARGIN, _MARGIN_GUESSED = 1.25, 4.0
# What SGLang allows by itself at most: each takes a line of places in the pool, as long as the context.
_MOST = 4096


def rows_of(prompts: Prompts, tree: PrefixTree, lengths: Lengths, pool_tokens: int) -> int:
    """Answers that a full pool holds on the mean of a job, by what each of them adds to it.

    An answer holds its own part of the prompt and half of its output, as long as it runs. Of a prompt with several
    choices each holds its part of that.
    """
    own = np.empty(tree.prompts, dtype=np.float64)
    own[tree.prompt] = tree.segment[tree.leaf]
    steps, choices = np.maximum(lengths.mean, 1.0), prompts.choices
    held = own + choices * steps / 2
    rows = pool_tokens * float((steps * choices).sum()) / max(float((steps * held).sum()), 1.0)
    return int(min(rows, choices.sum()))


def graphs_for(
    prompts: Prompts, tree: PrefixTree, lengths: Lengths, pool: KvPool, card: HardwareCard, limits: EngineLimits
) -> int | None:
    """Rows for decode graphs: as many as run at once, as far as the memory is there. None on a CPU, which has none.

    No fewer than SGLang's own default, where the job has as many. pool: before room was made for more.
    """
    if card.kind == "cpu" or limits.graph_rows is not None:
        return limits.graph_rows
    wanted = int(_SPREAD * rows_of(prompts, tree, lengths, pool.tokens))
    usual = default_graph_rows(card, limits.tensor or pool.gpus)
    most = min(max(largest_graph(card), usual), limits.max_running or _MOST, int(prompts.choices.sum()))
    return graph_size(max(min(max(wanted, usual), most), 1))


def most_running(outcome: Outcome, graph_rows: int | None, *, guessed: bool) -> int:
    """Answers that an engine is to allow at once, by the fullest moment of a simulated run.

    guessed: whether any length may turn out to be another one.
    """
    peak = int((_MARGIN_GUESSED if guessed else _MARGIN) * float(outcome.timeline.rows.max(initial=1.0)))
    return min(graph_size(max(peak, graph_rows or 1)), _MOST)
