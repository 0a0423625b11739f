"""`blendrun run`: answer every request of a job."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from blendrun.engine.base import Engine, Platform
    from blendrun.models import ResolvedModel
    from blendrun.planner.feed import RunPlan
    from blendrun.runner.run import RunSettings
    from blendrun.runner.state import StateFolder
    from blendrun.runner.summary import Summary
    from blendrun.runner.supervise import MakeEngine

# Without a sign of life for so long an engine is hung; one forward pass of a large model takes minutes on a CPU.
_STALL_S, _CPU_STALL_S = 600.0, 1800.0


class EngineName(StrEnum):
    """sglang: the real runtime. replay: no model; placeholder answers on a virtual clock."""

    SGLANG = "sglang"
    REPLAY = "replay"


class OrderName(StrEnum):
    """Mirrors `blendrun.blend.base.OrderName`, which would make `--help` load NumPy; auto: the plan chooses."""

    AUTO = "auto"
    GIVEN = "given"
    SHUFFLED = "shuffled"
    SORTED = "sorted"
    LOF = "lof"
    BLENDED = "blended"


class OverlapName(StrEnum):
    """Mirrors `blendrun.simulate.base.Overlap`; auto: the plan chooses, not pdmux."""

    AUTO = "auto"
    EXCLUSIVE = "exclusive"
    MIXED = "mixed"
    PDMUX = "pdmux"


class DeviceName(StrEnum):
    """Where the engine runs; auto: a GPU if this machine has one."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"


def run(
    context: typer.Context,
    jobs: Annotated[
        list[str],
        typer.Argument(help="Files of OpenAI Batch lines (.jsonl, .gz, .zst), or - for stdin.", metavar="JOBS"),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Alias (see configs/models), hub id, folder or GGUF file."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Output file. Default: <first job>.answers.jsonl here; - for stdout."),
    ] = None,
    order: Annotated[
        OrderName, typer.Option(help="Order in which requests are fed; auto: the one that is predicted to be fastest.")
    ] = OrderName.AUTO,
    overlap: Annotated[
        OverlapName, typer.Option(help="How prefill and decode share a step; auto: as predicted, exclusive or mixed.")
    ] = OverlapName.AUTO,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first N lines.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Url of lines that have none.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file of these options; the command line wins."),
    ] = None,
    errors_ok: Annotated[bool, typer.Option("--errors-ok", help="Exit 0 although some lines failed.")] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Check all lines before the model is loaded; run none if one is bad (65)."),
    ] = False,
    max_errors: Annotated[
        str | None,
        typer.Option(metavar="N|P%", help="Stop (4) when more lines than that have failed, bad lines included."),
    ] = None,
    max_line_bytes: Annotated[
        int | None,
        typer.Option(min=1, max=1 << 31, help="Longer lines are errors. Default: 64 MiB."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")] = False,
    engine: Annotated[EngineName, typer.Option(help="What answers.")] = EngineName.SGLANG,
    engine_arg: Annotated[
        list[str] | None,
        typer.Option(metavar="K=V", help="Argument of SGLang's engine; may be repeated."),
    ] = None,
    device: Annotated[DeviceName, typer.Option(help="Where it runs.")] = DeviceName.AUTO,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads (CPU only). Default: all cores."),
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Run code of the model's folder."),
    ] = False,
    allow_media_files: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Lines may name media files below DIR."),
    ] = None,
    allow_media_urls: Annotated[
        bool,
        typer.Option("--allow-media-urls", help="Lines may name media by http and https."),
    ] = False,
    allow_private_media: Annotated[
        bool,
        typer.Option("--allow-private-media", help="Also at addresses that are not public."),
    ] = False,
    drain_timeout: Annotated[
        float,
        typer.Option(min=0, help="Seconds for requests in flight after a signal."),
    ] = 20.0,
    deadline: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Be gone by then: 3h50m from now, or slurm for the end of the Slurm job."),
    ] = None,
    max_restarts: Annotated[int, typer.Option(min=0, help="Starts of a dead engine before the run gives up.")] = 3,
    stall_timeout: Annotated[
        float | None,
        typer.Option(
            min=1, help="Seconds without a sign of life after which an engine is hung. Default: 600, CPU 1800."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume/--no-resume", help="Keep what an earlier run finished."),
    ] = True,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Run failed requests again.")] = False,
    accept_changes: Annotated[
        bool,
        typer.Option("--accept-changes", help="Resume though input or settings changed."),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace an output no run of blendrun made."),
    ] = False,
) -> None:
    """Answer every request of JOBS with MODEL. The same command again resumes.

    Answers go to the output file in input order, failures to <output>.errors.jsonl, state to <output>.blendrun/.
    Exit codes: 0 all answered, 3 some lines failed, 4 too many did, 65 bad input, 69 engine lost, 75 run it again.
    """
    from blendrun.cli.config import apply_config
    from blendrun.errors import EXIT_SOME_LINES_FAILED, OutputUnavailableError

    options: dict[str, Any] = apply_config(context, config)
    if options["output"] == "-" and sys.stdout is None:
        raise OutputUnavailableError("stdout is closed; give a file with -o")
    summary = _execute(options)
    if options["output"] == "-":
        _copy_to_stdout(_output_path(options))
    if summary.exit_code and not (options["errors_ok"] and summary.exit_code == EXIT_SOME_LINES_FAILED):
        raise typer.Exit(summary.exit_code)


