"""The nouns of a calibration: what is asked of the engine, what it took, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from blendrun.cost.base import StepFigures


@dataclass(frozen=True, slots=True)
class Ask:
    """One measuring request: the first `prompt` tokens of random text `text`, then `output` tokens to generate."""

    text: int
    prompt: int
    output: int


@dataclass(frozen=True, slots=True)
class Probe:
    """One measurement: all asks handed over at once, timed from the first submit to the last answer.

    short: where given, the same asks with so many output tokens are timed too and taken off, which leaves decode steps
        of the whole batch alone.
    fresh: each repeat takes texts of its own, so that no prefix is in the cache.
    held_out: judges the fit and takes no part in it.
    """

    name: str
    asks: tuple[Ask, ...]
    repeats: int = 1
    short: int | None = None
    fresh: bool = True
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """A request as the scheduler sees it, in tokens. cached: prompt tokens found in the prefix cache."""

    prompt: int
    cached: int
    output: int


@dataclass(frozen=True, slots=True)
class Step:
    """One engine step. prefill: tokens computed. square: sum of b^2 - a^2 over its chunks, from token a to token b.

    admitted: requests whose prefill begins. rows: requests that decode. context: KV tokens that they read.
    """

    prefill: int = 0
    square: float = 0.0
    admitted: int = 0
    rows: int = 0
    context: int = 0


@dataclass(frozen=True, slots=True)
class Observation:
    """Seconds that some steps took. minus: steps whose time was taken off.

    round_trips: 1 where the time includes the way of the requests to the engine and back, 0 where that cancels.
    """

    name: str
    seconds: float
    steps: tuple[Step, ...]
    minus: tuple[Step, ...] = ()
    round_trips: int = 1
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """One observation beside the model's answer. Seconds; error: (predicted - measured) / measured."""

    name: str
    seconds: float
    predicted: float
    error: float


@dataclass(frozen=True, slots=True)
class Constants:
    """Constants of `blendrun.simulate.base.StepTime`, field by field, in seconds.

    round_trip: belongs to the measurement; a job pays it once, not at each step.
    """

    prefill_token: float
    prefill_square: float
    kv_token: float
    weights: float
    row: float
    step: float
    request: float
    round_trip: float = 0.0


@dataclass(frozen=True, slots=True)
class Fit:
    """Constants and how far off they are. mean_error, worst_error: of |error| over `points`, not the held-out ones."""

    constants: Constants
    points: tuple[Point, ...]
    held_out: tuple[Point, ...]
    mean_error: float
    worst_error: float


@dataclass(frozen=True, slots=True)
class Rates:
    """What the device reaches outside an engine.

    flops: FLOP/s of a large matrix product. copy_bandwidth: byte/s, read and written, of a large copy.
    attention_bandwidth: byte/s of keys and values read by decode attention. memory: bytes of the device.
    device: its name. attention: the code that was measured, and on what batch.
    stand_in: why that is not the code that the engine runs; empty where it is.
    """

    flops: float
    copy_bandwidth: float
    attention_bandwidth: float
    memory: float
    device: str
    attention: str
    stand_in: str = ""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Everything one calibration found. date: ISO 8601, UTC. seconds: it took. threads: None on a GPU.

    engine: what the engine settled on by itself, as (name, value), for people.
    """

    model: str
    platform: str
    threads: int | None
    date: str
    versions: dict[str, str]
    rates: Rates
    step: StepFigures
    round_trip_seconds: float
    points: tuple[Point, ...]
    held_out: tuple[Point, ...]
    worst_error: float
    seconds: float
    notes: tuple[str, ...] = ()
    engine: tuple[tuple[str, str], ...] = ()
