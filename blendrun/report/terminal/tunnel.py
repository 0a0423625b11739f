"""What `bench tunnel` found, for people."""

from __future__ import annotations

from typing import TextIO

from rich.console import RenderableType
from rich.table import Table

from blendrun.report.schemas.tunnel import TunnelCard, TunnelReport, TunnelRow
from blendrun.report.terminal.console import print_parts

# Parts of a step that are not hooks.
_NOT_HOOKS = ("scheduler", "model")


def print_tunnel(report: TunnelReport, stream: TextIO) -> None:
    """A table a card; what is real and what is priced stands below."""
    lines: list[RenderableType] = [f"{report.job} · {report.requests:,} requests · {report.model}"]
    for card in report.cards:
        figures = "step times fitted" if card.calibrated else "not calibrated: step times by the card's rates"
        lines += [
            f"{card.hardware} · KV pool of {card.kv_tokens:,} tokens · the plan chooses {card.chosen} · {figures}",
            _table(card),
        ]
    lines.append(
        "Real: the feeder, the hooks, SGLang's own scheduler, radix cache and KV allocator "
        f"(SGLang {report.versions.get('sglang', 'unknown')}), on this machine's CPU.\n"
        "Priced: what each of its steps would take on the card, by the step model; nothing was computed.\n"
        "to plan: more or less than the simulator promised, of what stands before it. planned: hits that it promised.\n"
        "back: requests retracted for lack of room. rows, most: answers that decode, on the mean and at most.\n"
        "as it comes: SGLang without blendrun, in the file's order. x SGLang: times as fast as that.\n"
        "x simple: times as fast as the fastest simple order on the same mode with the hooks.\n"
        "CPU ms, hooks ms: a step of the scheduler's thread on this machine, SGLang's own and the hooks'."
    )
    print_parts(lines, stream)


def _table(card: TunnelCard) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("order", no_wrap=True)
    titles = ("seconds", "to plan", "steps", "to plan", "hits", "planned", "back", "rows", "most")
    for title in (*titles, "x SGLang", "x simple", "CPU ms", "hooks ms"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in card.rows:
        name = f"{row.order}, {row.overlap}" if row.engine == "blendrun" else f"{row.order}, as it comes"
        table.add_row(name, *_figures(row))
    return table


def _figures(row: TunnelRow) -> list[str]:
    hooks = sum(spent for part, spent in row.cpu_ms.items() if part not in _NOT_HOOKS)
    return [
        f"{row.seconds:,.1f}",
        _off(row.of_plan),
        f"{row.steps:,}",
        _off(row.steps / max(row.planned_steps, 1)),
        f"{row.hits:.1%}",
        f"{row.planned_hits:.1%}",
        f"{row.retractions:,}",
        f"{row.rows:,.0f}",
        f"{row.peak_rows:,}",
        f"{row.over_sglang:.2f}",
        "-" if row.over_best_simple is None else f"{row.over_best_simple:.2f}",
        f"{row.cpu_ms.get('scheduler', 0.0):.2f}",
        f"{hooks:.2f}",
    ]


def _off(ratio: float) -> str:
    """More or less than 1, without a zero that has a sign of its own."""
    return f"{round(ratio - 1, 4) + 0.0:+.1%}"
