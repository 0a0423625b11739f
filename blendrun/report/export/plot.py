"""A simulated grid as a picture: a heat map of what the blend gains, or bars where there is one workload."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from blendrun.errors import UsageError
from blendrun.installed import install_command
from blendrun.names import OrderName
from blendrun.remote.address import local_paths
from blendrun.report.schemas.bench import BenchReport, CellRow
from blendrun.store.guard import Target, head_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

SUFFIXES = (".png", ".svg")
# Who made a picture stands in it, as each format has it. Text without a date: the same numbers give the same file.
_NAME = "blendrun bench"
_METADATA: dict[str, dict[str, str | None]] = {"png": {"Software": _NAME}, "svg": {"Creator": _NAME, "Date": None}}
# Orders keep their colours whichever of them are shown: told apart without red and green (Okabe and Ito's palette). One
# that is beyond the palette takes what Matplotlib gives.
_PALETTE = ("#999999", "#56B4E9", "#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#F0E442")
_COLOURS = dict(zip(map(str, OrderName), _PALETTE, strict=False))
_MODES = {
    "exclusive": "exclusive: a step is prefill or decode",
    "mixed": "mixed: both in one step",
    "pdmux": "pdmux: both at the same time",
}
_Rows = dict[tuple[float | None, float], CellRow]


@dataclass(frozen=True, slots=True)
class _Compared:
    """What the blend is held against, and how much faster it is: 0.1 is 10 %."""

    name: str
    gain: Callable[[CellRow], float | None]


_COMPARED = (
    _Compared("over the best other order", lambda row: row.gain),
    _Compared("over file order", lambda row: row.over_given),
)
# %: differences that are none, and the least at which a colour is full.
_ALIKE, _PALE = 1.0, 5.0
# More cells in a row than this leave no room for numbers in them.
_WRITTEN = 16
# Inches of maps side by side.
_PAGE = 11.0


def picture(path: Path, jobs: Iterable[str] = (), *, overwrite: bool = False) -> Target:
    """Before any work: what `--plot` names, if it may be written.

    Raises UsageError where the picture would replace a job, its format is unknown, or matplotlib is not installed;
    OutputUnavailableError where a file is there that is no picture of this command, unless `overwrite`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot {path}: the name must end in {' or '.join(SUFFIXES)}")
    if find_spec("matplotlib") is None:
        raise UsageError(f"--plot needs matplotlib: {install_command('plot')}")
    target = Target(path, "--plot", local_paths(jobs), _is_picture, overwrite)
    target.check()
    return target


def draw(figure: Figure, target: Target) -> None:
    """Write a figure, and in it that it is from here. Raises OutputUnavailableError."""
    kind = target.path.suffix.lower().removeprefix(".")
    content = BytesIO()
    figure.savefig(content, dpi=150, format=kind, metadata=_METADATA[kind])
    target.write(content.getvalue())


def _is_picture(path: Path) -> bool:
    return _NAME.encode() in head_of(path)


def plot_bench(report: BenchReport, target: Target) -> None:
    """Write the picture. A grid needs the blended order and another one.

    Raises UsageError where there is nothing to compare, OutputUnavailableError where it cannot be written.
    """
    from matplotlib import rc_context

    if len(report.gpus) > 1:
        raise UsageError("--plot draws one number of GPUs: give --gpus one")
    one = len({(row.rho, row.sharing) for row in report.cells}) == 1
    # Text of an SVG stays text, and the same numbers give the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "blendrun", "font.size": 10}):
        figure = _bars(report) if one else _heat_maps(report)
        draw(figure, target)


def _where(report: BenchReport) -> str:
    gpus = f"{report.gpus[0]} x " if report.gpus[0] > 1 else ""
    return f"{report.model} on {gpus}{report.hardware}, {report.cells[0].requests:,} requests ({report.workload})"


def _bars(report: BenchReport) -> Figure:
    """Seconds of each order, grouped by overlap mode, with the bound."""
    from matplotlib.figure import Figure

    rows = report.cells
    orders = list(rows[0].seconds)
    figure = Figure(figsize=(max(6.5, 2.8 * len(rows) + 2), 4.8), layout="constrained")
    axes = figure.subplots()
    scale, unit = _unit(max(max(row.seconds.values()) for row in rows))
    width = 0.8 / len(orders)
    for number, order in enumerate(orders):
        places = [place + (number - (len(orders) - 1) / 2) * width for place in range(len(rows))]
        heights = [row.seconds[order] / scale for row in rows]
        bars = axes.bar(places, heights, width * 0.92, label=order, color=_COLOURS.get(order))
        axes.bar_label(bars, fmt=_written, fontsize=7, padding=2)
    first, least = rows[0], min(row.practical_seconds for row in rows)
    axes.axhline(least / scale, color="black", linewidth=1.2, linestyle="--", label="at least")
    axes.set_xticks(range(len(rows)), [_MODES.get(row.overlap, row.overlap).replace(": ", "\n") for row in rows])
    axes.set_ylabel(f"simulated time ({unit})")
    axes.set_ylim(0, 1.08 * max(max(row.seconds.values()) for row in rows) / scale)
    axes.spines[["top", "right"]].set_visible(False)
    rho = "" if first.rho is None else f"rho {first.rho:.3g}, "
    figure.suptitle(f"Time of each order: {rho}sharing {100 * first.sharing:.3g} %\n{_where(report)}", fontsize=10)
    figure.legend(loc="outside lower center", ncols=len(orders) + 1, frameon=False)
    return figure


