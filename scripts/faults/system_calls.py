"""Let each system call of a run fail in turn, and see that it ends as promised and that the next run mends all.

python scripts/faults/system_calls.py
python scripts/faults/system_calls.py --kinds write,rename --scenes run

A library that is preloaded (refuse.c, made with gcc) lets the Nth call of a kind fail on files of the output and its
state: once, or from then on, as on a disk that died. Each time the command must end with 0, 3, 73 or 75 and no
traceback, and the same command without faults must give every line once. Not strace: it knows exact paths only, not
all that lies below a folder, and the names of passing files are new each time.

The commands run in forks of this process, which has imported blendrun. Prints a table; exit code 1 where a promise was
broken.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import errno
import gzip
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

KINDS = {
    "open": (errno.EIO, errno.EMFILE, errno.EACCES, errno.ESTALE, errno.ENOSPC),
    "write": (errno.EIO, errno.ENOSPC, errno.ESTALE),
    "read": (errno.EIO, errno.ESTALE),
    "fsync": (errno.EIO, errno.ENOSPC),
    "rename": (errno.EIO, errno.EACCES, errno.ENOSPC, errno.ESTALE),
    "unlink": (errno.EIO, errno.EACCES, errno.ESTALE),
    "mkdir": (errno.EIO, errno.EACCES, errno.ENOSPC),
    "ftruncate": (errno.EIO, errno.ESTALE),
    "stat": (errno.EIO, errno.EACCES, errno.ESTALE),
    "list": (errno.EIO, errno.EMFILE, errno.EACCES),
    "readlink": (errno.EIO, errno.ESTALE),
    "seek": (errno.EIO,),
    "chmod": (errno.EIO, errno.EPERM),
    "flock": (errno.EIO, errno.ENOSYS, errno.ENOLCK),
    "close": (errno.EIO, errno.ENOSPC),
}
ENDS = (0, 3, 73, 75)
LINES = 8
_PRELOADED = "BLENDRUN_REFUSE"
_REPLAY = ("--engine", "replay", "--engine-arg", "fail_every=4")


class Broken(Exception):  # noqa: N818  # a promise, not an error of this program
    """A promise that was not kept."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is made before, and the command then. again: what mends it where that is another command."""

    prepare: Callable[[Path], None]
    command: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]


@dataclass(slots=True)
class Row:
    """Of the table. calls: that were refused; ends: exit codes."""

    calls: int = 0
    ends: Counter[int] = field(default_factory=Counter)


def run_command(folder: Path, *options: str, out: str = "out/a.jsonl") -> list[str]:
    return ["run", "-q", str(folder / "jobs.jsonl.gz"), "-o", str(folder / out), *_REPLAY, *options]


def table_command(folder: Path) -> list[str]:
    return run_command(folder, out="out/a.csv")


def partial_command(folder: Path) -> list[str]:
    return run_command(folder, "--partial", str(folder / "out" / "partial.jsonl"))


def cache_command(folder: Path) -> list[str]:
    return run_command(folder, "--cache", str(folder / "out" / "cache"))


def nothing(folder: Path) -> None:
    """A new output."""


def whole(folder: Path, *options: str) -> None:
    """A run without faults."""
    code, _, said = in_fork(run_command(folder, *options), folder)
    if code not in (0, 3):
        sys.exit(f"a run without faults ended with {code}:\n{said}")


