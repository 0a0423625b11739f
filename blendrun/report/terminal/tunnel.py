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
        figures = "step times fitted to this model" if card.calibrated else "not calibrated: step times by the card's rates"
        lines += [
            f"{card.hardware} · KV pool of {card.kv_tokens:,} tokens · the plan chooses {card.chosen} · {figures}",
            _table(card),
        ]
    lines.append(
        "Real: the feeder, the hooks, SGLang's own scheduler, radix cache and KV allocator "
        f"(SGLang {report.versions.get('sglang', 'unknown')}), on this machine's CPU.\n"
        "Priced: what each of its steps would take on the card, by the step model; nothing was computed.\n"
        "to plan: more or less than the simulator promised, of what stands before it. planned: hits that it promised.\n"
        "back: requests sent back for want of room. rows, most: answers that decode, on the mean and at most.\n"
        "x SGLang: times as fast as SGLang as it comes. x simple: as the fastest simple order on this mode, with our hooks.\n"
        "CPU ms, hooks ms: a step of the scheduler's thread on this machine, SGLang's own and the hooks'."
    )
    print_parts(lines, stream)


def _table(card: TunnelCard) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("order", "overlap", "engine"):
        table.add_column(title)
    titles = ("seconds", "to plan", "steps", "to plan", "hits", "planned", "back", "rows", "most")
    for title in (*titles, "x SGLang", "x simple", "CPU ms", "hooks ms"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in card.rows:
        table.add_row(row.order, row.overlap, row.engine, *_figures(row))
    return table


def _figures(row: TunnelRow) -> list[str]:
    hooks = sum(spent for part, spent in row.cpu_ms.items() if part not in _NOT_HOOKS)
    return [
        f"{row.seconds:,.1f}",
        f"{row.of_plan - 1:+.1%}",
        f"{row.steps:,}",
        f"{row.steps / max(row.planned_steps, 1) - 1:+.1%}",
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
