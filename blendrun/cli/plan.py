"""`blendrun plan`: what is in a job, which order is best, how long it will take."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blendrun.cli.choices import names_in
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
        str | None,
        Panel.MODEL.option("--model", "-m", help="Alias (see `blendrun models`), hub id or folder.", metavar="MODEL"),
    ] = None,
    hardware: Annotated[
        str | None,
        Panel.HARDWARE.option(
            help="Cards (see `blendrun hardware`) or YAML files, comma-separated. Default: this machine's.",
            metavar="CARD,...",
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        Panel.HARDWARE.option(
            metavar="N,...", help="How many of them; several numbers compare. Default: those of one engine."
        ),
    ] = None,
    tp: Annotated[
        int | None,
        Panel.MODEL.option(
            min=1, metavar="N", help="GPUs of one engine (tensor parallel). Default: 1, or all where 1 is too small."
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        Panel.MODEL.option(help="tokenizer.json or its folder, where the model's files are not here.", metavar="FILE"),
    ] = None,
    lengths: Annotated[
        str, Panel.ORDER.choice(LengthMode, "What output lengths are guessed from; reference: the lines' own.")
    ] = LengthMode.AUTO,
    orders: Annotated[
        str,
        Panel.ORDER.option(
            help=f"Orders to choose from, comma-separated: {', '.join(OrderName)}.", metavar="ORDER,..."
        ),
    ] = ",".join(OrderName),
    overlap: Annotated[
        str, Panel.ORDER.choice([AUTO, *Overlap], "How prefill and decode share a step; auto: exclusive or mixed.")
    ] = AUTO,
    price: Annotated[
        list[str] | None,
        Panel.HARDWARE.option(
            metavar="[CARD=]X", help="Price of a GPU hour, for costs; may be repeated for several cards."
        ),
    ] = None,
    engine_arg: Annotated[
        list[str] | None,
        Panel.MODEL.option(
            metavar="K=V",
            help="Arguments the engine will get: max_total_tokens, max_running_requests, ...; as for run.",
        ),
    ] = None,
    keep_sharing: Annotated[
        float,
        Panel.ORDER.option(min=0, max=1, help="Share of the prefix sharing that the blend keeps.", metavar="SHARE"),
    ] = 0.99,
    drafts: Annotated[
        str | None,
        Panel.WHAT_IF.option(
            metavar="COUNT:ACCEPTANCE",
            help="Also print what speculative decoding would gain: drafts a step and their acceptance, such as 4:0.6.",
        ),
    ] = None,
    host_memory: Annotated[
        float | None,
        Panel.WHAT_IF.option(
            min=0, metavar="GB", help="Also print what that much host memory for each GPU would gain as KV cache."
        ),
    ] = None,
    limit: Annotated[int | None, Panel.INPUT.option(min=1, help="Take only the first N lines.", metavar="N")] = None,
    endpoint: Annotated[
        str | None, Panel.INPUT.option(help="URL of lines that have none, such as /v1/chat/completions.", metavar="URL")
    ] = None,
    dedupe: Annotated[
        str, Panel.EQUAL.choice(Dedupe, "Which of equal requests are asked once; as for run.")
    ] = Dedupe.AUTO,
    cache: Annotated[
        str | None, Panel.EQUAL.option(metavar="DIR", help="Leave out what run would take from there; as for run.")
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
    json: Annotated[
        bool, Panel.OUTPUT.option("--json", help="Print one JSON object (docs/schemas/plan.json).")
    ] = False,
    order_out: Annotated[
        Path | None, Panel.OUTPUT.option(help="Write custom_ids (trace ids) in feed order, one a line.", metavar="FILE")
    ] = None,
    save: Annotated[
        Path | None, Panel.OUTPUT.option(help="Write the plan: a .npz of arrays with the JSON.", metavar="FILE")
    ] = None,
    report: Annotated[
        Path | None, Panel.OUTPUT.option(metavar="FILE", help="Write the plan as one HTML page (see `report`).")
    ] = None,
    overwrite: Annotated[bool, Panel.OUTPUT.option("--overwrite", help="Replace files that no plan made.")] = False,
    config: Annotated[
        Path | None, Panel.INPUT.option(help="YAML file of these options; the command line wins.", metavar="FILE")
    ] = None,
    strict: Annotated[bool, Panel.FAILURES.option("--strict", help="Exit with 65 where lines will fail.")] = False,
    show_prompt: Annotated[
        bool, Panel.WATCHING.option("--show-prompt", help="Print the first prompt as the model sees it.")
    ] = False,
    verbose: Annotated[
        bool, Panel.WATCHING.option("--verbose", "-v", help="Print all figures: orders, machine, prefixes.")
    ] = False,
    quiet: Annotated[bool, Panel.WATCHING.option("--quiet", "-q", help="Print only warnings and errors.")] = False,
) -> None:
    """Preview JOBS: what is in them, the best order, predicted time. No GPU needed.

    No engine is started. Works for request files and for traces (lines with prompt_tokens and output_tokens, no text).
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
            next_command=None if found.kind == "trace" else run_command(given, found.hardware, found.gpu_hour),
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


def run_command(given: Mapping[str, Any], on: Hardware, gpu_hour: float | None = None) -> str:
    """The command that answers what was planned. given: options by name. on: the machine that was planned for.

    gpu_hour: its price.
    """
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
    words += ["--price", f"{gpu_hour:g}"] if gpu_hour is not None else []
    return join(words)
