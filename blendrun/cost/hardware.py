"""Hardware cards from files, and the machine that a plan runs on."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from blendrun.cost.base import Figure, HardwareCard, Machine, StepFigures
from blendrun.errors import InputMissingError, UsageError
from blendrun.models.configs_folder import configs_folder

Rates = Literal["achieved", "peak"]

# The card to plan with where a device has none: an order depends on proportions more than on rates
# (docs/paper.md#the-step-budget).
STAND_IN = "h100-sxm"

# Figures that a card may leave out, and the least that each may be.
_OPTIONAL = {"mixed_attention": 0.0, "host_bandwidth": 1.0}
_FIGURES = ("memory", "peak_flops", "peak_bandwidth", "achieved_flops", "achieved_bandwidth")
# What people say who mean the most common one.
_FAMILIES = {"h100": "h100-sxm", "h100-80g": "h100-sxm", "4090": "rtx-4090", "mi300": "mi300x"}
# More than any job was ever given.
_MOST_DEVICES = 65_536


def user_hardware_folder() -> Path:
    """Where a user's own cards lie: $XDG_CONFIG_HOME/blendrun/hardware or ~/.config/blendrun/hardware."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "blendrun" / "hardware"


def list_hardware() -> list[str]:
    """Every name that `load_hardware` takes, sorted: the shipped cards and the user's own."""
    return sorted(hardware_files())


def hardware_files() -> dict[str, Path]:
    """Name of a card to its file; the user's folder comes last and so wins."""
    folders = (configs_folder("hardware"), user_hardware_folder())
    return {path.stem: path for folder in folders for path in folder.glob("*.yaml")}


def load_hardware(name: str) -> HardwareCard:
    """The card of a name, or of a YAML file given by its path. A card in the user's own folder wins over a shipped one.
    Capitals do not matter, and `h100` is the one most people have.

    Raises UsageError for an unknown name (naming close ones) and for a card with a wrong key or value (naming the
    file and the key), InputMissingError for a path that is not there.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        if not Path(name).is_file():
            raise InputMissingError(f"no hardware card at {name}; known names: {', '.join(list_hardware())}")
        return _read(Path(name))
    cards = hardware_files()
    found = name if name in cards else _meant(name, cards)
    if found is None:
        raise UsageError(f"no hardware is called {name!r}; {_near(name, sorted(cards))}")
    return _read(cards[found])


def match_hardware(device: str) -> str | None:
    """The name of the card that a device's name matches (`HardwareCard.matches`); None without one.

    A user's own card wins over a shipped one. A card that cannot be read matches nothing; `load_hardware` says why.
    """
    for name, path in reversed(hardware_files().items()):
        with contextlib.suppress(UsageError):
            if any(re.fullmatch(pattern, device) for pattern in _read(path).matches):
                return name
    return None


def machine(card: HardwareCard, gpus: int = 1, rates: Rates = "achieved") -> Machine:
    """`gpus` equal devices as one: rates and memory summed.

    rates: "achieved" for times, "peak" for densities as the paper has them (docs/paper.md#peak-and-achieved-rates).
    Raises UsageError for fewer than one device or more than anybody has, and for several where the card is a CPU.
    """
    if not 1 <= gpus <= _MOST_DEVICES:
        raise UsageError(f"{gpus} GPUs cannot run a job: ask for 1 to {_MOST_DEVICES:,}")
    if card.kind == "cpu" and gpus > 1:
        raise UsageError(f"{card.name} is a CPU and counts as one device: leave the number of GPUs out")
    flops, bandwidth = card.achieved_flops, card.achieved_bandwidth
    if rates == "peak":
        flops, bandwidth = card.peak_flops, card.peak_bandwidth
    return Machine(
        card=card,
        gpus=gpus,
        flops=gpus * flops.value,
        bandwidth=gpus * bandwidth.value,
        memory=gpus * card.memory.value,
        value_bytes=card.value_bytes,
    )


def _meant(name: str, cards: Iterable[str]) -> str | None:
    """The card of a name in other letters, or of a family's short name (`_FAMILIES`)."""
    plain = name.lower().replace("_", "-").replace(" ", "-")
    plain = _FAMILIES.get(plain, plain)
    return next((known for known in cards if known.lower() == plain), None)


def _near(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    listed = f"known names: {', '.join(known)} (`blendrun hardware` says more)"
    return f"{meant}{listed}; or give the path of a card (a .yaml file)"


def _read(path: Path) -> HardwareCard:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read as YAML ({error})") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path}: must be a table of keys")
    if data.setdefault("name", path.stem) != path.stem:
        raise UsageError(f"{path}: key `name` must be the file's name, {path.stem!r}")
    _refuse_unknown_keys(data, path)
    try:
        # Not strict, because YAML reads 3.12e14 (no sign in the exponent) as text.
        card = msgspec.convert(data, HardwareCard, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}") from error
    _refuse_impossible(card, path)
    return card


def _refuse_unknown_keys(data: dict[Any, Any], path: Path) -> None:
    blocks = [("", data, HardwareCard), *((f"{key}.", data.get(key), Figure) for key in (*_FIGURES, *_OPTIONAL))]
    blocks.append(("step.", data.get("step"), StepFigures))
    for prefix, block, cls in blocks:
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = [key for key in block if key not in known] if isinstance(block, dict) else []
        if unknown:
            raise UsageError(f"{path}: unknown key `{prefix}{unknown[0]}`; known here: {', '.join(known)}")


def _refuse_impossible(card: HardwareCard, path: Path) -> None:
    for key in _FIGURES:
        figure: Figure = getattr(card, key)
        if not (math.isfinite(figure.value) and figure.value > 0):
            raise UsageError(f"{path}: `{key}.value` must be a positive number, not {figure.value:g}")
        if not figure.source.strip():
            raise UsageError(f"{path}: `{key}.source` must say where the number is from")
    for key, least in _OPTIONAL.items():
        told: Figure | None = getattr(card, key)
        if told is not None and not (math.isfinite(told.value) and told.value >= least and told.source.strip()):
            raise UsageError(f"{path}: `{key}` must be {least:g} or more and say where it is from")
    for field in dataclasses.fields(StepFigures) if card.step is not None else ():
        value = getattr(card.step, field.name)
        if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{path}: `step.{field.name}` must be a number of 0 or more, not {value:g}")
    if card.value_bytes not in (1, 2, 4):
        raise UsageError(f"{path}: `value_bytes` must be 1, 2 or 4, not {card.value_bytes}")
    for pattern in card.matches:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UsageError(f"{path}: `matches`: {pattern!r} is no regular expression: {error}") from error
    # A rate above the peak is nearly always a slip of a unit, and would bend every time that is predicted.
    for rate in ("flops", "bandwidth"):
        achieved, peak = getattr(card, f"achieved_{rate}").value, getattr(card, f"peak_{rate}").value
        if achieved > peak:
            raise UsageError(f"{path}: `achieved_{rate}.value` {achieved:g} is above `peak_{rate}.value` {peak:g}")
