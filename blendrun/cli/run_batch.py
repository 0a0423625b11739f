"""`blendrun run-batch`: the command line of `vllm run-batch`, and its one file of answers and failures."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blendrun.cli.foreign_flags import VLLM, Flag
from blendrun.errors import InputInvalidError, UsageError
from blendrun.remote.address import shown

if TYPE_CHECKING:
    from blendrun.remote.address import Address
    from blendrun.store.folder import StateFolder

# Of `blendrun run`, for those who come to know it.
_OWN = {name.replace("_", "-"): Flag(option=name) for name in ("engine", "device", "threads", "replicas", "limit")}
# As torch calls them.
_DEVICES = {"cuda": "gpu"}
_ADAPTERS = "lora-modules"
_LEVEL = re.compile("-O[0-9]")
_FILES = {"i": "input_file", "input-file": "input_file", "o": "output_file", "output-file": "output_file"}


def run_batch(
    flags: Annotated[
        list[str] | None,
        typer.Argument(help="Flags of vllm run-batch: -i FILE -o FILE --model MODEL ...", metavar="FLAGS"),
    ] = None,
) -> None:
    """Take the command line of `vllm run-batch`.

    The same flags, and one output file with failures among the answers. Flags that need nothing here are named,
    unknown ones refused. It is `blendrun run` behind: the same command again resumes, and its state and files lie
    beside the output, under the name OUTPUT.run. Exit codes: 0 all lines have a result, 65 bad input, 69 engine lost,
    75 run it again.
    """
    given = _parse(flags or [])
    _run(given, given.pop("output_file"))


def _parse(words: Sequence[str]) -> dict[str, Any]:
    """Fields of `RunOptions`, with `output_file`. Raises UsageError."""
    found: dict[str, Any] = {"engine_args": {}}
    notes: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            raise UsageError(f"{shown(word)!r} belongs to no flag")
        name, equals, value = _flag_of(word)
        flag = VLLM.get(name) or _OWN.get(name)
        if name not in (*_FILES, _ADAPTERS) and flag is None:
            raise UsageError(f"--{name}: blendrun knows no such flag of vllm run-batch; see blendrun run --help")
        if name == _ADAPTERS or (flag is not None and flag.several):
            values = [value] if equals else []
            while rest and not rest[0].startswith("-"):
                values.append(rest.pop(0))
            value = "\0".join(values) if name == _ADAPTERS else " ".join(values)
        elif (flag is None or flag.takes) and not equals:
            if not rest:
                raise UsageError(f"{word} needs a value")
            value = rest.pop(0)
        if flag is not None:
            _take(found, notes, name, flag, value)
        elif name == _ADAPTERS:
            found["engine_args"]["lora_paths"] = [_module(module) for module in value.split("\0")]
        else:
            found[_FILES[name]] = value
    for note in notes:
        sys.stderr.write(f"blendrun: {note}\n")
    for name, short in (("input_file", "-i"), ("output_file", "-o"), ("model", "--model")):
        if not found.get(name):
            raise UsageError(f"{short} is missing: blendrun run-batch -i in.jsonl -o out.jsonl --model MODEL")
    found["inputs"] = [found.pop("input_file")]
    return found


def _flag_of(word: str) -> tuple[str, str, str]:
    """Name of a flag, "=" where a value is joined to it, and the value."""
    if _LEVEL.fullmatch(word):
        return "O", "=", word[2:]
    name, equals, value = word.partition("=")
    return name.lstrip("-").replace("_", "-"), equals, value


def _take(found: dict[str, Any], notes: list[str], name: str, flag: Flag, value: str) -> None:
    from blendrun.engine.settings import parse_engine_args

    if flag.refused is not None:
        dashes = "-" if len(name) == 1 else "--"
        raise UsageError(f"{dashes}{name} cannot be kept: {flag.refused}")
    if not flag.takes and value.lower() in ("false", "0"):
        if flag.argument is None and flag.option is None:
            raise UsageError(f"--{name}={value} cannot be kept: {flag.ignored}")
        return
    if flag.ignored is not None:
        notes.append(f"--{name} does nothing here: {flag.ignored}")
        return
    if flag.option is not None:
        number = int(value) if value.isascii() and value.isdigit() else _DEVICES.get(value, value)
        found[flag.option] = number if flag.takes else True
    elif flag.argument is not None:
        found["engine_args"] |= parse_engine_args([f"{flag.argument}={value if flag.takes else flag.value}"])


def _run(given: dict[str, Any], output: str) -> None:
    begun = time.monotonic()
    from blendrun.backends.options import RunOptions
    from blendrun.backends.session import run_job
    from blendrun.backends.uploads import address_of
    from blendrun.jobs.fetched import copy_here
    from blendrun.remote.address import local_paths
    from blendrun.report.terminal.progress import choose_view
    from blendrun.report.terminal.summary import print_summary
    from blendrun.store.folder import StateFolder
    from blendrun.store.guard import Target, begins_with
    from blendrun.store.one_file import LINE, write_one_file
    from blendrun.store.tables.kind import table_kind

    address = address_of(output, "-o")
    path = Path(output) if address is None else Path(address.name or "results.jsonl")
    if (kind := table_kind(path)) is not None:
        raise UsageError(f"-o {output}: run-batch writes lines; blendrun run writes {kind}")
    own = path.with_name(f"{path.name}.run")
    target = Target(path, "-o", own=local_paths(given["inputs"]), made=begins_with(LINE))
    target.check()
    options = RunOptions.of(given | {"output": own, "errors_ok": True})
    source = copy_here(options.inputs[0], StateFolder(own).spool)
    try:
        summary = run_job(options, choose_view(sys.stderr, quiet=False, verbose=False), begun=begun)
        with target.opened() as file:
            write_one_file(file, own, source, options.columns(options.endpoint, options.limit))
        print_summary(summary, sys.stderr)
    except InputInvalidError:
        # A step of a pipeline may have nothing to do; `blendrun run` takes that for a mistake.
        if not _is_empty(Path(source)):
            raise
        target.write(b"")
    if address is not None:
        _upload(path, StateFolder(own), address)


def _is_empty(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == 0


def _upload(path: Path, state: StateFolder, address: Address) -> None:
    """The one file, once. Raises OutputUnavailableError."""
    from blendrun.report.terminal.progress import choose_view
    from blendrun.runner.stop import stopping_by_exception
    from blendrun.store.own_files import OUTPUT
    from blendrun.store.uploads import deliver, parcel

    with state.locked(), stopping_by_exception(), choose_view(sys.stderr, quiet=False) as listener:
        if (found := parcel(state, OUTPUT, path, address)) is not None:
            deliver(state, found, listener)


def _module(module: str) -> str:
    """An adapter as vLLM takes it, NAME=PATH or {"name", "path"}, as the first of these."""
    if not module.startswith("{"):
        return module
    try:
        found = json.loads(module)
        return f"{found['name']}={found['path']}"
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f'--lora-modules takes NAME=PATH or {{"name": …, "path": …}}, not {module!r}') from error
