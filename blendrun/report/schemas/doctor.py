"""`blendrun doctor --json`: a versioned schema (docs/schemas/doctor.json), made of these classes."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. state: ok; missing: something less can be done without it; bad: nothing can run.

    fix: a command or a sentence that makes it ok; empty where nothing need be done.
    """

    name: str
    state: str
    found: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Checkup:
    """can_run: whether `blendrun run` can answer requests here; can_plan: whether jobs can be planned."""

    schema_version: int
    blendrun: str
    can_run: bool
    can_plan: bool
    checks: tuple[Check, ...]


def doctor_json(found: Checkup) -> bytes:
    """One line of JSON."""
    return msgspec.json.encode(found)


def doctor_schema() -> bytes:
    """The JSON Schema of `doctor_json`'s output."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(Checkup)), indent=2)
