"""A calibration from end to end, with an engine that answers at once: what is asked of it, and what follows from it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from blendrun.calibrate import measure
from blendrun.calibrate.base import Load, Rates
from blendrun.calibrate.measure import Task, calibrate
from blendrun.calibrate.rates import Request
from blendrun.calibrate.schedule import schedule
from blendrun.engine.base import EngineInfo, EngineSettings
from blendrun.events import Event, Listener, PhaseStarted
from blendrun.models.cards import load_card
from tests.calibrate.test_sweep import RecordingEngine

LLAMA = load_card("llama-3-8b")
INFO = EngineInfo(
    "sglang", "gpu", 8192, 400_000, 256, {"sglang": "0.5.23"}, chunk=16_384, attention="trtllm_mha", page=64
)


class Started(RecordingEngine):
    """As an engine that says what it settled on."""

    def __init__(self, info: EngineInfo) -> None:
        super().__init__()
        self.info, self.stopped = info, False

    async def start(self, listener: Listener) -> EngineInfo:
        return self.info

    async def stop(self) -> None:
        self.stopped = True


def task(**arguments: object) -> Task:
    return Task("llama-3-8b", LLAMA, EngineSettings("folder", "gpu", 1, server_args=arguments), quick=True)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What the child is asked for, of which there is none: it needs the GPU."""
    requests: list[Request] = []

    def stand_in(request: Request, environment: dict[str, str]) -> Rates:
        requests.append(request)
        return Rates(7e14, 4e12, 3e12, 1.5e11, "NVIDIA B200", "flashinfer, 128 x 2048 tokens", "no trtllm_mha here")

    monkeypatch.setattr(measure, "measure_rates", stand_in)
    return requests


def test_attention_is_measured_by_what_the_engine_decodes_with(asked: list[Request]) -> None:
    engine, events = Started(INFO), list[Event]()
    found = calibrate(task(), engine, events.append)
    (request,) = asked
    assert (request.attention, request.page) == ("trtllm_mha", 64)
    assert (request.heads, request.kv_heads, request.head_dim) == (32, 8, 128)
    phases = [event.name for event in events if isinstance(event, PhaseStarted)]
    assert phases.index("rates") > phases.index("measure"), "the engine has told, and its memory is free"
    assert engine.stopped
    assert found.notes == (
        "decode attention was measured with flashinfer, 128 x 2048 tokens: no trtllm_mha here",
        *[note for note in found.notes if note.startswith(("the step model is", "the measured times do not grow"))],
    )
    assert dict(found.engine) == {"decode attention": "trtllm_mha", "chunk": "16384"}


def test_the_figures_say_what_they_are_of(asked: list[Request]) -> None:
    found = calibrate(task(tp_size=2), Started(INFO), lambda _: None)
    assert (found.step.model, found.step.digest, found.step.gpus) == ("llama-3-8b", LLAMA.digest, 2)


@pytest.mark.parametrize(("chunk", "steps"), [(16_384, 1), (8192, 1), (4096, 2), (2048, 4), (None, 1)])
def test_a_long_prompt_takes_as_many_steps_as_the_engines_chunk_makes_of_it(chunk: int | None, steps: int) -> None:
    policy = measure._policy(task().settings, msgspec.structs.replace(INFO, chunk=chunk))
    assert len(schedule((Load(8183, 0, 1),), policy)) == steps


def test_latent_attention_is_said_not_to_be_what_was_measured(asked: list[Request]) -> None:
    deepseek = replace(task(), card=load_card("deepseek-v3"))
    found = calibrate(deepseek, Started(INFO), lambda _: None)
    assert asked[0].kv_heads == 1
    assert any("in place of the latent vectors" in note for note in found.notes)
