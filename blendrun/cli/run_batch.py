"""`blendrun run-batch`: the command line of `vllm run-batch`, and its one file of answers and failures."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from blendrun.cli.foreign_flags import VLLM, Flag
from blendrun.errors import UsageError

# Of `blendrun run`, for those who come to know it.
_OWN = {name.replace("_", "-"): Flag(option=name) for name in ("engine", "device", "threads", "replicas", "limit")}
_FILES = {"i": "input_file", "input-file": "input_file", "o": "output_file", "output-file": "output_file"}


def run_batch(
    flags: Annotated[
        list[str] | None,
        typer.Argument(help="Flags of vllm run-batch: -i FILE -o FILE --model MODEL ...", metavar="FLAGS"),
    ] = None,
) -> None:
    """Run a file as `vllm run-batch` does: the same flags, one output file with failures among the answers.

    Flags that need nothing here are named, unknown ones refused. It is `blendrun run` behind: the same command again
    resumes, and its state and files lie beside the output, under the name OUTPUT.run. Exit codes: 0 all lines have a
    result, 65 bad input, 69 engine lost, 75 run it again.
    """
    given = _parse(flags or [])
    output = Path(given.pop("output_file"))
    _run(given, output)


def _parse(words: Sequence[str]) -> dict[str, Any]:
    """Fields of `RunOptions`, with `output_file`. Raises UsageError."""
    found: dict[str, Any] = {"engine_args": {}}
    notes: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            raise UsageError(f"{word!r} belongs to no flag")
        name, equals, value = word.lstrip("-").replace("_", "-").partition("=")
        if name == "lora-modules":
            modules = [value] if equals else []
            while rest and not rest[0].startswith("-"):
                modules.append(rest.pop(0))
            found["engine_args"]["lora_paths"] = [_module(module) for module in modules]
            continue
        flag = VLLM.get(name) or _OWN.get(name)
        if name not in _FILES and flag is None:
            raise UsageError(f"{word}: blendrun knows no such flag of vllm run-batch; see blendrun run --help")
        takes = flag is None or flag.takes
        if takes and not equals:
            if not rest:
                raise UsageError(f"{word} needs a value")
            value = rest.pop(0)
        if flag is None:
            found[_FILES[name]] = value
        else:
            _take(found, notes, name, flag, value)
    for note in notes:
        sys.stderr.write(f"blendrun: {note}\n")
    for name, short in (("input_file", "-i"), ("output_file", "-o"), ("model", "--model")):
        if not found.get(name):
            raise UsageError(f"{short} is missing: blendrun run-batch -i in.jsonl -o out.jsonl --model MODEL")
    found["inputs"] = [found.pop("input_file")]
    return found


def _take(found: dict[str, Any], notes: list[str], name: str, flag: Flag, value: str) -> None:
    from blendrun.engine.settings import parse_engine_args

    if flag.ignored is not None:
        notes.append(f"--{name} does nothing here: {flag.ignored}")
        return
    if flag.option is not None:
        number = int(value) if value.isascii() and value.isdigit() else value
        found[flag.option] = number if flag.takes else True
    elif flag.argument is not None:
        found["engine_args"] |= parse_engine_args([f"{flag.argument}={value if flag.takes else flag.value}"])


def _run(given: dict[str, Any], output: Path) -> None:
    from blendrun.backends.options import RunOptions
    from blendrun.backends.session import run_job
    from blendrun.report.terminal.progress import choose_view
    from blendrun.report.terminal.summary import print_summary
    from blendrun.store.guard import Target, begins_with
    from blendrun.store.one_file import LINE, write_one_file

    own = output.with_name(f"{output.name}.run")
    target = Target(output, "-o", own=(Path(given["inputs"][0]),), made=begins_with(LINE))
    target.check()
    options = RunOptions.of(given | {"output": own, "errors_ok": True})
    summary = run_job(options, choose_view(sys.stderr, quiet=False, verbose=False))
    with target.opened() as file:
        write_one_file(file, own, options.inputs[0])
    print_summary(summary, sys.stderr)


def _module(module: str) -> str:
    """An adapter as vLLM takes it, NAME=PATH or {"name", "path"}, as the first of these."""
    if not module.startswith("{"):
        return module
    try:
        found = json.loads(module)
        return f"{found['name']}={found['path']}"
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f'--lora-modules takes NAME=PATH or {{"name": …, "path": …}}, not {module!r}') from error
