"""summary.json: what a run did, for people and programs. Schema version 1; fields are only ever added."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import msgspec

from blendrun.engine.base import EngineInfo
from blendrun.files import write_atomically
from blendrun.jobs.job import Job
from blendrun.store.failures import Failure, Failures
from blendrun.store.folder import path_text
from blendrun.store.found import NOTHING, Found
from blendrun.store.journal import CACHE, COPY
from blendrun.store.ledger import ANSWERED, Ledger
from blendrun.store.manifest import Manifest
from blendrun.version import __version__

SCHEMA_VERSION = 1


class Counts(msgspec.Struct, frozen=True):
    """Lines. failed: refused lines and requests that ended in an error."""

    total: int
    completed: int
    failed: int


class Tokens(msgspec.Struct, frozen=True):
    """Of all that engines answered, earlier invocations included. cached: prompt tokens from the prefix cache."""

    prompt: int
    cached: int
    output: int


class Taken(msgspec.Struct, frozen=True):
    """Lines that no engine was asked for, earlier invocations included; their tokens are in no count.

    copies: they ask the same as another line. cache: their answers were kept from other runs.
    """

    copies: int = 0
    cache: int = 0


class Form(msgspec.Struct, frozen=True):
    """Answers that were to have a form: of a JSON schema, any JSON, or a tool call. kept: those that have it."""

    promised: int = 0
    kept: int = 0


class PlanSummary(msgspec.Struct, frozen=True):
    """What was planned. predicted_*: of the phase `run`; null where the plan was not of the whole job.

    corrected_seconds: the same as it looked when a tenth of the run, two minutes at most, had shown how long steps
    really take; null where it ended before. times: what the prediction rests on, a sentence; empty without one.
    """

    order: str
    overlap: str
    why: str
    predicted_seconds: float | None
    predicted_hit_tokens: int | None
    corrected_seconds: float | None = None
    times: str = ""


class Cost(msgspec.Struct, frozen=True):
    """What an invocation cost: all of its wall time, load included, at `gpu_hour` for each device of its summary.

    amount: in whatever currency the price is in. gpu_hour: of an hour of one GPU, or of a machine without.
    """

    amount: float
    gpu_hour: float


class Restart(msgspec.Struct, frozen=True):
    """An engine that died. reason: what it said; seconds: since the run began; in_flight: requests that had no answer.

    shrinks: times that the engine was made smaller before the next start. replica: whose it was.
    """

    reason: str
    seconds: float
    in_flight: int
    shrinks: int
    replica: int = 1


class Summary(msgspec.Struct, frozen=True):
    """seconds: of this invocation, a figure a phase, and `wall` from the command's begin on; throughput: tokens/s of
    the run phase.

    restarts: engines of this invocation that died. failures: failed lines by kind of error, the most frequent first.
    unkept: answers that do not keep the form that their request was promised; unkept_list: the file that has them.
    taken: lines that were answered without an engine. form: of the answers that were to have one. cut_short: answers
    that ended at their token limit, but for limits of one token; cut_short_list: the file that names them. *_ids:
    custom_ids of the first ten. devices: GPUs of all engines, or machines where there are none. cost: null without a
    price. resumed: earlier invocations did a part of the job; their time and cost are not in `seconds` and `cost`.
    """

    schema_version: int
    status: str
    exit_code: int
    output: str
    errors: str | None
    inputs: tuple[str, ...]
    model: str
    engine: str
    platform: str | None
    order: str
    counts: Counts
    tokens: Tokens
    seconds: dict[str, float]
    throughput: dict[str, float]
    finish_reasons: dict[str, int]
    error_codes: dict[str, int]
    versions: dict[str, str]
    notes: tuple[str, ...]
    plan: PlanSummary | None = None
    restarts: tuple[Restart, ...] = ()
    failures: tuple[Failure, ...] = ()
    unkept: int = 0
    unkept_list: str | None = None
    taken: Taken = Taken()
    form: Form = Form()
    unkept_ids: tuple[str, ...] = ()
    cut_short: int = 0
    cut_short_list: str | None = None
    cut_short_ids: tuple[str, ...] = ()
    devices: int | None = None
    cost: Cost | None = None
    resumed: bool = False


class Stopwatch:
    """Wall time of the phases of one invocation, in seconds.

    begun: when the command began, of `time.monotonic`: what has passed since is the phase `start`; None for now.
    """

    def __init__(self, begun: float | None = None) -> None:
        now = time.monotonic()
        self._begun = now if begun is None else begun
        self._seconds: dict[str, float] = {} if begun is None else {"start": now - begun}
        # Phases that last: how often each was begun, and when first.
        self._open: dict[str, tuple[int, float]] = {}
        # Replicas plan anew in threads.
        self._lock = Lock()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """One that several replicas are in at a time counts once."""
        with self._lock:
            count, begun = self._open.get(name, (0, time.monotonic()))
            self._open[name] = count + 1, begun
        try:
            yield
        finally:
            with self._lock:
                count, begun = self._open.pop(name)
                if count > 1:
                    self._open[name] = count - 1, begun
                else:
                    self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - begun

    @property
    def begun_at(self) -> float:
        """When the command began, in Unix seconds."""
        return time.time() - (time.monotonic() - self._begun)

    def read(self) -> dict[str, float]:
        """All phases so far, and `wall`: time since the start."""
        figures = self._seconds | {"wall": time.monotonic() - self._begun}
        return {name: round(value, 3) for name, value in figures.items()}


def cost_of(wall: float, devices: int, gpu_hour: float | None) -> Cost | None:
    """Of so many seconds; None without a price."""
    return None if gpu_hour is None else Cost(wall / 3600 * devices * gpu_hour, gpu_hour)


def summarise(
    job: Job,
    ledger: Ledger,
    manifest: Manifest,
    info: EngineInfo | None,
    listener: Stopwatch,
    *,
    status: str,
    exit_code: int,
    output: Path,
    errors: Path,
    order: str,
    plan: PlanSummary | None,
    new_tokens: Tokens,
    notes: tuple[str, ...],
    restarts: tuple[Restart, ...],
    failures: Failures,
    unkept: Found = NOTHING,
    unkept_list: Path | None = None,
    cut_short: Found = NOTHING,
    cut_short_list: Path | None = None,
    devices: int = 1,
    gpu_hour: float | None = None,
    resumed: bool = False,
) -> Summary:
    """Put the summary together. new_tokens: of this invocation alone; the throughput is theirs."""
    completed = int((ledger.state == ANSWERED).sum())
    prompt, cached, done = (int(value) for value in ledger.usage)
    seconds = listener.read()
    run = seconds.get("run", 0.0)
    rates: dict[str, float] = {}
    if run > 0:
        figures = {
            "input_throughput": new_tokens.prompt,
            "output_throughput": new_tokens.output,
            "total_throughput": new_tokens.prompt + new_tokens.output,
        }
        rates = {name: round(value / run, 3) for name, value in figures.items()}
    return Summary(
        schema_version=SCHEMA_VERSION,
        status=status,
        exit_code=exit_code,
        output=path_text(output),
        errors=path_text(errors) if failures.total else None,
        inputs=manifest.inputs,
        model=manifest.model,
        engine=manifest.engine,
        platform=info.platform if info else None,
        order=order,
        counts=Counts(total=len(job), completed=completed, failed=failures.total),
        tokens=Tokens(prompt, cached, done),
        seconds=seconds,
        throughput=rates,
        finish_reasons=dict(ledger.finish_reasons),
        error_codes=failures.codes(),
        versions={"blendrun": __version__, **(info.versions if info else {})},
        notes=notes,
        plan=plan,
        restarts=restarts,
        failures=failures.kinds(),
        unkept=unkept.count,
        unkept_list=path_text(unkept_list) if unkept.count and unkept_list is not None else None,
        taken=Taken(ledger.taken[COPY], ledger.taken[CACHE]),
        form=Form(ledger.promised, max(ledger.promised - unkept.count, 0)),
        unkept_ids=unkept.first,
        cut_short=cut_short.count,
        cut_short_list=path_text(cut_short_list) if cut_short.count and cut_short_list is not None else None,
        cut_short_ids=cut_short.first,
        devices=devices,
        cost=cost_of(seconds["wall"], devices, gpu_hour),
        resumed=resumed,
    )


def without_job(
    *,
    status: str,
    exit_code: int,
    reason: str,
    output: Path,
    inputs: tuple[str, ...],
    model: str,
    engine: str,
    order: str,
    seconds: dict[str, float],
) -> Summary:
    """Of an invocation that ended before its lines were known: none is counted. reason: what it says last."""
    return Summary(
        schema_version=SCHEMA_VERSION,
        status=status,
        exit_code=exit_code,
        output=path_text(output),
        errors=None,
        inputs=inputs,
        model=model,
        engine=engine,
        platform=None,
        order=order,
        counts=Counts(0, 0, 0),
        tokens=Tokens(0, 0, 0),
        seconds=seconds,
        throughput={},
        finish_reasons={},
        error_codes={},
        versions={"blendrun": __version__},
        notes=(reason,),
    )


def write(path: Path, summary: Summary) -> None:
    """Raises OutputUnavailableError."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")


def read(path: Path) -> Summary | None:
    """The summary at `path`; None where there is none that this version reads."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Summary)
    except (OSError, msgspec.DecodeError):
        return None


def summary_schema() -> bytes:
    """JSON schema of the file."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(Summary)), indent=2)
