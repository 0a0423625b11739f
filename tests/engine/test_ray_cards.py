"""The hardware card of a Ray cluster, by what its nodes say of their accelerators."""

from __future__ import annotations

import pytest

from blendrun.engine.ray.cluster import Cluster


@pytest.mark.parametrize(
    ("accelerators", "card"),
    [
        (["H100"], "h100-sxm"),
        (["H100", "H100"], "h100-sxm"),
        (["A100"], "a100-80g"),
        (["L40S"], "l40s"),
        (["H100", "L4"], None),
        (["V100"], None),
        ([], None),
    ],
)
def test_the_card_of_a_cluster(accelerators: list[str], card: str | None) -> None:
    nodes = tuple({"CPU": 8.0, f"accelerator_type:{name}": 1.0} for name in accelerators)
    assert Cluster("here:1", nodes).card == card
