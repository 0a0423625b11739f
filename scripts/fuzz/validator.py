"""Coverage-guided fuzzing of what reads a line: scripts/fuzz/validator.py [CORPUS] -max_total_time=600

Bytes of one line go in; out comes a request or a LineError, then a prompt or a RenderError. All else is a finding,
which atheris prints and keeps as a file. Needs `pip install atheris`; other options are libFuzzer's (-help=1).
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["blendrun", "scripts.fuzz"]):
    from scripts.fuzz.lines import encode, lines, mutate
    from scripts.fuzz.reading import read

import orjson  # compiled: nothing of it can be instrumented

_SEEDS = 400
_LONGEST = 64 * 1024


def change(data: bytes, longest: int, seed: int) -> bytes:
    """libFuzzer's own change of bytes, or one of the request's grammar where the bytes are an object."""
    if seed % 2:
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            value = None
        if isinstance(value, dict) and value:
            try:
                mutate(Random(seed), value)
                return encode(value)[:longest]
            except RecursionError:
                pass  # too deep to be written by Python; its bytes can still change
    mutated: bytes = atheris.Mutate(data, longest)
    return mutated


def main() -> None:
    folders = [word for word in sys.argv[1:] if not word.startswith("-")]
    options = [word for word in sys.argv[1:] if word.startswith("-")]
    corpus = Path(folders[0] if folders else "fuzz-corpus")
    corpus.mkdir(parents=True, exist_ok=True)
    for number, line in enumerate(lines(1, _SEEDS)):
        if len(line) <= _LONGEST:
            (corpus / f"seed-{number}").write_bytes(line)
    arguments = [sys.argv[0], f"-max_len={_LONGEST}", f"-artifact_prefix={corpus}-finding-", *options, str(corpus)]
    atheris.Setup(arguments, read, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
