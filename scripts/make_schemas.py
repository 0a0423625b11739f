"""Write the JSON Schemas of what blendrun prints: scripts/make_schemas.py docs/schemas (--check: only compare)"""

from __future__ import annotations

import sys
from pathlib import Path

from blendrun.report.bench_json import bench_schema
from blendrun.report.doctor_text import doctor_schema
from blendrun.report.live_json import live_schema
from blendrun.report.plan_json import plan_schema
from blendrun.report.synth_json import synth_schema
from blendrun.runner.records import record_schema
from blendrun.runner.status import status_schema
from blendrun.runner.summary import summary_schema

SCHEMAS = {
    "plan.json": plan_schema,
    "bench-simulate.json": bench_schema,
    "synth.json": synth_schema,
    "bench-live.json": live_schema,
    "status.json": status_schema,
    "summary.json": summary_schema,
    "record.json": record_schema,
    "doctor.json": doctor_schema,
}


def main() -> None:
    folder = Path(sys.argv[1])
    for name, make in SCHEMAS.items():
        path, content = folder / name, make() + b"\n"
        if "--check" not in sys.argv:
            path.write_bytes(content)
        elif not path.exists() or path.read_bytes() != content:
            sys.exit(f"{path} is not what the code says: run make docs")


if __name__ == "__main__":
    main()
