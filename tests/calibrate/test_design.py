"""A sweep fits the engine, whatever the engine's size, and lets every constant be told apart."""

from __future__ import annotations

import pytest

from blendrun.calibrate.design import Room, probes, warm_up
from tests.calibrate.known import CPU_ROOM, GPU_ROOM


@pytest.mark.parametrize(
    ("platform", "room"),
    [
        ("cpu", CPU_ROOM),
        ("gpu", GPU_ROOM),
        ("cpu", Room(4096, 8192, 32)),
        ("cpu", Room(32_768, 512, 32)),
        ("cpu", Room(32_768, 8192, 4)),
        ("gpu", Room(50_000, 8192, 64)),
    ],
)
def test_no_batch_asks_for_more_than_the_engine_holds(platform: str, room: Room) -> None:
    planned = probes(platform, room)  # type: ignore[arg-type]
    assert planned
    for probe in planned:
        assert max(ask.prompt + ask.output for ask in probe.asks) < room.context_length
        if probe.short is not None:
            assert len(probe.asks) <= room.max_running
            assert sum(ask.prompt + ask.output for ask in probe.asks) < room.kv_tokens


@pytest.mark.parametrize("quick", [False, True])
def test_names_are_unique_and_one_batch_is_held_out(quick: bool) -> None:
    planned = probes("cpu", CPU_ROOM, quick=quick)
    assert len({probe.name for probe in planned}) == len(planned)
    assert sum(probe.held_out for probe in planned) == 1
    assert not warm_up().held_out


def test_a_decode_batch_finds_its_prompts_in_the_cache() -> None:
    primed: dict[int, int] = {}
    for probe in probes("cpu", CPU_ROOM):
        for ask in probe.asks:
            if probe.short is not None:
                assert primed[ask.text] >= ask.prompt, probe.name
            elif not probe.fresh:
                primed[ask.text] = ask.prompt


def test_the_small_runtime_has_batches_of_all_sizes_and_contexts() -> None:
    sizes = {(len(probe.asks), probe.asks[0].prompt) for probe in probes("cpu", CPU_ROOM) if probe.short is not None}
    assert {rows for rows, _ in sizes} == {1, 2, 4, 8, 16, 32}
    assert {context for _, context in sizes} == {64, 256, 512, 1024}
