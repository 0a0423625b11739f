"""A synthetic workload as a trace file that `blendrun plan` reads (`blendrun.jobs.trace`)."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import orjson
import zstandard

from blendrun.errors import InputInvalidError, OutputUnavailableError
from blendrun.events import Listener, Progress, ignore
from blendrun.files import file_mode, replacing
from blendrun.jobs.spool import HEAD_BYTES, packing, unpack
from blendrun.synth.kinds import BLOCK, COMPUTE, MEMORY, SHARE
from blendrun.synth.workload import Synthesis, prefix_blocks

_LINES_AT_ONCE = 8192
# How the first line of such a file begins, and how much of it is looked at, packed.
_FIRST = re.compile(
    rb'\{"id":"(%b)-1","service":"\1","prompt_tokens":' % "|".join((*COMPUTE, *MEMORY, *SHARE)).encode()
)
_HEAD_BYTES = 16_384


class _Sink(Protocol):
    """What bytes are written to: a file, or what packs them."""

    def write(self, data: bytes, /) -> int: ...


def write_workload(made: Synthesis, path: Path, listener: Listener = ignore) -> None:
    """One line a request, in the workload's order; packed where the name ends in .gz or .zst. The same workload gives
    the same bytes.

    The file is whole or not there. listener: told the progress in lines. Raises OutputUnavailableError.
    """
    try:
        with replacing(path, file_mode(path)) as file:
            write_lines(made, file, path.suffix, listener)
    except OSError as error:
        raise OutputUnavailableError(f"cannot write {path}: {error.strerror}; give another --output") from error


def write_lines(made: Synthesis, raw: BinaryIO, suffix: str, listener: Listener) -> None:
    """The same into an open file. suffix: .gz or .zst packs the lines. Raises OSError."""
    with _packed(raw, suffix) as file:
        for done, lines in enumerate(_lines(made)):
            file.write(lines)
            written = min((done + 1) * _LINES_AT_ONCE, len(made.prompts))
            listener(Progress(written, len(made.prompts), "lines"))


def is_workload(path: Path) -> bool:
    """Whether a file is one that `write_workload` made. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    try:
        # The first piece is enough, and what comes behind it is cut.
        first = next(unpack(iter([head]), packing(head[:HEAD_BYTES]), path.name), b"")
    except InputInvalidError:
        return False
    return _FIRST.match(first) is not None


@contextmanager
def _packed(file: BinaryIO, suffix: str) -> Iterator[_Sink]:
    if suffix == ".gz":
        # Neither name nor time go into the header: the same workload is the same file.
        with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
            yield packed
    elif suffix == ".zst":
        with zstandard.ZstdCompressor(6).stream_writer(file, closefd=False) as stream:
            yield stream
    else:
        yield file


def _lines(made: Synthesis) -> Iterator[bytes]:
    """Blocks of lines. Ids of prefixes are numbered first; those of a prompt's own follow one another."""
    prompts = made.prompts
    # What comes before a prompt's own ids is the same for all of a group, and is written once.
    heads = [[_ids(row)[:-1] for row in blocks] for blocks in prefix_blocks(made.recipe)]
    names = [kind.name.encode() for kind in made.recipe.kinds]
    prefix = np.array([kind.prefix // BLOCK for kind in made.recipe.kinds])[made.kind]
    blocks = -(-prompts.prompt_tokens.astype(np.int64) // BLOCK) - prefix
    for begin in range(0, len(prompts), _LINES_AT_ONCE):
        rows = slice(begin, begin + _LINES_AT_ONCE)
        columns = (
            made.kind[rows].tolist(),
            made.group[rows].tolist(),
            prompts.prompt_tokens[rows].tolist(),
            prompts.reference[rows].tolist(),
            made.own[rows].tolist(),
            blocks[rows].tolist(),
        )
        yield b"".join(
            b'{"id":"%b-%d","service":"%b","prompt_tokens":%d,"output_tokens":%d,"block_size":%d,"hash_ids":%b,%b}\n'
            % (names[kind], number, names[kind], prompt, output, BLOCK, heads[kind][group], _own(own, count))
            for number, (kind, group, prompt, output, own, count) in enumerate(
                zip(*columns, strict=True), start=begin + 1
            )
        )


def _ids(ids: np.ndarray[tuple[int], np.dtype[np.int64]]) -> bytes:
    return orjson.dumps(np.ascontiguousarray(ids), option=orjson.OPT_SERIALIZE_NUMPY)


def _own(first: int, count: int) -> bytes:
    """The ids of a prompt's own blocks and the closing bracket."""
    return _ids(np.arange(first, first + count))[1:]
