"""The lists of `blendrun models` and `blendrun hardware`: plain columns of at most 80 characters, for eyes and grep."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TextIO

from blendrun.report.schemas.look_up import KnownCard, KnownModel
from blendrun.text import printable

_WIDTH = 79


def print_models(models: Sequence[KnownModel], stream: TextIO) -> None:
    """A row per alias, then who may use which."""
    rows = [
        (
            each.alias,
            f"{each.context_length:,}",
            f"{each.gigabytes:,.1f}",
            "yes" if each.here else "-",
            each.hub_id or "",
        )
        for each in models
    ]
    _print_columns(("alias", "context", "GB", "here", "hub id"), rows, right={1, 2}, stream=stream)
    stream.write("\ncontext: tokens of prompt and answer. GB: of the weights. here: on this machine.\n")
    stream.write("\nLicences (those with terms of their own are often gated: set HF_TOKEN):\n")
    licences: dict[str, list[str]] = {}
    for each in models:
        licences.setdefault(each.license, []).append(each.alias)
    for name, aliases in sorted(licences.items(), key=lambda item: (-len(item[1]), item[0])):
        listed = textwrap.fill(f"{name}: {', '.join(aliases)}", _WIDTH, initial_indent="  ", subsequent_indent="    ")
        stream.write(f"{printable(listed, lines=True)}\n")
    stream.write("\nOther models: --model also takes a hub id (owner/name), a folder, a GGUF file.\n")


def print_cards(cards: Sequence[KnownCard], stream: TextIO) -> None:
    """A row per card, then what the columns mean."""
    rows = [
        (
            f"{each.name}{' *' if each.own else ''}",
            f"{each.memory.value / 1e9:,.0f}",
            *(f"{rate.value / 1e12:,.4g}" for rate in (each.peak_flops, each.achieved_flops)),
            each.achieved_flops.origin,
            *(f"{rate.value / 1e12:,.3g}" for rate in (each.peak_bandwidth, each.achieved_bandwidth)),
            each.achieved_bandwidth.origin,
        )
        for each in cards
    ]
    heads = ("card", "GB", "TFLOP/s", "reached", "(from)", "TB/s", "reached", "(from)")
    _print_columns(heads, rows, right={1, 2, 3, 5, 6}, stream=stream)
    stream.write(
        "\nTFLOP/s: dense 16-bit matrix products (float32 on a CPU). TB/s: device memory.\n"
        "First by the data sheet, then what is reached, and whether that was measured (by\n"
        "others; --json has each source) or is a prior, a share of the data sheet's.\n"
    )
    if any(each.own for each in cards):
        stream.write("* what plans take on this machine where --hardware names none.\n")
    stream.write("A card of your own: blendrun calibrate, or a YAML file (docs/hardware.md).\n")


def _print_columns(heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: set[int], stream: TextIO) -> None:
    """right: columns of numbers. No line ends in blanks."""
    lines = [heads, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(heads))]
    for line in lines:
        cells = [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        stream.write(f"{printable('  '.join(cells).rstrip())}\n")
