"""`blendrun synth`: a workload by the paper's recipe, as a trace file."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


# These mirror `blendrun.synth.kinds`, which would make `--help` load NumPy.
class ComputeName(StrEnum):
    """Kinds of requests that are mostly prefill."""

    BURSTGPT = "burstgpt"
    AZURE = "azure"
    WILDCHAT = "wildchat"
    SHAREGPT = "sharegpt"


class MemoryName(StrEnum):
    """Kinds of requests that are mostly decoding."""

    OPENVID = "openvid"
    LIMO = "limo"


class ShareName(StrEnum):
    """Kinds of requests that are mostly shared prefix."""

    MMLU = "mmlu"


def synth(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Trace file to write; .gz or .zst packs it.", show_default=False)
    ],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Alias (see configs/models), hub id or folder.")
    ] = None,
    compute: Annotated[ComputeName, typer.Option(help="Compute-heavy requests.")] = ComputeName.BURSTGPT,
    memory: Annotated[MemoryName, typer.Option(help="Memory-heavy requests.")] = MemoryName.OPENVID,
    share: Annotated[ShareName, typer.Option(help="Requests that share prefixes.")] = ShareName.MMLU,
    rho: Annotated[float, typer.Option(help="Seconds of compute over seconds of memory, at peak rates.")] = 1.4,
    sharing: Annotated[float, typer.Option(help="Share of the prompt tokens that a prefix cache saves.")] = 0.35,
    requests: Annotated[int, typer.Option(metavar="N", help="Of all kinds together.")] = 400_000,
    seed: Annotated[int, typer.Option(help="The same one gives the same file.")] = 0,
    hardware: Annotated[
        str | None, typer.Option(help="Card of configs/hardware or YAML file. Default: this machine's.")
    ] = None,
    gpus: Annotated[int, typer.Option(metavar="N", help="How many of them.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object (docs/schemas/synth.json).")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")] = False,
) -> None:
    """Write a workload by the paper's recipe: three kinds of requests, mixed to a density and a sharing.

    Lengths by published means; the mix is for MODEL on a card, since density depends on both.
    """
    from blendrun.cli.bench import machine_of, model_of
    from blendrun.report.bench_text import print_synth
    from blendrun.report.progress import choose_view
    from blendrun.report.synth_json import synth_json, synth_report
    from blendrun.runner.events import PhaseStarted, Progress
    from blendrun.synth import Recipe, synthesise, write_workload

    recipe = Recipe.of(compute, memory, share, rho=rho, sharing=sharing, requests=requests, seed=seed)
    with choose_view(sys.stderr, quiet=quiet) as watch:
        planned, (on, peak) = model_of(model), machine_of(hardware, gpus)
        watch(PhaseStarted("synthesise", f"{requests:,} requests"))
        made = synthesise(recipe, planned.card, peak)
        watch(PhaseStarted("write", str(output)))
        write_workload(made, output, lambda done, total: watch(Progress(done, total, "lines")))
        report = synth_report(made, planned.name, planned.card, on)
    if json:
        sys.stdout.write(synth_json(report).decode() + "\n")
    elif not quiet:
        print_synth(report, str(output), sys.stdout)
