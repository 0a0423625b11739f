"""How a batch ends: its answers in files of its own, its counts, its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from blendrun.service.joined import Part, divide, expire, ids_in
from blendrun.service.objects import ENDED, BatchError, BatchErrors, BatchObject, BatchStatus, now
from blendrun.service.store import Store


def end_of(batch: BatchObject) -> BatchStatus | None:
    """How a batch ends that is to end now, whatever it has."""
    if batch.status == "cancelling":
        return "cancelled"
    return "expired" if batch.status == "in_progress" and now() >= batch.expires_at else None


def fail(store: Store, batch: BatchObject, errors: list[BatchError]) -> None:
    """End a batch that no answer can be given to."""

    def end(each: BatchObject) -> None:
        if each.status in ENDED:
            return
        if each.status == "cancelling":
            each.turn("cancelled")
            return
        each.errors = BatchErrors(data=errors)
        each.turn("failed")

    store.change(batch, end)


def hand_out(
    store: Store, batches: dict[int, BatchObject], lines: Iterable[bytes], ends: Mapping[int, BatchStatus]
) -> None:
    """Write the files of some batches, and end them."""
    folder = store.folder / "runs"
    targets = {place: (folder / f"{each.id}.output", folder / f"{each.id}.errors") for place, each in batches.items()}
    parts = divide(lines, targets, {place: each.endpoint for place, each in batches.items()})
    for place, batch in batches.items():
        output, errors = targets[place]
        part = parts[place]
        if ends[place] == "expired" and (file := store.files.get(batch.input_file_id)) is not None:
            part.counts.failed += expire(store.content(file), ids_in(output, errors), errors)
        _end(store, batch, part, output, errors, ends[place])


def _end(store: Store, batch: BatchObject, part: Part, output: Path, errors: Path, status: BatchStatus) -> None:
    names = {}
    for kind, path in (("output", output), ("error", errors)):
        if path.stat().st_size:
            # The same name if a kill has this done again.
            name = f"file-{batch.id.removeprefix('batch_')}-{kind}"
            with store.new_file(
                batch.owner, f"{batch.id}_{kind}.jsonl", "batch_output", name, batch.output_expires_after
            ) as found:
                file, content = found
                path.replace(content)
            names[kind] = file.id
        else:
            path.unlink()
    usage = part.usage

    def end(each: BatchObject) -> None:
        each.output_file_id, each.error_file_id = names.get("output"), names.get("error")
        part.counts.total = each.request_counts.total
        each.request_counts = part.counts
        each.usage = {
            "input_tokens": usage["input"],
            "input_tokens_details": {"cached_tokens": usage["cached"]},
            "output_tokens": usage["output"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["input"] + usage["output"],
        }
        each.turn(status)

    store.change(batch, end)
