"""`blendrun run`: answer every request of a job."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blendrun.cli.panels import Panel
from blendrun.cli.row_options import (
    IdColumn,
    ImageColumn,
    MaxTokens,
    MessagesColumn,
    PromptColumn,
    PromptTemplate,
    SchemaFile,
    SystemPrompt,
    Temperature,
)
from blendrun.names import AUTO, Dedupe, DeviceName, EngineName, OrderName, Overlap, UnknownFields

if TYPE_CHECKING:
    from blendrun.backends.options import RunOptions


def _engine(given: str) -> str:
    if "://" not in given and given not in tuple(EngineName):
        names = ", ".join(EngineName)
        raise typer.BadParameter(f"{given}: give {names}, or addresses such as http://host:30000")
    return given


def run(
    context: typer.Context,
    jobs: Annotated[
        list[str],
        typer.Argument(
            help="Files or addresses: OpenAI Batch lines (.jsonl), tables (.parquet, .csv, ...), .gz, .zst, or -.",
            metavar="JOBS",
        ),
    ],
    model: Annotated[
        str | None,
        Panel.MODEL.option(
            "--model", "-m", help="Alias (see `blendrun models`), hub id, folder or GGUF file.", metavar="MODEL"
        ),
    ] = None,
    output: Annotated[
        str | None,
        Panel.OUTPUT.option(
            "--output",
            "-o",
            help="Output (.jsonl, .parquet, .csv, .tsv), or the address it is sent to; - for stdout. "
            "Default: <first job>.answers.jsonl here.",
            metavar="FILE",
        ),
    ] = None,
    order: Annotated[
        str,
        Panel.ORDER.choice(
            [AUTO, *OrderName], "Order in which requests are fed; auto: the one that is predicted to be fastest."
        ),
    ] = AUTO,
    overlap: Annotated[
        str,
        Panel.ORDER.choice(
            [AUTO, *Overlap], "How prefill and decode share a step; auto: as predicted, exclusive or mixed."
        ),
    ] = AUTO,
    limit: Annotated[int | None, Panel.INPUT.option(min=1, help="Take only the first N lines.", metavar="N")] = None,
    shard: Annotated[
        str | None,
        Panel.MACHINES.option(
            metavar="I/N|slurm", help="Answer part I of N only; slurm: by the task's place in its array. See merge."
        ),
    ] = None,
    endpoint: Annotated[
        str | None, Panel.INPUT.option(help="URL of lines that have none, such as /v1/chat/completions.", metavar="URL")
    ] = None,
    prompt_column: PromptColumn = None,
    messages_column: MessagesColumn = None,
    image_column: ImageColumn = None,
    id_column: IdColumn = None,
    system_prompt: SystemPrompt = None,
    prompt_template: PromptTemplate = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    schema: SchemaFile = None,
    config: Annotated[
        Path | None,
        Panel.INPUT.option(help="YAML file of these options; the command line wins.", metavar="FILE"),
    ] = None,
    errors_ok: Annotated[bool, Panel.FAILURES.option("--errors-ok", help="Exit 0 although some lines failed.")] = False,
    strict: Annotated[
        bool,
        Panel.FAILURES.option(
            "--strict", help="Check all lines before the model is loaded; run none if one is bad (65)."
        ),
    ] = False,
    unknown_fields: Annotated[
        UnknownFields,
        Panel.FAILURES.option(help="Fields that would have no effect: an error for each line, or one warning."),
    ] = UnknownFields.ERROR,
    check_answers: Annotated[
        bool,
        Panel.FAILURES.option(
            "--check-answers", help="An answer that breaks its schema is an error line, not only counted."
        ),
    ] = False,
    fail_on_length: Annotated[
        bool,
        Panel.FAILURES.option(
            "--fail-on-length", help="Exit 3 where an answer was cut short at its token limit; it is kept."
        ),
    ] = False,
    dedupe: Annotated[
        Dedupe,
        Panel.EQUAL.option(
            help="Ask equal requests once; auto: where the answer is always the same (temperature 0, a seed), on: all."
        ),
    ] = Dedupe.AUTO,
    cache: Annotated[
        str | None,
        Panel.EQUAL.option(
            metavar="DIR", help="Keep answers that are always the same here, and reuse them in later runs."
        ),
    ] = None,
    cache_size: Annotated[
        str,
        Panel.EQUAL.option(
            metavar="SIZE", help="Largest size of --cache; answers that were not used for longest are dropped."
        ),
    ] = "10G",
    partial: Annotated[
        str | None,
        Panel.OUTPUT.option(metavar="FILE", help="Write the answers so far here while it runs, as they come."),
    ] = None,
    max_errors: Annotated[
        str | None,
        Panel.FAILURES.option(
            metavar="N|P%", help="Stop (4) when more lines than that have failed, bad lines included."
        ),
    ] = None,
    max_line_bytes: Annotated[
        int | None,
        Panel.LIMITS.option(min=1, max=1 << 31, help="Longer lines are errors. Default: 64 MiB.", metavar="BYTES"),
    ] = None,
    zstd_window: Annotated[
        int | None,
        Panel.LIMITS.option(
            min=10, max=31, metavar="N", help="Unpack zstd --long=N, in 2^N bytes of memory. Default: 27 (128 MiB)."
        ),
    ] = None,
    quiet: Annotated[bool, Panel.WATCHING.option("--quiet", "-q", help="Print only warnings and errors.")] = False,
    verbose: Annotated[
        bool, Panel.WATCHING.option("--verbose", "-v", help="Print more: every phase, and figures every 5 s.")
    ] = False,
    metrics_port: Annotated[
        int | None,
        Panel.WATCHING.option(
            min=0,
            max=65535,
            help="Serve Prometheus metrics at this port of 127.0.0.1; 0: any free one.",
            metavar="PORT",
        ),
    ] = None,
    metrics_textfile: Annotated[
        Path | None,
        Panel.WATCHING.option(metavar="FILE", help="Write metrics for node_exporter's textfile collector (.prom)."),
    ] = None,
    trace: Annotated[
        Path | None,
        Panel.WATCHING.option(metavar="FILE", help="Write phases and steps as a Chrome trace, for Perfetto."),
    ] = None,
    price: Annotated[
        float | None,
        Panel.WATCHING.option(
            min=0,
            metavar="X",
            help="Price of a GPU hour, or of a machine hour without GPUs: the end of the run says the cost.",
        ),
    ] = None,
    engine: Annotated[
        str,
        Panel.MODEL.option(
            metavar=f"{'|'.join(EngineName)}|URL,...",
            callback=_engine,
            help="What answers: an engine of this command, placeholders, or running servers with OpenAI's API.",
        ),
    ] = EngineName.SGLANG.value,
    replicas: Annotated[
        int | None,
        Panel.MACHINES.option(
            min=1,
            metavar="N",
            help="Engines side by side, each with GPUs and a part of the job. Default: 1; --ray: all that fit.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        Panel.MACHINES.option(metavar="HOST:PORT|auto", help="Run the engines on the nodes of this Ray cluster."),
    ] = None,
    tp: Annotated[
        int | None, Panel.MODEL.option(min=1, metavar="N", help="GPUs of one engine (tensor parallel).")
    ] = None,
    engine_arg: Annotated[
        list[str] | None,
        Panel.MODEL.option(metavar="K=V", help="Argument of SGLang's engine; may be repeated."),
    ] = None,
    device: Annotated[
        DeviceName, Panel.MODEL.option(help="Where it runs; auto: a GPU if there is one.")
    ] = DeviceName.AUTO,
    threads: Annotated[
        int | None,
        Panel.MODEL.option(min=1, help="CPU threads (CPU only). Default: all cores.", metavar="N"),
    ] = None,
    trust_remote_code: Annotated[
        bool,
        Panel.MODEL.option("--trust-remote-code", help="Run code of the model's folder."),
    ] = False,
    allow_media_files: Annotated[
        Path | None,
        Panel.MEDIA.option(metavar="DIR", help="Lines may name media files below DIR."),
    ] = None,
    allow_media_urls: Annotated[
        bool,
        Panel.MEDIA.option("--allow-media-urls", help="Lines may name media by http and https."),
    ] = False,
    allow_private_media: Annotated[
        bool,
        Panel.MEDIA.option("--allow-private-media", help="Also at addresses that are not public."),
    ] = False,
    drain_timeout: Annotated[
        float,
        Panel.LIMITS.option(min=0, help="Seconds that running requests get after a signal.", metavar="SECONDS"),
    ] = 20.0,
    deadline: Annotated[
        str | None,
        Panel.LIMITS.option(
            metavar="TIME", help="Stop in time: 3h50m from now, or slurm for the end of the Slurm job."
        ),
    ] = None,
    max_restarts: Annotated[
        int, Panel.FAILURES.option(min=0, help="How often a dead engine is started again.", metavar="N")
    ] = 3,
    stall_timeout: Annotated[
        float | None,
        Panel.FAILURES.option(
            min=1,
            help="Seconds without a sign of life after which an engine counts as hung. Default: 600, CPU 1800.",
            metavar="SECONDS",
        ),
    ] = None,
    resume: Annotated[
        bool,
        Panel.RESUME.option("--resume/--no-resume", help="Keep what an earlier run finished."),
    ] = True,
    retry_errors: Annotated[bool, Panel.FAILURES.option("--retry-errors", help="Run failed requests again.")] = False,
    accept_changes: Annotated[
        bool,
        Panel.RESUME.option("--accept-changes", help="Resume although input or settings changed."),
    ] = False,
    overwrite: Annotated[
        bool,
        Panel.OUTPUT.option("--overwrite", help="Replace an output that no run of blendrun made."),
    ] = False,
    upload: Annotated[
        str | None,
        Panel.OUTPUT.option(metavar="ADDRESS", help="Send the output there (https, s3, gs, az) once it is written."),
    ] = None,
    upload_errors: Annotated[
        str | None,
        Panel.OUTPUT.option(
            metavar="ADDRESS", help="Send the errors file there. Default: beside the output, but for signed addresses."
        ),
    ] = None,
) -> None:
    """Answer every request of JOBS with MODEL. The same command again resumes.

    Answers go to the output file in input order, failures to <output>.errors.jsonl, state to <output>.blendrun/.
    Exit codes: 0 all answered, 3 some lines failed, 4 too many did, 65 bad input, 69 engine lost, 75 run it again.
    """
    from blendrun.cli.config import apply_config

    if code := _run(apply_config(context, config)):
        raise typer.Exit(code)


def _run(given: dict[str, Any]) -> int:
    """given: parameters of the command, by name. Returns its exit code."""
    # What is imported now takes a second or more, which is waited for, too.
    begun, at = time.monotonic(), time.time()
    from blendrun.backends.session import exit_code, run_job
    from blendrun.errors import OutputUnavailableError
    from blendrun.report.terminal.progress import choose_view
    from blendrun.report.terminal.summary import print_summary

    options = _options(given)
    to_stdout = given["output"] == "-"
    if to_stdout and sys.stdout is None:
        raise OutputUnavailableError("stdout is closed; give a file with -o")
    view = choose_view(sys.stderr, quiet=given["quiet"], verbose=given["verbose"])
    summary = run_job(options, view, begun=begun)
    if not given["quiet"]:
        print_summary(summary, sys.stderr, earlier=_written_before(options.output_path, at))
    if to_stdout:
        _copy_to_stdout(options.output_path)
    return exit_code(summary, options)


def _written_before(output: Path, at: float) -> bool:
    """Whether a run before left the summary that is there now. at: when this one began, in Unix seconds."""
    from blendrun.store.folder import StateFolder

    try:
        return StateFolder(output).summary.stat().st_mtime < at
    except OSError:
        return False


def _options(given: dict[str, Any]) -> RunOptions:
    """From parameters of the command, by name. Raises UsageError."""
    from blendrun.backends.options import RunOptions
    from blendrun.engine.settings import parse_engine_args

    named = {name: given[name] for name in RunOptions.__struct_fields__ if name in given}
    return RunOptions.of(named | {"inputs": given["jobs"], "engine_args": parse_engine_args(given["engine_arg"] or [])})


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