def _heat_maps(report: BenchReport) -> Figure:
    """For each comparison a row of maps, one for each overlap mode, sharing over density."""
    from matplotlib.figure import Figure

    shown = [each for each in _COMPARED if any(each.gain(row) is not None for row in report.cells)]
    if not shown:
        raise UsageError("--plot of a grid compares the blend with the other orders: name blended and one more")
    modes = list(dict.fromkeys(row.overlap for row in report.cells))
    rhos = sorted({row.rho for row in report.cells if row.rho is not None})
    sharings = sorted({row.sharing for row in report.cells})
    wide, high = min(max(0.55 * len(rhos), 2.4), 9.0), min(max(0.45 * len(sharings), 1.8), 6.0)
    # Side by side where there is room, so that rows can be compared; else one below the other.
    across = len(modes) if wide * len(modes) <= _PAGE else 1
    down = len(shown) * len(modes) // across
    figure = Figure(figsize=(wide * across + 2.2, (high + 0.75) * down + 0.9), layout="constrained")
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    places = [(compared, mode) for compared in shown for mode in modes]
    bars: dict[str, tuple[AxesImage, list[Axes]]] = {}
    for axes, (compared, mode) in zip(grid.flat, places, strict=True):
        rows = {(row.rho, row.sharing): row for row in report.cells if row.overlap == mode}
        mesh = _heat_map(axes, rows, rhos, sharings, compared, _most(report, compared))
        bars.setdefault(compared.name, (mesh, []))[1].append(axes)
        axes.set_title(f"{compared.name}\n{_MODES.get(mode, mode)}", fontsize=9)
    figure.supylabel("sharing (% of prompt tokens)", fontsize=10)
    figure.supxlabel("density rho (seconds of compute over seconds of memory, at peak rates)", fontsize=10)
    for name, (mesh, beside) in bars.items():
        figure.colorbar(mesh, ax=beside).set_label(f"blended {name}\n(% faster; grey: within {_ALIKE:g} %)")
    figure.suptitle(f"The blend {_range(report, shown)}\n{_where(report)}", fontsize=10)
    return figure


def _range(report: BenchReport, shown: Iterable[_Compared]) -> str:
    """What the maps say, in words."""
    found = []
    for compared in shown:
        gains = [100 * gain for row in report.cells if (gain := compared.gain(row)) is not None]
        low, high = _signed(min(gains)), _signed(max(gains))
        found.append(f"{compared.name}: {low} %" if low == high else f"{compared.name}: {low} to {high} %")
    return "; ".join(found)


def _most(report: BenchReport, compared: _Compared) -> float:
    """Where the colours of all maps of a comparison end, in %: differences of noise stay pale."""
    gains = [abs(gain) for row in report.cells if (gain := compared.gain(row)) is not None]
    return max(_PALE, *(100 * gain for gain in gains))


def _heat_map(
    axes: Axes, rows: _Rows, rhos: list[float], sharings: list[float], compared: _Compared, most: float
) -> AxesImage:
    """most: % at the ends of the colours."""
    from matplotlib.colors import LinearSegmentedColormap

    grey = (most - _ALIKE) / (2 * most), (most + _ALIKE) / (2 * most)
    stops = [(0.0, "#b2182b"), (grey[0], "#fbe3d4"), (grey[0], "#e6e6e6"), (grey[1], "#e6e6e6")]
    stops += [(grey[1], "#dbeaf2"), (1.0, "#2166ac")]
    values = [[_percent(rows.get((rho, sharing)), compared) for rho in rhos] for sharing in sharings]
    colours = LinearSegmentedColormap.from_list("gain", stops)
    mesh = axes.imshow(values, origin="lower", aspect="auto", cmap=colours, vmin=-most, vmax=most)
    axes.set_xticks(range(len(rhos)), [f"{rho:g}" for rho in rhos], rotation=45 if len(rhos) > 8 else 0)
    axes.set_yticks(range(len(sharings)), [f"{100 * sharing:g}" for sharing in sharings])
    axes.set_facecolor("white")
    for line, cells in enumerate(values):
        for column, value in enumerate(cells):
            if len(rhos) <= _WRITTEN:
                colour = "white" if abs(value) > 0.6 * most else "black"
                text = "n/a" if value != value else _signed(value)
                axes.text(column, line, text, ha="center", va="center", fontsize=8, color=colour)
    return mesh


def _signed(value: float) -> str:
    """Without a sign where it rounds to nothing."""
    rounded = round(value, 1)
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}") if rounded else "0.0"


def _percent(row: CellRow | None, compared: _Compared) -> float:
    """NaN, which the map leaves empty, where there is no such cell."""
    gain = None if row is None else compared.gain(row)
    return float("nan") if gain is None else 100 * gain


def _written(height: float) -> str:
    return f"{height:,.0f}" if height >= 100 else f"{height:.3g}"


def _unit(seconds: float) -> tuple[float, str]:
    return (3600.0, "hours") if seconds >= 7200 else (1.0, "seconds")
