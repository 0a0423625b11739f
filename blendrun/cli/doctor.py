"""`blendrun doctor`: what is here, what can run, what is missing, and the command that fixes it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object (docs/schemas/doctor.json).")] = False,
) -> None:
    """Check this machine: what can run, and how to fix the rest.

    Starts nothing and changes nothing. Exit codes: 0 requests can be run here, 69 they cannot.
    """
    from blendrun.backends.doctor import checkup
    from blendrun.errors import EXIT_OK, EngineUnavailableError
    from blendrun.report.schemas.doctor import doctor_json
    from blendrun.report.terminal.doctor import print_doctor

    found = checkup()
    if json:
        sys.stdout.write(doctor_json(found).decode() + "\n")
    else:
        print_doctor(found, sys.stdout)
    code = EXIT_OK if found.can_run else EngineUnavailableError.exit_code
    if code:
        raise typer.Exit(code)
