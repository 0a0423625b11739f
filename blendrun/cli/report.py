"""`blendrun report`: a page of runs and plans to look at, show and keep."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Output files of runs, or their .blendrun folders; several stand side by side.", metavar="RUN"
        ),
    ] = None,
    plan: Annotated[
        list[Path] | None,
        typer.Option(
            "--plan", help="A plan of `plan --json` or `plan --save`, for itself; may be repeated.", metavar="FILE"
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.", metavar="FILE")] = Path("report.html"),
    answers: Annotated[
        bool,
        typer.Option("--answers/--no-answers", help="Show a few answers and prompts, and texts of prefixes, in part."),
    ] = True,
    price: Annotated[
        float | None,
        typer.Option(
            "--price",
            help="Price of a GPU hour, or of a machine hour without GPUs: the page says the cost. Default: the run's.",
            min=0,
            metavar="X",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is no such page.")] = False,
) -> None:
    """Write one HTML page about runs and plans.

    Did it work, what failed or was cut short, some answers, how long it took and was that as planned; then the engine.
    It opens from a mail attachment, prints, and asks no network for anything. A run may still be working. Two runs of
    one job are laid over each other.
    """
    from blendrun.errors import UsageError
    from blendrun.report.page.page import is_page, make_page
    from blendrun.report.page.subject import Subject, plan_subject, read_plan, run_subject
    from blendrun.store.folder import StateFolder
    from blendrun.store.guard import Target

    found, plans = runs or [], plan or []
    if not found and not plans:
        raise UsageError("report of what? Give the output file of a run, or --plan FILE")
    names = _names([*found, *plans])
    subjects: list[Subject] = []
    for path, name in zip(found, names, strict=False):
        like = subjects[0] if subjects else None
        subjects.append(run_subject(path, name, answers=answers, like=like, price=price))
    for path, name in zip(plans, names[len(found) :], strict=True):
        subjects.append(plan_subject(read_plan(path), name, texts=answers))
    own = tuple(each for path in (*found, *plans) for each in (path, StateFolder(path.resolve()).output))
    target = Target(output, "-o", own, is_page, overwrite)
    target.check()
    if output.suffix in (".jsonl", ".npz", ".json"):
        raise UsageError(f"the page would replace {output}; give a name that ends in .html with -o")
    replaced = "; it replaced the file that was there" if target.file and output.exists() else ""
    make_page(subjects, target)
    sys.stderr.write(f"blendrun: wrote {output} ({output.stat().st_size / 1e6:.1f} MB){replaced}\n")


def _names(paths: list[Path]) -> list[str]:
    """File names, with as many of their folders as tell them apart."""
    from blendrun.store.folder import path_text

    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            break
    return [path_text(name.removesuffix(".blendrun")) for name in names]
