"""Pipelines of Ray Data, on the cluster RAY_ADDRESS: `python -m tests.cluster.pipelines JOBS ENGINE_MODEL FOLDER`.

One after the other in one driver, each into a file of its name.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import orjson
import ray

from blendrun.ray_data import Answers, blend
from tests.cluster.ray_nodes import MODEL


def as_bodies(lines: Any) -> Any:
    """Bodies of chat requests, with a column that is no part of them."""
    return lines.map(lambda line: {"mine": line["custom_id"], "text": line["body"]["messages"][0]["content"]})


def to_request(row: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": row["text"]}], "max_tokens": 8, "temperature": 0}


def blended(lines: Any, engine_model: str) -> Any:
    return blend(lines, model=MODEL)


def parts(lines: Any, engine_model: str) -> Any:
    return blend(lines, model=MODEL, parts=3)


def answered(lines: Any, engine_model: str) -> Any:
    stage = {"model": engine_model, "to_request": to_request, "device": "cpu", "threads": 1}
    stage["engine_args"] = {"max_running_requests": 4, "max_total_tokens": 4096}
    rows = blend(as_bodies(lines), model=MODEL, to_request=to_request)
    return rows.map_batches(Answers, fn_constructor_kwargs=stage, batch_size=16, concurrency=1, num_cpus=1)


def main() -> None:
    jobs, engine_model, folder = sys.argv[1:]
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    lines = ray.data.from_items(
        [orjson.loads(line) for line in Path(jobs).read_bytes().splitlines()], override_num_blocks=2
    )
    for pipeline in (blended, parts, answered):
        rows = pipeline(lines, engine_model).iter_rows()
        Path(folder, pipeline.__name__).write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


if __name__ == "__main__":
    main()
