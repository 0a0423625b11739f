"""What the simulated engine keeps, as records: nodes of the tree, requests, and one record of everything else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

# What kernels pass each other: fields of records and numbers of NumPy's or Python's, which types cannot tell apart.
Number = Any
Truth = Any

EXCLUSIVE, MIXED, PDMUX = range(3)
# State of a node: not in the pool, being computed, usable, in the host's memory.
ABSENT, COMING, READY, HOSTED = range(4)
# Whether a blend's last pool-full is fed longest first: never, once it is the last, now.
NO_TAIL, TAIL_TO_COME, TAIL = range(3)


def _record(**columns: str) -> np.dtype[np.void]:
    """A record of columns, by type: 'i8' or 'f8' and the names."""
    names: Iterable[tuple[str, str]] = ((name, kind) for kind, line in columns.items() for name in line.split())
    return np.dtype(list(names))


# There are as many nodes and requests as the job has, looked up all over memory: a node is half a line of the cache, a
# request a whole one.

# A node of the tree; after the last one stand the two rings of `pool`.
# refs: running requests below. rows: answers being decoded below, where reads are shared. waiting: requests below that
# are not admitted. newer, older: neighbours in a ring. part: of one that is being computed, tokens from the root that
# are there. kept: tokens of answers kept behind a leaf.
NODE = _record(i4="parent depth state refs waiting newer older part kept rows")

# A request. expected: output tokens of a choice that admission believes in. limit: that it may have at most, by which
# SGLang's own admission goes; fixed: whether nothing else can end it. answered: tokens of a choice there were when it
# was last admitted. rest: prefill tokens left; twice: of these, what another computes too. side: LEFT or RIGHT.
# ends_at: decode step after which it ends, -1 where it does not decode. What admission took it for: leaves_at: decode
# step of its end, as noted; own: tokens that are held for it alone; frees: tokens that come back at its end. size: of a
# blend, its tokens at its end, as expected, and those that its answer may well have (reach). parts: requests that the
# engine makes of it; first, common: tokens of the first of them, and those that the others wait for; pause: prefill
# tokens that are left when they are there, 0 where nothing waits; resumes: round in which the others may be computed.
REQUEST = _record(
    i4="leaf length output expected limit fixed choices answered rest twice side parts first common pause",
    i8="ends_at leaves_at own frees resumes",
    f8="size reach",
)

# Settings, as of `Engine`, `StepTime` and the budgets of `blend.budget`, then the state.
# used: KV tokens in the pool. evictable: of these, what nothing runs on. rows: answers being decoded; all_rows: with
# those of requests in prefill. context: cached tokens the rows have; spared: of these, what is read for another row.
# shared: least tokens of a segment that is read once, 0 for none. drafts: a row and step, draft_rows: most rows beside
# them, draft_tokens: an answer's tokens in such a step. host: tokens that the host holds, hosted: does; loading: come
# back in this step, loaded: so far; host_token: seconds of one. pending: prefill tokens admitted and not
# computed. filled: requests whose prefill is over, of those ever in the queue; published: of these, those whose prefix
# can be used. decoded: decode steps so far. forgotten: those up to which expected ends are past. sided: whether it is
# a blend.
# Of SGLang's own admission (`own`): looks: for newcomers, so far; shut: whether it does not look; opens: whether it
# looks again at the next step; leaving: tokens that are free and that it does not see yet; twice: tokens that are held
# for a second time; kept: tokens that it keeps free; guess: the share of what is to come that these are. left_at,
# right_at: next of each side. share: of the left side, for the units share_left and share_right. holding_, due_: tokens
# that count as a side's, and the step at which it may admit. rest_: seconds of compute and memory not yet admitted.
# rest_size: tokens at their ends of all that has not ended; tail: whether what is left is fed longest first (NO_TAIL,
# TAIL_TO_COME, TAIL). now, compute, memory: seconds so far.
# turns: 1 where prefill and decoding take turns; filling: 1 while it is that of prefill; most_rows: when the last one
# ended. crossing: what mixing costs by a `CrossoverBudget`, 0 for other policies; alone: as there. apart: 1 where rows
# do not decode in a step that prefills. round: of the scheduler, so far; kept_back: prefill tokens admitted that wait
# for the first part of their request, so that they are not computed in this one.
POLICY = ("most", "ratio", "weight_tokens", "row_tokens", "cached_tokens")
CONSTANTS = (
    *("prefill_token", "decode_token", "prefill_square", "kv_token", "weights", "experts", "expert_miss"),
    *("row", "step", "request", "mixed"),
)
STATE = _record(
    i8="pool mode tokens max_running gate next_use paced late clip most "
    "used evictable rows all_rows context running pending filled published decoded forgotten "
    "sided refresh looks shut opens leaving twice requests left_at right_at share_left share_right tail "
    "hits prefilled recomputed emitted retracted steps done bucket "
    "turns filling most_rows apart alone round kept_back shared spared drafts draft_rows host hosted loading loaded",
    f8="reserve kept guess ratio weight_tokens row_tokens cached_tokens drained crossing draft_tokens host_token "
    "prefill_token decode_token prefill_square kv_token weights experts expert_miss row step request mixed "
    "share holding_left holding_right due_left due_right rest_compute rest_memory rest_size now compute memory",
)
