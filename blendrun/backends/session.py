"""One run, from its options to its summary: placed, opened, followed, executed."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from functools import partial
from pathlib import Path
from time import monotonic

import msgspec
import numpy as np
from numpy.typing import NDArray

from blendrun.backends.base import Backend, Opening, Placement
from blendrun.backends.deadline import parse_deadline
from blendrun.backends.hub_inputs import on_hub, with_hub_files
from blendrun.backends.inputs import tell_left_out, without_answers
from blendrun.backends.listeners import listening
from blendrun.backends.options import STDIN, RunOptions
from blendrun.backends.permissions import with_media
from blendrun.backends.registry import open_backend
from blendrun.backends.same import cache_settings, sameness
from blendrun.backends.uploads import upload_of
from blendrun.backends.written import check_written
from blendrun.engine.base import Platform
from blendrun.engine.child import EarlyChildren
from blendrun.engine.kept import KeptEngines
from blendrun.engine.settings import available_cores, detect_platform
from blendrun.errors import EXIT_BUG, EXIT_OK, EXIT_SOME_LINES_FAILED, BlendrunError
from blendrun.events import Listener, PhaseStarted, ignore
from blendrun.files import write_atomically
from blendrun.jobs.job import Job
from blendrun.models.resolve import ResolvedModel
from blendrun.names import DeviceName, EngineName, OrderName, Overlap
from blendrun.planner.run_plan import RunPlan
from blendrun.planner.shards import divide_by_line, divide_by_prefix
from blendrun.planner.workload import DescribedJob
from blendrun.report.schemas.plan import plan_json
from blendrun.report.schemas.planned import plan_report
from blendrun.runner.replica import Patience
from blendrun.runner.run import execute, refuse_missing_input
from blendrun.runner.settings import KeepPlan, RunSettings
from blendrun.runner.stop import stopping_by_exception
from blendrun.store import summary as summaries
from blendrun.store.failures import ErrorLimit
from blendrun.store.folder import StateFolder
from blendrun.store.guard import Target
from blendrun.store.partial import partial_target
from blendrun.store.shards import Shard
from blendrun.store.summary import Stopwatch, Summary
from blendrun.tree.small import run_small


def run_job(
    options: RunOptions,
    view: AbstractContextManager[Listener],
    engines: KeptEngines | None = None,
    begun: float | None = None,
) -> Summary:
    """Answer every request of a job, or go on with that. Raises BlendrunError as exit codes have it.

    view: what the person sees, open as long as the run lasts. engines: those that outlive it, for the next one. begun:
    when the command began, of `time.monotonic`; None for now.
    """
    stopwatch = Stopwatch(begun)
    with stopwatch.phase("fetch") if on_hub(options.inputs) else nullcontext():
        named = with_hub_files(options.inputs, ignore)
    if named != options.inputs:
        # The default name of the answers is the data set's.
        options = msgspec.structs.replace(options, inputs=named, output=options.whole_output_path)
    kept, left_out = without_answers(options.inputs, rows=options.says_rows, output=options.output_path)
    if left_out:
        options = msgspec.structs.replace(options, inputs=kept)
    # Before a model is looked for, which may take minutes.
    refuse_missing_input(options.inputs)
    check_written(options)
    # Counted from here: loading, indexing and planning take their part of the time.
    left = parse_deadline(options.deadline)
    end = None if left is None else monotonic() + left
    with (
        stopping_by_exception(end),
        view as first,
        listening(options, first) as listener,
        ExitStack() as later,
    ):
        tell_left_out(left_out, listener)
        listener(PhaseStarted("model", options.label))
        try:
            with stopwatch.phase("model"):
                place = _place(options, listener)
                early = later.enter_context(closing(EarlyChildren()))
                early.start(place.platform, place.threads, 0 if engines else _early(options, place))
                backend = open_backend(Opening(options, place, early, listener, engines))
            settings = _settings(options, backend, end)
            summary = execute(settings, with_media(backend.make_engine, options), listener, stopwatch)
        except BaseException as error:
            listener.ended(error.exit_code if isinstance(error, BlendrunError) else EXIT_BUG, success=False)
            raise
        listener.ended(exit_code(summary, options), success=summary.exit_code == EXIT_OK)
    return summary


def exit_code(summary: Summary, options: RunOptions) -> int:
    """What the command ends with."""
    some_answered = summary.counts.completed > 0
    cut = options.fail_on_length and summary.cut_short
    accepted = options.errors_ok and some_answered and not cut and summary.exit_code == EXIT_SOME_LINES_FAILED
    # A run without a single answer is no success to those who look at the code alone.
    return EXIT_OK if accepted else summary.exit_code


def platform_of(device: DeviceName) -> Platform:
    """Where `--device` has the engine run."""
    if device is DeviceName.AUTO:
        return detect_platform()
    return "gpu" if device is DeviceName.GPU else "cpu"


def _place(options: RunOptions, listener: Listener) -> Placement:
    if options.ray is not None:
        from blendrun.backends.ray import place_on_cluster

        return place_on_cluster(options, listener)
    replicas = options.replicas or 1
    # Replicas share the cores.
    threads = options.threads or max(available_cores() // replicas, 1)
    return Placement(platform_of(options.device), replicas, threads)


def _early(options: RunOptions, place: Placement) -> int:
    """How many engine processes to start before the job is even read: none where there may be nothing to do."""
    if options.engine != EngineName.SGLANG or options.model is None or place.needs is not None:
        return 0
    summary = summaries.read(StateFolder(options.output_path).summary)
    again = not options.resume or options.retry_errors or options.accept_changes
    return 0 if summary is not None and summary.status == "completed" and not again else place.replicas


def _settings(options: RunOptions, backend: Backend, deadline: float | None) -> RunSettings:
    """deadline: seconds of `time.monotonic`. Raises UsageError."""
    stall = options.stall_timeout
    return RunSettings(
        inputs=options.inputs,
        output=options.output_path,
        model=backend.model,
        model_identity=backend.identity,
        engine=backend.engine,
        answer_settings=backend.answer_settings,
        versions=backend.versions,
        order=options.order or OrderName.GIVEN,
        overlap=options.overlap or Overlap.EXCLUSIVE,
        planner=None if backend.planner is None else backend.planner.plan,
        divider=None if backend.planner is None else backend.planner.divide,
        replicas=backend.replicas,
        keep_plan=_keep_plan(backend.model),
        limit=options.limit,
        shard=_shard(options, backend.resolved),
        shard_of=None if options.shard is None else options.whole_output_path,
        default_url=options.endpoint,
        rules=backend.rules,
        max_line_bytes=options.max_line_bytes,
        longest_window=options.zstd_window,
        columns=options.columns(options.endpoint, options.limit),
        max_errors=None if options.max_errors is None else ErrorLimit.parse(str(options.max_errors)),
        strict=options.strict,
        check=backend.check,
        check_answers=options.check_answers,
        fail_on_length=options.fail_on_length,
        shows_tools=backend.shows_tools,
        speed=backend.speed,
        purpose=backend.purpose,
        resume=options.resume,
        accept_changes=options.accept_changes,
        retry_errors=options.retry_errors,
        overwrite=options.overwrite,
        upload=upload_of(options),
        same=sameness(options.dedupe, backend.greedy, keeps=options.cache is not None),
        cache=cache_settings(options.cache, options.cache_size, backend.versions, backend.apart),
        partial=_partial(options),
        devices=backend.devices,
        gpu_hour=options.price,
        patience=Patience(
            restarts=options.max_restarts,
            drain=options.drain_timeout,
            stall=stall or backend.stall,
            load=max(stall or 0.0, backend.load),
            deadline=deadline,
        ),
    )


def _partial(options: RunOptions) -> Target | None:
    """The file that has the answers so far, if it may be written. Raises UsageError, OutputUnavailableError."""
    path = options.partial_path
    if path is None:
        return None
    inputs = tuple(Path(name) for name in options.inputs if name != STDIN)
    target = partial_target(path, StateFolder(options.output_path), inputs, overwrite=options.overwrite)
    target.check()
    return target


def _keep_plan(model: str) -> KeepPlan:
    def keep(plan: RunPlan, job: Job, path: Path) -> None:
        if plan.simulated is None:
            return
        described = DescribedJob(job, model, plan.simulated.costed.structure.prompts.row, plan.findings)
        with suppress(BlendrunError, OSError):
            report = run_small(len(described.rows), partial(plan_report, plan.simulated, described))
            write_atomically(path, plan_json(report) + b"\n")

    return keep


def _shard(options: RunOptions, model: ResolvedModel | None) -> Shard | None:
    """The part of the job that was asked for. model: whose tokens tell what requests share; None: by lines."""
    place = options.shard_place
    if place is None:
        return None

    def divide(job: Job, shards: int, listener: Listener) -> NDArray[np.int32]:
        if model is None:
            return divide_by_line(job, shards)
        return divide_by_prefix(job, shards, model, options.engine_args, listener)

    return Shard(*place, divide)