def _execute(options: dict[str, Any]) -> Summary:
    from blendrun.report.progress import choose_view
    from blendrun.report.text import print_summary
    from blendrun.runner.events import Note, PhaseStarted
    from blendrun.runner.run import execute
    from blendrun.runner.stop import stopping_by_exception

    with stopping_by_exception(), choose_view(sys.stderr, quiet=options["quiet"]) as watch:
        watch(PhaseStarted("model", str(options["model"] or options["engine"])))
        if options["engine"] == EngineName.REPLAY:
            watch(Note("replay: no model runs, the answers are placeholders"))
        settings, make_engine = _wire(options, lambda text: watch(PhaseStarted("model", text)))
        summary = execute(settings, make_engine, watch)
    if not options["quiet"]:
        print_summary(summary, sys.stderr)
    return summary


def _wire(options: dict[str, Any], progress: Any) -> tuple[RunSettings, MakeEngine]:
    """From options to what the runner takes. Raises UsageError, InputMissingError."""
    from blendrun.blend.base import OrderName as Order
    from blendrun.cli.duration import parse_deadline
    from blendrun.cli.permissions import rules_of, with_media
    from blendrun.endpoints import ENDPOINTS
    from blendrun.engine.settings import answer_settings, detect_platform, parse_engine_args, runtime_versions
    from blendrun.errors import UsageError
    from blendrun.jobs import MAX_LINE_BYTES
    from blendrun.models import resolve_model
    from blendrun.runner.failures import ErrorLimit
    from blendrun.runner.run import RunSettings
    from blendrun.runner.supervise import Patience
    from blendrun.simulate.base import Overlap

    arguments = parse_engine_args(options["engine_arg"] or [])
    if options["endpoint"] not in (None, *ENDPOINTS):
        raise UsageError(f"--endpoint {options['endpoint']}: known are {', '.join(ENDPOINTS)}")
    replay = options["engine"] == EngineName.REPLAY
    name, identity = options["model"] or "replay", "replay"
    order, planner, check = str(options["order"]), None, None
    overlap = Overlap.EXCLUSIVE if options["overlap"] == OverlapName.AUTO else Overlap(str(options["overlap"]))
    decides: dict[str, Any] = {}
    versions: dict[str, str] = {}
    stall = _STALL_S
    rules = rules_of(options, arguments)
    if replay:
        if order not in (OrderName.GIVEN, OrderName.SHUFFLED, OrderName.AUTO):
            raise UsageError(f"--order {order} needs the prompts in tokens, and replay has no tokenizer")
        make_engine = _replay(arguments)
    elif options["model"] is None:
        raise UsageError("which model? Give --model, for example --model smollm2-135m")
    else:
        chosen: Platform = "gpu" if options["device"] == DeviceName.GPU else "cpu"
        platform = detect_platform() if options["device"] == DeviceName.AUTO else chosen
        resolved = resolve_model(options["model"], platform=platform, progress=progress)
        identity = resolved.identity
        arguments = _parsers(resolved) | arguments
        # float32 on the CPU and bfloat16 on a GPU do not answer alike, so a resume must not mix them unasked.
        decides = answer_settings(arguments) | {"platform": platform}
        versions = runtime_versions()
        planner = _planner(resolved, platform, arguments, options)
        check = _check(resolved, platform, arguments) if options["strict"] else None
        make_engine = _sglang(resolved, platform, arguments, options)
        stall = _CPU_STALL_S if platform == "cpu" else _STALL_S
        rules = rules_of(options, arguments, resolved.card)
    return RunSettings(
        inputs=tuple(options["jobs"]),
        output=_output_path(options),
        model=name,
        model_identity=identity,
        engine=str(options["engine"]),
        answer_settings=decides,
        versions=versions,
        order=Order.GIVEN if order == OrderName.AUTO else Order(order),
        overlap=overlap,
        planner=planner,
        limit=options["limit"],
        default_url=options["endpoint"],
        rules=rules,
        max_line_bytes=options["max_line_bytes"] or MAX_LINE_BYTES,
        max_errors=None if options["max_errors"] is None else ErrorLimit.parse(options["max_errors"]),
        strict=options["strict"],
        check=check,
        resume=options["resume"],
        accept_changes=options["accept_changes"],
        retry_errors=options["retry_errors"],
        overwrite=options["overwrite"],
        patience=Patience(
            restarts=options["max_restarts"],
            drain=options["drain_timeout"],
            stall=options["stall_timeout"] or stall,
            load=max(options["stall_timeout"] or 0.0, _CPU_STALL_S),
            deadline=parse_deadline(options["deadline"]),
        ),
    ), with_media(make_engine, options)


