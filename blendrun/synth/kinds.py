"""The kinds of requests that a workload is mixed of: published mean lengths and sharing (docs/paper.md#workloads).

Lengths are drawn independently from log-normal distributions, rounded, at least 1. Published: the means. Chosen here:
the coefficients of variation (standard deviation over mean). Those of the answers are such that the kind has about the
density that the paper prints for it (Llama-3-8B, A100 at peak rates), since KV reads grow with the square of an
answer's length; those of the prompts, which hardly move it, are guesses.

Each kind has a system prompt of its own. Prefixes are whole blocks of BLOCK tokens, the largest size that divides what
each kind is published to share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BLOCK = 5


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request. Tokens.

    prompt, output: mean lengths, the prompt's with its prefix.
    prompt_spread: coefficient of variation of what follows the prefix; output_spread: of the answer, 0 where all are
        equally long.
    prefix: tokens that requests of one group share, of which the first `system` are those of all groups; both whole
        blocks.
    groups: of requests with a prefix of their own, equally frequent.
    source: where the means are from.
    """

    name: str
    prompt: int
    prompt_spread: float
    output: int
    output_spread: float
    prefix: int
    source: str
    system: int = BLOCK
    groups: int = 1

    @property
    def own(self) -> int:
        """Mean tokens of a prompt that follow its prefix."""
        return self.prompt - self.prefix

    @property
    def head_blocks(self) -> int:
        """Distinct blocks in the prefixes of all groups."""
        return (self.system + self.groups * (self.prefix - self.system)) // BLOCK


def _by_name(*kinds: Kind) -> Mapping[str, Kind]:
    return {kind.name: kind for kind in kinds}


_TABLE = "BlendServe (arXiv 2411.16102), Figure 2 and Table 4"
COMPUTE = _by_name(
    Kind("burstgpt", 244, 1.0, 27, 3.7, prefix=5, source=_TABLE),
    Kind("azure", 2508, 1.0, 23, 3.1, prefix=25, system=25, source=_TABLE),
    # Its density, 3.73 where all answers have 256 tokens' mean, leaves little room for spread.
    Kind("wildchat", 496, 1.0, 256, 0.25, prefix=95, system=95, source=f"{_TABLE}; answers scaled to 256 as there"),
    # The paper prints no lengths: those of the vLLM paper, and its own sharing (0.02) and density (3.12).
    Kind("sharegpt", 161, 1.0, 338, 0.5, prefix=5, source="Kwon et al. 2023 (SOSP), Figure 11"),
)
MEMORY = _by_name(
    Kind("openvid", 121, 0.3, 16_000, 0.18, prefix=5, source=f"{_TABLE}; answers scaled to 16,000 as there"),
    Kind("limo", 109, 0.5, 7_617, 0.7, prefix=5, source="BlendServe (arXiv 2411.16102), Figure 2"),
)
# 57 subjects, each with the same shots before every question; an answer is a letter and the end.
SHARE = _by_name(Kind("mmlu", 804, 0.5, 2, 0.0, prefix=695, groups=57, source=_TABLE))