def half(folder: Path) -> None:
    """A run that has answered a part, and was killed within a record."""
    whole(folder)
    journal = folder / "out" / "a.jsonl.blendrun" / "journal"
    content = journal.read_bytes()
    journal.write_bytes(content[: len(content) // 2])
    (folder / "out" / "a.jsonl").unlink()


def shards(folder: Path) -> None:
    for number in (1, 2):
        whole(folder, "--shard", f"{number}/2")


def kept(folder: Path) -> None:
    """A cache that has some of the answers."""
    (folder / "first").mkdir()
    code, _, said = in_fork([*cache_command(folder), "--limit", "5", "-o", str(folder / "first" / "a.jsonl")], folder)
    if code not in (0, 3) or not (folder / "out" / "cache" / "answers.sqlite3").exists():
        sys.exit(f"a run with a cache ended with {code}:\n{said}")


def merge_command(folder: Path) -> list[str]:
    return ["merge", "-q", str(folder / "out" / "a.jsonl")]


SCENES = {
    "run": Scene(nothing, run_command, run_command),
    "resume": Scene(half, run_command, run_command),
    "retry": Scene(whole, lambda folder: run_command(folder, "--retry-errors"), lambda folder: run_command(folder)),
    "anew": Scene(half, lambda folder: run_command(folder, "--no-resume"), lambda folder: run_command(folder)),
    "shard": Scene(
        nothing,
        lambda folder: run_command(folder, "--shard", "1/1"),
        lambda folder: run_command(folder),
    ),
    "merge": Scene(shards, merge_command, merge_command),
    "table": Scene(nothing, table_command, table_command),
    "partial": Scene(nothing, partial_command, partial_command),
    "resumed-partial": Scene(half, partial_command, partial_command),
    "cache": Scene(kept, cache_command, cache_command),
}


def in_fork(words: list[str], folder: Path, fault: tuple[str, int, int, bool] | None = None) -> tuple[int, int, str]:
    """Exit code, calls that were refused, what was said. fault: kind, which call, errno, whether from then on."""
    said, told = folder / "said", folder / "told"
    if (child := os.fork()) == 0:
        code = 1
        try:
            descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            code = _command(words, folder, told, fault)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    count = int(told.read_text()) if fault is not None and told.exists() else 0
    return os.waitstatus_to_exitcode(status), count, said.read_text(errors="replace")


def _command(words: list[str], folder: Path, told: Path, fault: tuple[str, int, int, bool] | None) -> int:
    from blendrun.cli import main

    library = ctypes.CDLL(os.environ[_PRELOADED]) if fault is not None else None
    code = 1
    try:
        if library is not None and fault is not None:
            kind, nth, error, always = fault
            library.arm(kind.encode(), nth, error, int(always), os.fsencode(folder / "out"))
        main(words)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001  # as the interpreter does
        traceback.print_exc()
    if library is not None:
        count = library.refused()
        library.arm(b"", -1, 0, 0, b"/")
        told.write_text(str(count))
    return code


def warm(folder: Path) -> None:
    """Import here what the commands import, so that no fork does it again."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            for scene in ("run", "shard", "merge", "table", "cache"):
                shutil.rmtree(folder / "warm", ignore_errors=True)
                make_folder(folder / "warm")
                SCENES[scene].prepare(folder / "warm")
                with suppress(SystemExit):
                    _command(SCENES[scene].command(folder / "warm"), folder, folder / "told", None)
            os.write(writer, "\n".join(sys.modules).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as names:
        # In the order in which they were imported there: some must not be the first of their package.
        for name in names.read().split("\n"):
            with suppress(ImportError):
                importlib.import_module(name)
    os.wait()


def check(folder: Path) -> None:
    """Every line once."""
    out, table = folder / "out" / "a.jsonl", folder / "out" / "a.csv"
    if table.exists():
        with table.open(newline="", encoding="utf-8") as file:
            ids = [row["custom_id"] for row in csv.DictReader(file)]
    else:
        if not out.exists():
            (out,) = (folder / "out").glob("a.1-of-1.jsonl")
        text = out.read_text() + Path(f"{out}.errors.jsonl").read_text()
        ids = [json.loads(line)["custom_id"] for line in text.splitlines()]
    if sorted(ids) != [str(row) for row in range(LINES)]:
        raise Broken(f"not every line once: {sorted(ids)}")
    partial = folder / "out" / "partial.jsonl"
    some = [json.loads(line)["custom_id"] for line in partial.read_text().splitlines()] if partial.exists() else []
    if len(set(some)) < len(some):
        raise Broken(f"lines twice in the partial file: {sorted(some)}")


def try_all(scene: Scene, kind: str, error: int, *, always: bool, folder: Path, row: Row, calls: range) -> None:
    """Let each call of a kind fail in turn. calls: their numbers, from 1. Raises Broken."""
    template = folder / "template"
    for nth in calls:
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(template, work, symlinks=True)
        code, refused, said = in_fork(scene.command(work), work, (kind, nth, error, always))
        if not refused:
            return
        row.calls += 1
        row.ends[code] += 1
        what = f"{kind} number {nth} fails with {errno.errorcode[error]}{' from then on' if always else ''}"
        if code not in ENDS or "Traceback" in said:
            raise Broken(f"{what}: exit {code}\n{said[-3000:]}")
        again, _, words = in_fork(scene.again(work), work)
        if again not in (0, 3):
            raise Broken(f"{what}: exit {code}, and the next run {again}\n{said[-1000:]}\n{words[-2000:]}")
        try:
            check(work)
        except (Broken, OSError, ValueError) as broken:
            raise Broken(f"{what}: exit {code}, next run {again}: {broken}\n{said[-1000:]}") from broken


def prepare(name: str, folder: Path) -> None:
    """The template that each try begins with. Two folders of one name must be alike: paths are in the state."""
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    make_folder(work)
    SCENES[name].prepare(work)
    template = folder / "template"
    shutil.rmtree(template, ignore_errors=True)
    shutil.copytree(work, template, symlinks=True)


def make_folder(work: Path) -> None:
    """A job, and an empty folder for its output."""
    (work / "out").mkdir(parents=True)
    lines = [
        {"custom_id": str(row), "url": "/v1/chat/completions", "body": body(f"question {row}")} for row in range(LINES)
    ]
    # Packed, so that the spool is a part of it.
    (work / "jobs.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    os.utime(work / "jobs.jsonl.gz", (1e9, 1e9))


def body(text: str) -> dict[str, object]:
    """A request whose answer a cache keeps."""
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 5, "temperature": 0}


def preload() -> None:
    """Go on as a process that has the library; it says how where gcc is not there."""
    if os.environ.get(_PRELOADED):
        return
    if shutil.which("gcc") is None:
        sys.exit("gcc is not here: apt-get install gcc")
    folder = TemporaryDirectory(prefix="blendrun-refuse-")
    library = Path(folder.name) / "refuse.so"
    source = Path(__file__).with_name("refuse.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    home = {f"XDG_{name}_HOME": f"{folder.name}/{name}" for name in ("DATA", "CONFIG", "CACHE")}
    variables = os.environ | home | {"LD_PRELOAD": str(library), _PRELOADED: str(library)}
    done = subprocess.run([sys.executable, __file__, *sys.argv[1:]], env=variables)
    folder.cleanup()
    sys.exit(done.returncode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--scenes", default=",".join(SCENES))
    parser.add_argument("--errors", help="Names of errors that are tried, comma-separated; default: all of the kind.")
    parser.add_argument("--first", type=int, default=1, help="The first call of a kind that is tried.")
    parser.add_argument("--most", type=int, default=10_000, help="Calls of a kind that are tried, at most.")
    parser.add_argument("--once", action="store_true", help="EIO alone, and never from then on.")
    asked = parser.parse_args()
    preload()
    begun, broken = time.monotonic(), 0
    rows = {kind: Row() for kind in asked.kinds.split(",")}
    with TemporaryDirectory(prefix="blendrun-refused-") as text:
        folder = Path(text).resolve()
        warm(folder)
        for name in asked.scenes.split(","):
            prepare(name, folder)
            for kind, row in rows.items():
                for error, always in _faults(kind, asked.errors, once=asked.once):
                    calls = range(asked.first, asked.first + asked.most)
                    try:
                        try_all(SCENES[name], kind, error, always=always, folder=folder, row=row, calls=calls)
                    except Broken as found:
                        broken += 1
                        sys.stderr.write(f"BROKEN: {name}: {found}\n\n")
    sys.stdout.write(f"{time.monotonic() - begun:.0f} s, {broken} broken\n\n")
    sys.stdout.write("| call | refused | ended with |\n|---|---|---|\n")
    for kind, row in rows.items():
        ends = ", ".join(f"{code}: {count}" for code, count in sorted(row.ends.items())) or "none"
        sys.stdout.write(f"| {kind} | {row.calls} | {ends} |\n")
    sys.exit(broken > 0)


def _faults(kind: str, names: str | None, *, once: bool) -> list[tuple[int, bool]]:
    """Errors of a kind (names: only these), each with whether it lasts."""
    errors = [each for each in KINDS[kind] if names is None or errno.errorcode[each] in names.split(",")]
    return [(errors[0], False)] if once else [(error, always) for error in errors for always in (False, True)]


if __name__ == "__main__":
    main()
