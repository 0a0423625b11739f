"""`blendrun plan`: what is in a job, which order is best, how long it will take."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blendrun.cli.choices import choice, names_in
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
from blendrun.names import AUTO, Dedupe, LengthMode, OrderName, Overlap

if TYPE_CHECKING:
    from blendrun.report.schemas.plan import Hardware


def plan(
    context: typer.Context,
    jobs: Annotated[
        list[str],
        typer.Argument(
            help="Request files, tables (.parquet, .csv, ...), traces or addresses, .gz, .zst, or - for stdin.",
            metavar="JOBS",
        ),
    ],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Alias (see configs/models), hub id or folder.")
    ] = None,
    hardware: Annotated[
        str | None,
        typer.Option(help="Cards of configs/hardware or YAML files, comma-separated. Default: this machine's."),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(metavar="N,...", help="How many of them; several numbers compare. Default: those of one engine."),
    ] = None,
    tp: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="GPUs of one engine (tensor parallel). Default: 1, or all where 1 is too small."
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="tokenizer.json or its folder, where the model's files are not here.")
    ] = None,
    lengths: Annotated[
        str, choice(LengthMode, "What output lengths are guessed from; reference: the lines' own.")
    ] = LengthMode.AUTO,
    orders: Annotated[
        str, typer.Option(help=f"Orders to choose from, comma-separated: {', '.join(OrderName)}.")
    ] = ",".join(OrderName),
    overlap: Annotated[
        str, choice([AUTO, *Overlap], "How prefill and decode share a step; auto: exclusive or mixed.")
    ] = AUTO,
    price: Annotated[
        list[str] | None,
        typer.Option(metavar="[CARD=]X", help="Price of a GPU hour, for costs; may be repeated for several cards."),
    ] = None,
    engine_arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="K=V", help="What the engine will be told: max_total_tokens, max_running_requests, ...; as for run."
        ),
    ] = None,
    keep_sharing: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the prefix sharing that the blend keeps.")
    ] = 0.99,
    drafts: Annotated[
        str | None,
        typer.Option(
            metavar="COUNT:ACCEPTANCE",
            help="Also say what speculation would bring: drafts a step, and the chance that one is right; say 4:0.6.",
        ),
    ] = None,
    host_memory: Annotated[
        float | None,
        typer.Option(min=0, metavar="GB", help="Also say what so much host memory a device would bring as KV cache."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first N lines.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Url of lines that have none.")] = None,
    dedupe: Annotated[str, choice(Dedupe, "Which of equal requests are asked once; as for run.")] = Dedupe.AUTO,
    cache: Annotated[
        str | None, typer.Option(metavar="DIR", help="Leave out what run would take from there; as for run.")
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
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object (docs/schemas/plan.json).")] = False,
    order_out: Annotated[
        Path | None, typer.Option(help="Write custom_ids (trace ids) in feed order, one a line.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the plan: a .npz of arrays with the JSON.")] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the plan as one HTML page (see `report`).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that no plan made.")] = False,
    config: Annotated[Path | None, typer.Option(help="YAML file of these options; the command line wins.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 65 where lines will fail.")] = False,
    show_prompt: Annotated[
        bool, typer.Option("--show-prompt", help="Print the first prompt as the model sees it.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print all figures: orders, machine, prefixes.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")] = False,
) -> None:
    """Preview JOBS on MODEL: sharing, density, order, predicted time. No GPU, no engine.

    Works for request files and for traces (lines with prompt_tokens and output_tokens, no text).
    """
    from json import dumps

    from blendrun.backends.planning import PlanOptions, plan_job
    from blendrun.cli.config import apply_config
    from blendrun.engine.settings import parse_engine_args
    from blendrun.errors import InputInvalidError
    from blendrun.planner.findings import will_fail
    from blendrun.planner.workload import AllKeptError
    from blendrun.report.schemas.plan import plan_json
    from blendrun.report.terminal.plan import print_plan
    from blendrun.report.terminal.progress import choose_view
    from blendrun.text import plural

    given = apply_config(context, config)
    named = {name: given[name] for name in PlanOptions.__struct_fields__ if name in given}
    options = PlanOptions.of(
        named
        | {
            "inputs": given["jobs"],
            "orders": names_in("--orders", given["orders"], OrderName),
            "engine_args": parse_engine_args(given["engine_arg"] or []),
        }
    )
    with choose_view(sys.stderr, quiet=given["quiet"]) as listener:
        try:
            found, first_prompt = plan_job(options, listener)
        except AllKeptError as kept:
            told = {"requests": 0, "lines": kept.lines, "cached": kept.cached}
            sys.stdout.write(f"{dumps(told) if given['json'] else kept}\n")
            return
    if given["json"]:
        sys.stdout.write(plan_json(found).decode() + "\n")
    else:
        print_plan(
            found,
            sys.stdout,
            next_command=None if found.kind == "trace" else run_command(given, found.hardware),
            verbose=given["verbose"],
            first_prompt=first_prompt if given["show_prompt"] else None,
        )
    if given["strict"] and (failing := will_fail(found.findings)):
        raise InputInvalidError(f"{plural(failing, 'line')} of {found.lines:,} will fail, and --strict allows none")


# Options that a run has too, and needs to answer the same lines in the same way.
_SHARED = (
    *("model", "tp", "endpoint", "limit", "dedupe", "cache", "prompt_column", "messages_column", "image_column"),
    *("id_column", "system_prompt", "prompt_template", "max_tokens", "temperature", "schema", "engine_arg"),
)


def run_command(given: Mapping[str, Any], on: Hardware) -> str:
    """The command that answers what was planned. given: options by name. on: the machine that was planned for."""
    words = ["blendrun", "run", *given["jobs"]]
    for name in _SHARED:
        value = given.get(name)
        if value is None or (name == "dedupe" and value == Dedupe.AUTO):
            continue
        for each in value if isinstance(value, list | tuple) else (value,):
            words += [f"--{name.replace('_', '-')}", str(each)]
    named = given.get("tp") is not None or any(each.startswith("tp_size=") for each in given.get("engine_arg") or ())
    if on.gpus_per_replica > 1 and not named:
        words += ["--tp", str(on.gpus_per_replica)]
    words += ["--replicas", str(on.replicas)] if on.replicas > 1 else []
    return join(words)
