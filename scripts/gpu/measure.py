"""The rounds of rounds.py, in the order in which they say most."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from model import write_model

_MAIN = ("-c", "from blendrun.cli import main; main()")
# Short lists of graphs: each costs a second of an engine's start.
_GRAPHS = (
    "cuda_graph_bs_decode=[1,8,32,64,96,128,160,192,224,256,288,320]",
    "cuda_graph_bs_prefill=[64,128,256,384,512,1024,2048,4096,8192]",
)
_POOL, _ROWS = 100_000, 320
_PROGRESS = re.compile(r"max_total_num_tokens=(\d+)|max_running_requests=(\d+)")
_BAD = re.compile(r"did not take|Traceback|CUDA error|out of memory", re.IGNORECASE)


class Diary(Protocol):
    """As of rounds.py."""

    logs: Path

    @property
    def left(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Round:
    """seconds: what it takes at most by all that is known; fewer left, and it is skipped."""

    name: str
    part: str
    seconds: float
    run: Callable[[Place, Diary], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where rounds run. carried: on what prepare.sh gathered, without SGLang's compiled kernels.

    arguments: of every engine. pool, rows: of the engines that are compared. few: lines of the job that is killed.
    """

    here: Path
    scratch: Path
    rehearse: bool
    carried: bool
    hardware: str | None
    model: Path
    job: Path
    few: Path
    arguments: tuple[str, ...]
    pool: int
    rows: int

    @property
    def device(self) -> str:
        return "cpu" if self.rehearse else "gpu"

    @property
    def patience(self) -> float:
        """Seconds that a short command may take: all there are where none is lent."""
        return float("inf") if self.rehearse else 60.0

    @classmethod
    def of(cls, here: Path, scratch: Path, *, rehearse: bool, hardware: str | None) -> Place:
        """Makes the job, and the model where none was carried."""
        carried = (here / "llama-3-8b").is_dir()
        model = here / "llama-3-8b"
        if rehearse or not carried:
            model = write_model(scratch / "model", small=rehearse, tokenizer=model if carried else None)
        job = scratch / "job.jsonl"
        if carried and not rehearse:
            with gzip.open(here / "job.jsonl.gz") as source, job.open("wb") as target:
                shutil.copyfileobj(source, target)
        else:
            _write_job(here, job, rehearse)
        lines = job.read_bytes().splitlines(keepends=True)
        few = scratch / "few.jsonl"
        few.write_bytes(b"".join(lines[:: max(len(lines) // 64, 1)][:64]))
        arguments = ["load_format=dummy"]
        if carried and not rehearse:
            arguments += ["attention_backend=triton", "sampling_backend=pytorch"]
        pool = 2048 if rehearse else _POOL if carried else min(_POOL, _pool_of(model, hardware))
        rows = 16 if rehearse else _ROWS
        return cls(here, scratch, rehearse, carried, hardware, model, job, few, tuple(arguments), pool, rows)

    def blendrun(self, *words: str) -> list[str]:
        return [sys.executable, *_MAIN, *words]

    def engine(self, *more: str) -> list[str]:
        """--engine-arg and what belongs to it."""
        return [word for argument in (*self.arguments, *more) for word in ("--engine-arg", argument)]


def rounds_of(place: Place) -> list[Round]:
    """All of them; pdmux only where SGLang's own kernels are."""
    quick = 6.0 if place.rehearse else 1.0
    rounds = [
        Round("machine", "first", 5, machine),
        Round("products", "first", 20 / quick, products),
        Round("run", "first", 100 / quick, killed_and_resumed),
        Round("calibrate", "first", 80 / quick, calibrate),
        Round("predict", "first", 10 / quick, predict),
        Round("stock-exclusive", "second", 125 / quick, live("given,sorted", "exclusive")),
        Round("ours-exclusive", "second", 85 / quick, live("blended", "exclusive")),
        Round("stock-mixed", "second", 90 / quick, live("sorted", "mixed")),
        Round("ours-mixed", "second", 110 / quick, live("blended", "mixed", repeat=2)),
    ]
    if not place.carried and not place.rehearse and find_spec("sgl_kernel") is not None:
        rounds.append(Round("ours-pdmux", "second", 120, live("blended", "pdmux")))
    return rounds


def machine(place: Place, diary: Diary) -> dict[str, Any]:
    """What this is."""
    import blendrun.version
    from blendrun.engine.settings import runtime_versions

    said = ""
    if not place.rehearse:
        query = "name,memory.total,driver_version,clocks.max.sm"
        said = _run(place, diary, "nvidia-smi", ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], 20)
    return {
        "gpu": said.strip(),
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "versions": {"blendrun": blendrun.version.__version__, **runtime_versions()},
        "attention": "triton, decode rows of mixed steps by the decode kernel" if place.carried else "SGLang's choice",
        "radix tree": "Python, for SGLang as it comes too" if place.carried else "SGLang's choice",
    }


def products(place: Place, diary: Diary) -> dict[str, Any]:
    words = [sys.executable, str(place.here / "products.py"), *(["--small"] if place.rehearse else [])]
    return dict(json.loads(_run(place, diary, "products", words, place.patience).splitlines()[-1]))


def killed_and_resumed(place: Place, diary: Diary) -> dict[str, Any]:
    """64 requests, SIGKILL at half, the same command again. The engine has its own pool and number of rows."""
    out = diary.logs / "few.answers.jsonl"
    words = place.blendrun(
        "run", str(place.few), "--model", str(place.model), "-o", str(out), "--device", place.device,
        "--order", "blended", "--overlap", "exclusive", *_hardware(place), *place.engine(),
    )  # fmt: skip
    journal = out.with_name(f"{out.name}.blendrun") / "journal"
    lines = len(place.few.read_bytes().splitlines())
    answered = _killed_at(place, diary, words, journal, lines // 2)
    load = _run(place, diary, "resumed", words, diary.left, also=True)
    summary = json.loads((journal.parent / "summary.json").read_bytes())
    engine_log = (journal.parent / "engine.log").read_text(errors="replace")
    asked = [json.loads(line)["custom_id"] for line in place.few.read_bytes().splitlines()]
    given = [json.loads(line)["custom_id"] for line in out.read_bytes().splitlines()]
    sizes = _PROGRESS.findall(engine_log)
    return {
        "lines": lines,
        "answered when killed": answered,
        "each line once and in order": given == asked,
        "counts": summary["counts"],
        "kv_tokens": max((int(tokens) for tokens, _ in sizes if tokens), default=None),
        "max_running": max((int(rows) for _, rows in sizes if rows), default=None),
        "pool planned": json.loads((journal.parent / "plan.json").read_bytes())["hardware"]["pool_tokens"],
        "seconds": summary["seconds"],
        "tokens": summary["tokens"],
        "notes": summary["notes"],
        "warnings": sorted({line for line in load.splitlines() if "warning" in line or _BAD.search(line)})[:10],
    }


def calibrate(place: Place, diary: Diary) -> dict[str, Any]:
    """Constants of a step, which the plans of later rounds go by: poor ones too, `fit_error` says how poor."""
    card = diary.logs / "this-machine.yaml"
    words = place.blendrun(
        "calibrate", "--quick", "--keep", "--model", str(place.model), "--device", place.device, "-o", str(card),
        "--json", *place.engine(*([] if place.rehearse else _GRAPHS)),
    )  # fmt: skip
    found = json.loads(_run(place, diary, "calibrate", words, diary.left))
    shutil.copy(card, _calibrated(place))
    return {"calibration": found}


def predict(place: Place, diary: Diary) -> dict[str, Any]:
    """By the card as shipped, and as just measured."""
    from blendrun.cost.detect import detect_hardware

    shipped = place.hardware or detect_hardware("cpu" if place.rehearse else "gpu")
    names = {"card": shipped, "calibrated": str(_calibrated(place))}
    found = {}
    for name, hardware in names.items():
        if name == "calibrated" and not _calibrated(place).exists():
            continue
        words = [
            sys.executable, str(place.here / "predicted.py"), str(place.job), "--model", str(place.model),
            "--hardware", hardware, "--kv-tokens", str(place.pool), "--max-running", str(place.rows),
        ]  # fmt: skip
        found[name] = json.loads(_run(place, diary, f"predict-{name}", words, place.patience))
    return {"predicted": found}


def live(orders: str, overlap: str, repeat: int = 1) -> Callable[[Place, Diary], dict[str, Any]]:
    """`bench live` of some orders on one engine."""

    def run(place: Place, diary: Diary) -> dict[str, Any]:
        name = f"{orders.replace(',', '-')}-{overlap}"
        card = _calibrated(place)
        words = place.blendrun(
            "bench", "live", str(place.job), "--model", str(place.model), "--orders", orders, "--overlap", overlap,
            "--repeat", str(repeat), "--kv-tokens", str(place.pool), "--device", place.device, "--json",
            "--keep", str(diary.logs / name), "--overwrite",
            *(["--hardware", str(card)] if card.exists() else _hardware(place)),
            *place.engine(f"max_running_requests={place.rows}", *([] if place.rehearse else _GRAPHS)),
        )  # fmt: skip
        mixed_rows = {"BLENDRUN_MIXED_ROWS": "1"} if place.carried and overlap == "mixed" else {}
        return {"live": json.loads(_run(place, diary, name, words, diary.left, mixed_rows))}

    return run


def summary(rows: list[dict[str, Any]]) -> str:
    """A few lines for the eye; read.py has the tables."""
    lines = []
    for row in rows:
        lines.append(f"{row['round']:16} {row['status']:8} {row.get('took', 0):6} s  {row.get('why', '')}".rstrip())
        for each in row.get("live", {}).get("rows", ()):
            lines.append(
                f"  {each['order']:>8} {each['overlap']:>9} {each['median']:8.2f} s  {each['hit_rate']:6.1%} cached"
            )
    return "\n".join(lines) + "\n"


def _hardware(place: Place) -> list[str]:
    return ["--hardware", place.hardware] if place.hardware else []


def _calibrated(place: Place) -> Path:
    """Kept beside the unpacked packages, for the second call on the same machine."""
    folder = (
        place.scratch if place.rehearse or not place.carried else Path(os.environ["PYTHONPATH"].split(os.pathsep)[0])
    )
    return folder / "this-machine.yaml"


def _pool_of(model: Path, hardware: str | None) -> int:
    """Most of what this card has room for."""
    from predicted import pool_of

    from blendrun.cost.detect import detect_hardware

    return int(0.9 * pool_of(str(model), hardware or detect_hardware("gpu")))


def _write_job(here: Path, path: Path, rehearse: bool) -> None:
    """The job of scripts/bench/contrast.py; in a rehearsal few and short requests of the same kinds."""
    sys.path.append(str(here.parent / "bench"))
    import contrast

    name = "rehearsal" if rehearse else "h200-small-pool"
    path.write_text("".join(json.dumps(line) + "\n" for line in contrast.lines_of(name)))


def _killed_at(place: Place, diary: Diary, words: list[str], journal: Path, answers: int) -> int:
    """Starts a command and kills it, and what it started, once so many answers are in the journal."""
    found = 0
    with (diary.logs / "killed.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + diary.left
        while process.poll() is None and time.monotonic() < until:
            found = journal.read_bytes().count(b"\n") - 1 if journal.exists() else 0
            if found >= answers:
                break
            time.sleep(0.01)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return found


def _run(
    place: Place,
    diary: Diary,
    name: str,
    words: list[str],
    seconds: float,
    environment: dict[str, str] | None = None,
    *,
    also: bool = False,
) -> str:
    """What a command prints; its messages go to a log. also: those too. Raises RuntimeError, with the log's end."""
    log = diary.logs / f"{name}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=errors, cwd=place.scratch, start_new_session=True,
            env=os.environ | (environment or {}),
        )  # fmt: skip
        try:
            printed, _ = process.communicate(timeout=max(min(seconds, diary.left), 1))
        except subprocess.TimeoutExpired:
            printed = b""
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    said = log.read_text(errors="replace")
    (diary.logs / f"{name}.out").write_bytes(printed)
    if process.returncode:
        raise RuntimeError(f"{name} ended with {process.returncode}: {said[-1500:]}")
    return printed.decode() + (said if also else "")
