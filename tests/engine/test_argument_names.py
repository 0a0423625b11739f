"""Every argument that is named here is one of SGLang's: a slip would end the engine's start with a TypeError."""

from __future__ import annotations

import pytest

from blendrun.engine import settings, sizes
from blendrun.engine.base import AdaptiveStep, EngineSettings, SchedulerSettings
from blendrun.engine.embedding import embedding_arguments
from blendrun.engine.extras import draft_arguments, host_arguments
from blendrun.engine.settings import server_args
from blendrun.engine.shared_reads import CASCADE
from blendrun.engine.sizes import PlannedSize, shrunk_arguments, sized_arguments

pytestmark = pytest.mark.runtime


def test_all_are_arguments_of_sglang() -> None:
    arguments = pytest.importorskip("sglang.srt.server_args", reason="needs sglang")
    known = set(arguments.ServerArgs.__struct_fields__)
    named = settings._CAPACITY_ARGS | {*sizes._GRAPHS, *sizes._WHOLE_NUMBERS, "dp_size"}
    sized = shrunk_arguments(sized_arguments({"max_total_tokens": 99}, "gpu", PlannedSize(9, 8, 0.8)), "gpu", 1)
    budget = AdaptiveStep(floor=256, most=1000, ratio=1.0, weight_tokens=1.0, row_tokens=0.1, cached_tokens=0.01)
    scheduler = SchedulerSettings(budget=budget, plan_order=True)
    for platform, overlap in (("cpu", "mixed"), ("gpu", "mixed"), ("gpu", "pdmux")):
        asked = {} if overlap == "pdmux" else sized
        made = EngineSettings("m", platform, 1, server_args=asked, scheduler=scheduler, overlap=overlap)  # type: ignore[arg-type]
        named |= set(server_args(made))
    for extra in (draft_arguments("exclusive", {}, 4, 300), host_arguments("gpu", {}, 64)):
        assert isinstance(extra, dict)
        named |= set(extra)
    cascade = EngineSettings("m", "gpu", 1, server_args={"attention_backend": CASCADE})
    named |= set(server_args(cascade))
    named |= set(embedding_arguments({}, "gpu", bidirectional=True, shares=False, compute_capability=(9, 0)))
    assert len(known) > 300
    assert sorted(named - known) == []
