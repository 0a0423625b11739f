"""What a workload is to be, refused where it makes no sense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from blendrun.errors import UsageError
from blendrun.synth.kinds import COMPUTE, MEMORY, SHARE, Kind

MAX_REQUESTS = 10_000_000
# How far a workload may be from what was asked for: relative for the density, in points for the sharing.
RHO_TOLERANCE, SHARING_TOLERANCE = 0.02, 0.01


class UnreachableError(UsageError):
    """No mix of these kinds, or none of so few requests, has the density and sharing that were asked for."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Three kinds of requests and what their mix is to come to.

    rho: seconds of compute over seconds of memory, as the paper counts them (`workload.paper_rho`).
    sharing: prompt tokens that an infinite prefix cache saves over all prompt tokens, 0 to 1.
    requests: of all kinds together. seed: the same one gives the same workload.
    """

    compute: Kind
    memory: Kind
    share: Kind
    rho: float
    sharing: float
    requests: int
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises UsageError naming the number that makes no sense."""
        if not (math.isfinite(self.rho) and self.rho > 0):
            raise UsageError(f"--rho {self.rho:g}: a density is a number above 0, for example 1.4")
        if not 0 <= self.sharing < 1:
            raise UsageError(f"--sharing {self.sharing:g}: it is a share of the prompt tokens, from 0 to below 1")
        if not 1 <= self.requests <= MAX_REQUESTS:
            raise UsageError(f"--requests {self.requests}: give a number from 1 to {MAX_REQUESTS:,}")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: give a number of 0 or more")

    @classmethod
    def of(
        cls, compute: str, memory: str, share: str, *, rho: float, sharing: float, requests: int, seed: int = 0
    ) -> Recipe:
        """A recipe by the names of its kinds. Raises UsageError for a name or number that makes no sense."""
        kinds = (
            _named(COMPUTE, compute, "--compute"),
            _named(MEMORY, memory, "--memory"),
            _named(SHARE, share, "--share"),
        )
        return cls(*kinds, rho=rho, sharing=sharing, requests=requests, seed=seed)

    @property
    def kinds(self) -> tuple[Kind, Kind, Kind]:
        """In the order of `Synthesis.kind`."""
        return self.compute, self.share, self.memory


def _named(known: Mapping[str, Kind], name: str, option: str) -> Kind:
    kind = known.get(name.lower())
    if kind is None:
        raise UsageError(f"{option} {name}: known are {', '.join(known)}")
    return kind
