"""`blendrun hardware`: the cards that `--hardware` knows."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def hardware(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object (docs/schemas/hardware.json).")] = False,
) -> None:
    """List the hardware cards that --hardware knows.

    With memory, speed, and where each figure is from. Cards of your own are among them.
    """
    from blendrun.cost.detect import own_hardware
    from blendrun.cost.hardware import hardware_files, load_hardware
    from blendrun.errors import BlendrunError
    from blendrun.report.schemas.look_up import hardware_json, known_card
    from blendrun.report.terminal.look_up import print_cards

    try:
        own = own_hardware()
    except BlendrunError as error:
        own = ""
        sys.stderr.write(f"blendrun: {error}\n")
    found = []
    for name, file in sorted(hardware_files().items()):
        try:
            found.append(known_card(load_hardware(name), own=name == own, file=str(file)))
        except BlendrunError as error:
            sys.stderr.write(f"blendrun: {error}\n")
    if json:
        sys.stdout.write(hardware_json(found).decode() + "\n")
    else:
        print_cards(found, sys.stdout)
