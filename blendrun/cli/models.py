"""`blendrun models`: what `--model` knows by a short name."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def models(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object (docs/schemas/models.json).")] = False,
) -> None:
    """List the models that --model knows by a short name.

    With hub id, context, size, licence, and whether this machine has it. Asks no network.
    """
    from blendrun.models.cards import list_aliases, load_card
    from blendrun.models.here import found_here
    from blendrun.report.schemas.look_up import known_model, models_json
    from blendrun.report.terminal.look_up import print_models

    found = []
    for card in map(load_card, list_aliases()):
        here = found_here(card)
        found.append(known_model(card, None if here is None else str(here)))
    if json:
        sys.stdout.write(models_json(found).decode() + "\n")
    else:
        print_models(found, sys.stdout)
