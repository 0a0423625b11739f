"""What the command line decides of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.endpoints.rules import Rules
from blendrun.events import Listener
from blendrun.jobs.job import Job
from blendrun.jobs.line import MAX_LINE_BYTES
from blendrun.jobs.same import Sameness
from blendrun.jobs.spool import LONGEST_WINDOW
from blendrun.jobs.tables.columns import Columns
from blendrun.learned.own import OwnSpeed
from blendrun.names import OrderName, Overlap, Purpose
from blendrun.planner.run_plan import Divided, RunPlan
from blendrun.runner.replica import Patience
from blendrun.store.failures import ErrorLimit
from blendrun.store.guard import Target
from blendrun.store.shards import Shard
from blendrun.store.uploads import Upload
from blendrun.tokens.check import RefusedPrompts


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """most_bytes: of the file in the folder. versions: what decides an answer beside the manifest's settings."""

    folder: Path
    most_bytes: int
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What the command line decides.

    inputs: files in order, "-" for stdin. model, model_identity: as given, and its hash. patience: with engines and
    with what is in flight. versions: of the engine's packages, for the manifest. shard: the part of the job that this
    run answers; None for all of it. longest_window: of zstd, as a power
    of two. planner: makes the plan; None feeds as `order` and `overlap` say. divider: the same
    for several `replicas`. keep_plan: leaves it in a file. max_errors: lines that may fail, None for all. strict:
    refuse a job with a bad line before there is an engine; check: finds those that only a tokenizer can find.
    check_answers: an answer that breaks its promise is an error line; without it such answers are only counted.
    fail_on_length: end with exit code 3 where an answer was cut short at its token limit.
    shows_tools: whether the model's chat template shows tools to it; None where nobody knows. speed: of the engines,
    where they are this machine's: what their steps are compared with, and what learns from them. purpose: what a job's
    lines need an engine for; None where engines take all. upload: where the files are sent once they are written. same:
    which requests are equal; None where nobody asks. cache: answers kept between runs. partial: file that has the
    answers so far. columns: what requests are made of, where inputs are tables. devices: GPUs of all engines, or
    machines where there are none; gpu_hour: what an hour of one costs, None where nobody said.
    """

    inputs: tuple[str, ...]
    output: Path
    model: str
    model_identity: str
    engine: str
    answer_settings: dict[str, Any]
    order: OrderName = OrderName.GIVEN
    overlap: Overlap = Overlap.EXCLUSIVE
    planner: Planner | None = None
    divider: Divider | None = None
    replicas: int = 1
    keep_plan: KeepPlan | None = None
    limit: int | None = None
    shard: Shard | None = None
    shard_of: Path | None = None
    default_url: str | None = None
    rules: Rules = field(default_factory=Rules)
    max_line_bytes: int = MAX_LINE_BYTES
    longest_window: int = LONGEST_WINDOW
    columns: Columns = field(default_factory=Columns)
    max_errors: ErrorLimit | None = None
    strict: bool = False
    check: Check | None = None
    check_answers: bool = False
    fail_on_length: bool = False
    shows_tools: bool | None = None
    purpose: FindPurpose | None = None
    resume: bool = True
    accept_changes: bool = False
    retry_errors: bool = False
    overwrite: bool = False
    upload: Upload | None = None
    speed: OwnSpeed | None = None
    same: Sameness | None = None
    cache: CacheSettings | None = None
    partial: Target | None = None
    devices: int = 1
    gpu_hour: float | None = None
    patience: Patience = field(default_factory=Patience)
    versions: dict[str, str] = field(default_factory=dict)


# What the lines of a job need one engine for. Raises InputInvalidError where it would take two, or another model.
FindPurpose = Callable[[Job], Purpose]
# Makes the plan of the rows that are to be fed.
Planner = Callable[[Job, NDArray[np.int64], Listener], RunPlan]
# The same for so many replicas.
Divider = Callable[[Job, NDArray[np.int64], int, Listener], Divided]
# Writes what a plan says of a job to a file; what cannot be written costs the file, not the run.
KeepPlan = Callable[[RunPlan, Job, Path], None]
# What no engine would answer of the accepted rows.
Check = Callable[[Job, Listener], RefusedPrompts]