def _parsers(model: ResolvedModel) -> dict[str, Any]:
    """Engine arguments that the model's card asks for; what the user gives wins."""
    parsers = model.card.parsers if model.card else None
    if parsers is None:
        return {}
    chosen = {"tool_call_parser": parsers.tool_call, "reasoning_parser": parsers.reasoning}
    return {name: value for name, value in chosen.items() if value is not None}


def _check(model: ResolvedModel, platform: Platform, arguments: dict[str, Any]) -> Any:
    """What checks the prompts of a job for `--strict`."""
    from blendrun.engine.settings import engine_limits
    from blendrun.runner.strict import JobCheck

    context = arguments.get("context_length") or model.context_length
    return JobCheck(
        model=model.name,
        path=model.path,
        context_length=context or (model.card.context_length if model.card else None),
        pool_tokens=engine_limits(platform, arguments).pool_tokens,
        arguments=arguments,
    )


def _planner(model: ResolvedModel, platform: Platform, arguments: dict[str, Any], options: dict[str, Any]) -> Any:
    """What plans the run; None where rows are fed as they stand. Raises UsageError."""
    order, overlap = str(options["order"]), str(options["overlap"])
    if order in (OrderName.GIVEN, OrderName.SHUFFLED):
        return None
    policy = arguments.get("schedule_policy", "fcfs")
    if policy != "fcfs":
        # The user wants SGLang's own order.
        if order == OrderName.AUTO:
            return None
        from blendrun.errors import UsageError

        raise UsageError(f"schedule_policy={policy} has an order of its own: leave it out, or --order {order}")
    from dataclasses import replace

    from blendrun.blend.base import OrderName as Order
    from blendrun.cost.detect import compute_capability
    from blendrun.engine.overlap import JobFacts, Refused, overlap_arguments
    from blendrun.engine.settings import engine_limits
    from blendrun.planner.feed import RunPlanner
    from blendrun.simulate.base import Overlap

    facts = JobFacts(
        compute_capability=compute_capability() if platform == "gpu" else None,
        architecture=model.card.architecture if model.card else None,
    )

    def refusal(mode: Overlap, logprobs: bool) -> str | None:
        found = overlap_arguments(mode.value, platform, arguments, replace(facts, any_logprobs=logprobs))
        return found.sentence if isinstance(found, Refused) else None

    return RunPlanner(
        model,
        None if order == OrderName.AUTO else Order(order),
        overlap=None if overlap == OverlapName.AUTO else Overlap(overlap),
        # On a CPU one step's arithmetic hides under no other's reads. The split of a GPU is only for those who ask.
        overlaps=(Overlap.EXCLUSIVE, Overlap.MIXED) if platform == "gpu" else (Overlap.EXCLUSIVE,),
        refusal=refusal,
        limits=engine_limits(platform, arguments),
    ).plan


def _replay(arguments: dict[str, Any]) -> MakeEngine:
    from blendrun.engine.replay import ReplayEngine

    engine = ReplayEngine.from_arguments(arguments)
    return lambda *_: engine


def _sglang(model: ResolvedModel, platform: Any, arguments: dict[str, Any], options: dict[str, Any]) -> MakeEngine:
    import msgspec

    from blendrun.engine.base import EngineSettings
    from blendrun.engine.process import SglangEngine
    from blendrun.engine.settings import available_cores, one_scheduler, smaller
    from blendrun.runner.feeding import scheduler_settings

    settings = EngineSettings(
        model_path=str(model.path),
        platform=platform,
        threads=options["threads"] or available_cores(),
        trust_remote_code=options["trust_remote_code"],
        server_args=arguments,
    )

    def make(state: StateFolder, plan: RunPlan, shrinks: int) -> Engine:
        estimates = state.estimates if state.estimates.exists() and one_scheduler(arguments) else None
        scheduler = scheduler_settings(plan, steps=state.steps, estimates=estimates)
        planned = msgspec.structs.replace(
            settings,
            scheduler=scheduler,
            overlap=plan.overlap.value,
            server_args=smaller(arguments, platform, shrinks),
        )
        return SglangEngine(planned, state.engine_log)

    return make


def _output_path(options: dict[str, Any]) -> Path:
    from blendrun.errors import UsageError

    if options["output"] not in (None, "-"):
        return Path(options["output"])
    first = options["jobs"][0]
    if first == "-":
        if options["output"] is None:
            raise UsageError("where do the answers go? With stdin as input, give -o FILE, or -o - for stdout")
        return Path("stdin.answers.jsonl")
    stem = Path(first).name
    for suffix in (".gz", ".zst", ".jsonl", ".ndjson", ".json"):
        stem = stem.removesuffix(suffix)
    return Path(f"{stem}.answers.jsonl")


def _copy_to_stdout(path: Path) -> None:
    """Raises OutputUnavailableError, but not where the reader had enough and left (`| head`)."""
    import shutil

    from blendrun.errors import OutputUnavailableError

    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except OSError as error:
        # What is left in the buffer would fail again, loudly, as Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise OutputUnavailableError(
                f"cannot write to stdout: {error.strerror}; the answers are in {path}"
            ) from error
