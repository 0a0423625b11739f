"""`blendrun synth`: a workload by the paper's recipe, as a trace file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from blendrun.cli.choices import choice
from blendrun.synth.kinds import COMPUTE, MEMORY, SHARE


def synth(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Trace file to write; .gz or .zst packs it.", show_default=False, metavar="FILE"
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Alias (see `blendrun models`), hub id or folder.", metavar="MODEL"),
    ] = None,
    compute: Annotated[str, choice(COMPUTE, "Compute-heavy requests.")] = "burstgpt",
    memory: Annotated[str, choice(MEMORY, "Memory-heavy requests.")] = "openvid",
    share: Annotated[str, choice(SHARE, "Requests that share prefixes.")] = "mmlu",
    rho: Annotated[
        float, typer.Option(help="Seconds of compute over seconds of memory, at peak rates.", metavar="X")
    ] = 1.4,
    sharing: Annotated[
        float, typer.Option(help="Share of the prompt tokens that a prefix cache saves.", metavar="X")
    ] = 0.35,
    requests: Annotated[int, typer.Option(metavar="N", help="Of all kinds together.")] = 400_000,
    seed: Annotated[int, typer.Option(help="The same one gives the same file.", metavar="N")] = 0,
    hardware: Annotated[
        str | None,
        typer.Option(help="Card (see `blendrun hardware`) or YAML file. Default: this machine's.", metavar="CARD"),
    ] = None,
    gpus: Annotated[int, typer.Option(metavar="N", help="How many of them.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is no such workload.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object (docs/schemas/synth.json).")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only warnings and errors.")] = False,
) -> None:
    """Write a made workload as a trace file, to plan or to simulate.

    By the paper's recipe: three kinds of requests, mixed to a density and a share of shared tokens. Lengths by
    published means; the mix is for MODEL on a card, since density depends on both.
    """
    from blendrun.cli.bench import machine_of, model_of
    from blendrun.events import PhaseStarted
    from blendrun.report.schemas.synth import synth_json, synth_report
    from blendrun.report.terminal.bench import print_synth
    from blendrun.report.terminal.progress import choose_view
    from blendrun.store.guard import Target
    from blendrun.synth.recipe import Recipe
    from blendrun.synth.workload import synthesise
    from blendrun.synth.write import is_workload, write_lines

    target = Target(output, "-o", (), is_workload, overwrite)
    target.check()
    recipe = Recipe.of(compute, memory, share, rho=rho, sharing=sharing, requests=requests, seed=seed)
    with choose_view(sys.stderr, quiet=quiet) as listener:
        planned, (on, peak) = model_of(model), machine_of(hardware, gpus)
        listener(PhaseStarted("synthesise", f"{requests:,} requests"))
        made = synthesise(recipe, planned.card, peak)
        listener(PhaseStarted("write", str(output)))
        with target.opened() as file:
            write_lines(made, file, output.suffix, listener)
        report = synth_report(made, planned.name, planned.card, on)
    if json:
        sys.stdout.write(synth_json(report).decode() + "\n")
    elif not quiet:
        print_synth(report, str(output), sys.stdout)
