"""One calibration from end to end: engine up, sweep, engine down, raw rates, fit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from blendrun.calibrate.base import Calibration, Fit, Observation, Rates
from blendrun.calibrate.design import Room, probes, warm_up
from blendrun.calibrate.fit import fit
from blendrun.calibrate.rates import Request, measure_rates
from blendrun.calibrate.schedule import Policy
from blendrun.calibrate.sweep import Sweep
from blendrun.cost.base import StepFigures
from blendrun.engine.base import Engine, EngineInfo, EngineSettings
from blendrun.engine.settings import environment
from blendrun.events import Listener, Note, PhaseStarted
from blendrun.models.cards import ModelCard
from blendrun.runner.stop import handlers_kept, stop_error, stop_signals

# Above this the model of a step does not describe the machine, or something else ran beside.
POOR_FIT = 0.10


@dataclass(frozen=True, slots=True)
class Task:
    """What to calibrate. model: its name for the card. quick: few small batches, for a rough answer."""

    model: str
    card: ModelCard
    settings: EngineSettings
    quick: bool = False


def calibrate(task: Task, engine: Engine, listener: Listener) -> Calibration:
    """Measure this machine with one engine, which is started and stopped here.

    Raises EngineUnavailableError when the engine or the rates' child fails, DrainedError or InterruptedRunError on a
    stop signal, UsageError where the engine is too small to measure.
    """
    begun = time.monotonic()
    with handlers_kept():
        info, observations = asyncio.run(_run(task, engine, listener))
    # Behind the engine, which says by which code it decodes, and whose memory is free now.
    listener(PhaseStarted("rates", "matrix product, copy, decode attention"))
    rates = measure_rates(_request(task, info), environment(task.settings))
    listener(PhaseStarted("fit", f"{len(observations)} measurements"))
    return _result(task, info, rates, observations, fit(observations), time.monotonic() - begun)


def _request(task: Task, info: EngineInfo) -> Request:
    card = task.card
    # Latent attention reads one shared vector a token; what a card with it has no key heads for, one head stands for.
    kv_heads = 1 if card.mla else card.kv_heads
    return Request(
        task.settings.platform,
        card.heads,
        kv_heads,
        card.head_dim,
        repeats=3 if task.quick else 9,
        attention=info.attention,
        page=info.page or 1,
    )


async def _run(task: Task, engine: Engine, listener: Listener) -> tuple[EngineInfo, tuple[Observation, ...]]:
    """The sweep under our signal handlers: an exception out of a handler would be lost in the event loop."""
    work = asyncio.ensure_future(_measure(task, engine, listener))
    got: list[int] = []
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        got.append(number)
        work.cancel()

    for number in stop_signals():
        loop.add_signal_handler(number, stop, number)
    try:
        return await work
    except asyncio.CancelledError:
        if not got:
            raise
        raise stop_error(got[0], "nothing was stored; the same command begins again") from None
    finally:
        await engine.stop()


async def _measure(task: Task, engine: Engine, listener: Listener) -> tuple[EngineInfo, tuple[Observation, ...]]:
    listener(PhaseStarted("load", task.model))
    info = await engine.start(listener)
    for note in info.notes:
        listener(Note(note, warning=True))
    room = Room(info.kv_tokens, info.context_length, info.max_running)
    sweep = Sweep(engine, task.card.vocab_size, _policy(task.settings, info))
    planned = probes(task.settings.platform, room, quick=task.quick)
    listener(PhaseStarted("warm up", warm_up().name))
    await sweep.measure([warm_up()])
    return info, await sweep.measure(planned, listener)


def _policy(settings: EngineSettings, info: EngineInfo) -> Policy:
    given = settings.server_args
    return Policy(
        chunk=info.chunk or info.context_length,
        max_running=info.max_running,
        mixed=bool(given.get("enable_mixed_chunk")),
        late=not given.get("disable_overlap_schedule"),
    )


def _result(
    task: Task,
    info: EngineInfo,
    rates: Rates,
    observations: tuple[Observation, ...],
    fitted: Fit,
    seconds: float,
) -> Calibration:
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return Calibration(
        model=task.model,
        platform=task.settings.platform,
        threads=task.settings.threads if task.settings.platform == "cpu" else None,
        date=date,
        versions=info.versions,
        rates=rates,
        step=_figures(task, rates, fitted, date),
        round_trip_seconds=fitted.constants.round_trip,
        points=fitted.points,
        held_out=fitted.held_out,
        worst_error=fitted.worst_error,
        seconds=seconds,
        notes=(*info.notes, *_notes(task, rates, fitted)),
        engine=(("decode attention", info.attention or "not told"), ("chunk", str(info.chunk or "none"))),
    )


def _figures(task: Task, rates: Rates, fitted: Fit, date: str) -> StepFigures:
    """What was fitted; where noise hid what a token takes, the device's best, which it takes at least: no plan can be
    made with tokens that take no time."""
    found, given = fitted.constants, task.settings.server_args
    card, width = task.card, 4 if task.settings.platform == "cpu" else 2
    prefill_token = found.prefill_token or 2 * card.layer_parameters_active / rates.flops
    kv_token = found.kv_token or card.kv_bytes_per_token(width) / rates.attention_bandwidth
    return StepFigures(
        model=task.model,
        step_seconds=found.step,
        row_seconds=found.row,
        request_seconds=found.request,
        prefill_token_seconds=prefill_token,
        decode_token_seconds=prefill_token,
        prefill_square_seconds=found.prefill_square,
        kv_token_seconds=kv_token,
        weights_seconds=found.weights,
        fit_error=fitted.mean_error,
        digest=task.card.digest,
        gpus=int(given.get("tp_size", 1)) * int(given.get("pp_size", 1)),
        date=date,
    )


def off(error: float) -> str:
    """How far off, in words. error: |predicted - measured| / measured."""
    return f"{100 * error:.0f} %" if error < 10 else "more than ten times"


def _notes(task: Task, rates: Rates, fitted: Fit) -> Iterator[str]:
    """What a person should know of the figures."""
    if rates.stand_in:
        yield f"decode attention was measured with {rates.attention}: {rates.stand_in}"
    if task.card.mla is not None:
        yield "decode attention was measured with one head of keys and values in place of the latent vectors"
    if not (fitted.constants.prefill_token and fitted.constants.kv_token):
        yield (
            "the measured times do not grow with the tokens of a step: what a token takes is that of a matrix product "
            "or of a read instead, which is less than in an engine. Calibrate again with nothing else running, without "
            "--quick; a very small model cannot be measured so"
        )
    if fitted.mean_error > POOR_FIT:
        yield (
            f"the step model is {off(fitted.mean_error)} off on average: was something else running? "
            "Calibrate again on a quiet machine"
        )
