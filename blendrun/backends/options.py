"""Everything that may be asked of a run, checked once where it comes in: a command line, a config file, Python."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np

from blendrun.backends.deadline import LONGEST_S, parse_duration
from blendrun.backends.inputs import own_answers
from blendrun.backends.row_options import RowArguments, RowOptions
from blendrun.backends.same import DEFAULT_SIZE, parse_size
from blendrun.backends.shard import SLURM, parse_shard
from blendrun.backends.uploads import upload_of, with_local_output
from blendrun.endpoints.apis.registry import URLS
from blendrun.endpoints.spellings import url_of
from blendrun.engine.http.settings import parse_servers
from blendrun.errors import UsageError
from blendrun.jobs.line import MAX_LINE_BYTES
from blendrun.jobs.spool import LONGEST_WINDOW, ZSTD_CEILING
from blendrun.names import AUTO, Dedupe, DeviceName, EngineName, LengthMode, OrderName, Overlap, UnknownFields
from blendrun.paths import at_home, refuse_address
from blendrun.remote.address import file_name
from blendrun.store.failures import ErrorLimit
from blendrun.store.shards import shard_output
from blendrun.store.tables.kind import check_alike, check_lines, check_output

_Options = TypeVar("_Options", bound=msgspec.Struct)
STDIN = STDOUT = "-"
_SUFFIXES = (".gz", ".zst", ".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv", ".txt")
AtLeast1 = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=LONGEST_S)]
_Price = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
# Of devices, cores, engines side by side.
_Machines = Annotated[int, msgspec.Meta(ge=1, le=65_536)]
# Of the names that stand for "None" on a command line and in a config file.
_CHOSEN_LATER = ("order", "overlap")
# Text that Python may give as a path or as a number.
_TEXTS = ("model", "deadline", "gpus", "hardware", "schema")
# Where no text at all would be the working folder.
_OWN_NAMES = ("cache", "partial")
# For messages: what names there are, and where else something is.
_NAMES: dict[str, type[StrEnum]] = {
    "order": OrderName,
    "orders": OrderName,
    "overlap": Overlap,
    "device": DeviceName,
    "lengths": LengthMode,
    "unknown_fields": UnknownFields,
    "dedupe": Dedupe,
}
_ELSEWHERE = {
    "engine_arg": "; engine_args is a dict of them",
    "quiet": "; without progress=... nothing is shown",
    "verbose": "; progress=... gets every event",
    "config": "; read the file, and give what is in it",
    "jobs": "; they are the first argument",
}


class RunArguments(RowArguments, total=False):
    """The fields of `RunOptions` but for `inputs`, `model` and `output`, for those who call `blendrun.run`."""

    order: OrderName | str | None
    overlap: Overlap | str | None
    limit: int | None
    shard: str | None
    endpoint: str | None
    errors_ok: bool
    strict: bool
    unknown_fields: UnknownFields | str
    check_answers: bool
    fail_on_length: bool
    dedupe: Dedupe | str
    cache: Path | str | None
    cache_size: str | int
    partial: Path | str | None
    max_errors: str | int | None
    max_line_bytes: int
    zstd_window: int
    engine: str
    replicas: int | None
    ray: str | None
    tp: int | None
    engine_args: dict[str, Any]
    device: DeviceName | str
    threads: int | None
    trust_remote_code: bool
    allow_media_files: Path | str | None
    allow_media_urls: bool
    allow_private_media: bool
    drain_timeout: float
    deadline: str | float | None
    max_restarts: int
    stall_timeout: float | None
    resume: bool
    retry_errors: bool
    accept_changes: bool
    overwrite: bool
    upload: str | None
    upload_errors: str | None
    metrics_port: int | None
    metrics_textfile: Path | str | None
    trace: Path | str | None
    price: float | None


class RunOptions(RowOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run is asked for, one field for each option of `blendrun run` (docs/cli.md says what each does).

    inputs: files or addresses in order, "-" for stdin. output: None for one named after the first input, "-" for the
        same with a copy on stdout, which is the caller's affair. An address becomes `upload`, and a file of its name
        the output.
    order, overlap: None leaves them to the plan.
    price: of an hour of one GPU, or of a machine without.
    engine: `EngineName`, or addresses of servers. engine_args: of SGLang's engine, or of the engine that stands for it.
    """

    inputs: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    model: str | None = None
    output: Path | None = None
    order: OrderName | None = None
    overlap: Overlap | None = None
    limit: AtLeast1 | None = None
    shard: str | None = None
    endpoint: str | None = None
    errors_ok: bool = False
    strict: bool = False
    unknown_fields: UnknownFields = UnknownFields.ERROR
    check_answers: bool = False
    fail_on_length: bool = False
    dedupe: Dedupe = Dedupe.AUTO
    cache: Path | None = None
    cache_size: str | int = DEFAULT_SIZE
    partial: Path | None = None
    max_errors: str | int | None = None
    max_line_bytes: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)] = MAX_LINE_BYTES
    zstd_window: Annotated[int, msgspec.Meta(ge=10, le=ZSTD_CEILING)] = LONGEST_WINDOW
    engine: str = EngineName.SGLANG.value
    replicas: _Machines | None = None
    ray: str | None = None
    tp: _Machines | None = None
    engine_args: dict[str, Any] = msgspec.field(default_factory=dict)
    device: DeviceName = DeviceName.AUTO
    threads: _Machines | None = None
    trust_remote_code: bool = False
    allow_media_files: Path | None = None
    allow_media_urls: bool = False
    allow_private_media: bool = False
    drain_timeout: _Seconds = 20.0
    deadline: str | None = None
    max_restarts: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 3
    stall_timeout: Annotated[float, msgspec.Meta(ge=1, le=LONGEST_S)] | None = None
    resume: bool = True
    retry_errors: bool = False
    accept_changes: bool = False
    overwrite: bool = False
    upload: str | None = None
    upload_errors: str | None = None
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] | None = None
    metrics_textfile: Path | None = None
    trace: Path | None = None
    price: _Price | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> RunOptions:
        """From names and plain values; "auto" leaves a choice open. Raises UsageError naming what is wrong."""
        found = convert_options(with_local_output(given), cls, "a run")
        check_endpoint(found.endpoint)
        # Refused now, before anything has begun, rather than where they are used.
        _check_texts(found)
        found.columns(found.endpoint, found.limit)
        check_output(found.whole_output_path, sharded=found.shard is not None)
        if found.partial is not None:
            check_lines(found.partial, "--partial", "; a table is what -o may name")
        if (upload := upload_of(found)) is not None:
            check_alike(found.whole_output_path, upload.output.name, "--upload")
        if found.output is None and found.inputs[0] == STDIN:
            raise UsageError("where do the answers go? With stdin as input, give -o FILE, or -o - for stdout")
        return found

    @property
    def label(self) -> str:
        """What answers, in a word: for views and metrics."""
        return self.model or self.engine

    @property
    def shard_place(self) -> tuple[int, int] | None:
        """Which part of how many this run answers; None for all. Raises UsageError."""
        return None if self.shard is None else parse_shard(self.shard)

    @property
    def output_path(self) -> Path:
        """Where the answers go; beside the run's state for `-o -` too. A shard has a file of its own."""
        place = self.shard_place
        return self.whole_output_path if place is None else shard_output(self.whole_output_path, *place)

    @property
    def whole_output_path(self) -> Path:
        """The same, but for a shard where `merge` puts the answers of all."""
        return self.output if self.output not in (None, Path(STDOUT)) else self._default_output()

    @property
    def partial_path(self) -> Path | None:
        """Where the answers so far go; a shard has a file of its own."""
        place = self.shard_place
        return self.partial if self.partial is None or place is None else shard_output(self.partial, *place)

    def _default_output(self) -> Path:
        left_out = own_answers(self.inputs, tables=False)
        first = next((name for name in self.inputs if name not in left_out), self.inputs[0])
        if first == STDIN:
            return Path("stdin.answers.jsonl")
        stem = file_name(first) or "jobs"
        for suffix in _SUFFIXES:
            stem = stem.removesuffix(suffix)
        return Path(f"{stem}.answers.jsonl")


