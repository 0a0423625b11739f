"""A sweep fits the engine, whatever the engine's size, and lets every constant be told apart."""

from __future__ import annotations

import pytest

from blendrun.calibrate.base import Probe
from blendrun.calibrate.design import Room, probes, warm_up
from tests.calibrate.known import CPU_ROOM, GPU_ROOM


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(
    ("platform", "room"),
    [
        ("cpu", CPU_ROOM),
        ("gpu", GPU_ROOM),
        ("cpu", Room(4096, 8192, 32)),
        ("cpu", Room(32_768, 512, 32)),
        ("cpu", Room(32_768, 8192, 4)),
        ("gpu", Room(50_000, 8192, 64)),
        ("gpu", Room(50_000, 512, 64)),
    ],
)
def test_no_batch_asks_for_more_than_the_engine_holds(platform: str, room: Room, quick: bool) -> None:
    planned = probes(platform, room, quick=quick)  # type: ignore[arg-type]
    assert planned
    for probe in planned:
        assert max(ask.prompt + ask.output for ask in probe.asks) < room.context_length
        if probe.short is not None:
            assert len(probe.asks) <= room.max_running
            assert sum(ask.prompt + ask.output for ask in probe.asks) < room.kv_tokens


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(("platform", "room"), [("cpu", CPU_ROOM), ("gpu", GPU_ROOM)])
def test_names_are_unique_and_one_batch_is_held_out(platform: str, room: Room, quick: bool) -> None:
    planned = probes(platform, room, quick=quick)  # type: ignore[arg-type]
    assert len({probe.name for probe in planned}) == len(planned)
    assert sum(probe.held_out for probe in planned) == 1
    assert not warm_up().held_out


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(("platform", "room"), [("cpu", CPU_ROOM), ("gpu", GPU_ROOM), ("gpu", Room(60_000, 8192, 64))])
def test_a_decode_batch_finds_its_prompts_in_the_cache(platform: str, room: Room, quick: bool) -> None:
    primed: dict[int, int] = {}
    for probe in probes(platform, room, quick=quick):  # type: ignore[arg-type]
        for ask in probe.asks:
            if probe.short is not None:
                assert primed[ask.text] >= ask.prompt, probe.name
            elif not probe.fresh:
                primed[ask.text] = ask.prompt


def test_the_small_runtime_has_batches_of_all_sizes_and_contexts() -> None:
    sizes = {(len(probe.asks), probe.asks[0].prompt) for probe in probes("cpu", CPU_ROOM) if probe.short is not None}
    assert {rows for rows, _ in sizes} == {1, 2, 4, 8, 16, 32}
    assert {context for _, context in sizes} == {64, 256, 512, 1024}


def decodes(planned: tuple[Probe, ...]) -> list[tuple[int, int]]:
    return [(len(probe.asks), probe.asks[0].prompt) for probe in planned if probe.short is not None]


def test_a_quick_sweep_of_a_gpu_has_answers_longer_than_handing_them_over_takes() -> None:
    planned = probes("gpu", GPU_ROOM, quick=True)
    assert sorted(decodes(planned)) == [(32, 2048), (64, 128), (128, 128), (256, 128)]
    assert {(probe.short, probe.asks[0].output) for probe in planned if probe.short is not None} == {(32, 96)}
    assert [probe.asks[0].prompt for probe in planned if len(probe.asks) == 1] == [512, 2048, 8192]
    assert {probe.repeats for probe in planned} == {1}


def test_a_batch_that_does_not_fit_is_measured_with_as_many_rows_as_do() -> None:
    small = Room(kv_tokens=100_000, context_length=8192, max_running=320)
    assert sorted(decodes(probes("gpu", small, quick=True))) == [(19, 2048), (64, 128), (128, 128), (256, 128)]
    lengths = [probe.asks[0].prompt for probe in probes("gpu", small, quick=True) if len(probe.asks) == 1]
    assert lengths == [512, 2048, 8183], "and a prompt that is too long by its beginning"
    # An engine of few requests at once: one batch a context, and none twice.
    assert sorted(decodes(probes("gpu", Room(400_000, 8192, 32), quick=True))) == [(32, 128), (32, 2048)]
