"""Write the JSON Schemas of what blendrun prints: scripts/make_schemas.py docs/schemas (--check: only compare)"""

from __future__ import annotations

import sys
from pathlib import Path

from blendrun.report.schemas.bench import bench_schema
from blendrun.report.schemas.doctor import doctor_schema
from blendrun.report.schemas.live import live_schema
from blendrun.report.schemas.look_up import hardware_schema, models_schema
from blendrun.report.schemas.plan import plan_schema
from blendrun.report.schemas.synth import synth_schema
from blendrun.report.schemas.tunnel import tunnel_schema
from blendrun.store.records import record_schema
from blendrun.store.status import status_schema
from blendrun.store.summary import summary_schema

SCHEMAS = {
    "plan.json": plan_schema,
    "bench-simulate.json": bench_schema,
    "synth.json": synth_schema,
    "bench-live.json": live_schema,
    "bench-tunnel.json": tunnel_schema,
    "status.json": status_schema,
    "summary.json": summary_schema,
    "record.json": record_schema,
    "doctor.json": doctor_schema,
    "models.json": models_schema,
    "hardware.json": hardware_schema,
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