def convert_options(given: Mapping[str, Any], wanted: type[_Options], what: str) -> _Options:
    """Options from names and plain values, checked. Raises UsageError naming what is wrong. what: they are of."""
    chosen = {
        name: None if name in _CHOSEN_LATER and value == AUTO else _plain(name, value)
        for name, value in given.items()
        if value is not None
    }
    try:
        return msgspec.convert(chosen, wanted, dec_hook=_decoded)
    except msgspec.ValidationError as error:
        text = str(error).replace("$.inputs", "jobs").replace("`$.", "`")
        name = text.rpartition("`")[0].rpartition("`")[2].partition("[")[0]
        known = f"; known are {', '.join(_NAMES[name])}" if name in _NAMES and "enum" in text else ""
        unknown = next((new for old, new in _ELSEWHERE.items() if f"unknown field `{old}`" in text), "")
        raise UsageError(f"options of {what}: {text}{known}{unknown}") from error


def _plain(name: str, value: Any) -> Any:
    """Without NumPy's scalars, and without paths where text is meant. Raises UsageError for what is no JSON."""
    if name == "engine_args":
        try:
            plain = json.loads(json.dumps(value, allow_nan=False, default=_scalar))
        except (TypeError, ValueError) as error:
            raise UsageError(f"engine_args: {error}; give plain values, as JSON has them") from error
        return _homes(plain)
    if name in _OWN_NAMES and value == "":
        raise UsageError(f"--{name} is empty: give it a name, or leave it out")
    if name == "dedupe" and isinstance(value, bool):
        return Dedupe.ON if value else Dedupe.OFF
    if name == "inputs":
        return tuple(at_home(each) if isinstance(each, str) else each for each in value)
    if isinstance(value, os.PathLike) and name in _TEXTS:
        value = os.fspath(value)
    if name == "hardware" and isinstance(value, str):
        return ",".join(map(at_home, value.split(",")))
    if name in _TEXTS and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value


def _homes(value: Any) -> Any:
    """The value with every text in it that begins with `~/` as a path in the home folder."""
    if isinstance(value, dict):
        return {name: _homes(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_homes(each) for each in value]
    return at_home(value) if isinstance(value, str) and value.startswith("~/") else value


def _scalar(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r:.60} is no plain value")


def _check_texts(options: RunOptions) -> None:
    """Read the options that have a notation of their own. Raises UsageError."""
    parse_size(options.cache_size)
    if options.cache is None and options.cache_size != DEFAULT_SIZE:
        raise UsageError("--cache-size bounds a cache: give --cache DIR too, or leave it out")
    for option in ("output", "trace", "metrics_textfile", "cache", "partial"):
        if (path := getattr(options, option)) is not None:
            refuse_address(str(path), f"--{option.replace('_', '-')}")
    if options.deadline is not None and options.deadline.strip().lower() != SLURM:
        parse_duration(options.deadline, "--deadline")
    upload_of(options)
    if options.shard is not None:
        parse_shard(options.shard)
    if options.max_errors is not None:
        ErrorLimit.parse(str(options.max_errors))
    find_module(options.engine)


def find_module(engine: str) -> str:
    """Name of the module of `blendrun.backends` that opens an engine. Raises UsageError for an unknown one."""
    if parse_servers(engine):
        return "servers"
    if engine not in tuple(EngineName):
        raise UsageError(f"--engine {engine}: known are {', '.join(EngineName)}, and addresses of servers")
    return engine


def check_endpoint(url: str | None) -> None:
    """Raises UsageError."""
    if url is not None and url_of(url) not in URLS:
        raise UsageError(f"--endpoint {url}: known are {', '.join(URLS)}")


def _decoded(wanted: type, value: Any) -> Any:
    """What msgspec does not convert itself."""
    if wanted is not Path:
        raise NotImplementedError(wanted)
    if isinstance(value, str | bytes | os.PathLike):
        return Path(at_home(os.fsdecode(value)))
    raise TypeError(f"Expected a path, got `{type(value).__name__}`")
