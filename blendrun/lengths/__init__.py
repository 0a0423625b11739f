"""How long answers will be: what is known, what was seen, what can be guessed.

history = History.open().recall(model.identity, prompts.cluster)
lengths = estimate(prompts, tree, samples=Samples(prompt, tokens, finished), history=history)
"""

from __future__ import annotations

from blendrun.lengths.base import Lengths, LengthSource
from blendrun.lengths.estimate import LengthMode, estimate, length_report
from blendrun.lengths.evidence import Recalled, Samples
from blendrun.lengths.history import History, HistoryUnavailableError, data_folder

__all__ = [
    "History",
    "HistoryUnavailableError",
    "LengthMode",
    "LengthSource",
    "Lengths",
    "Recalled",
    "Samples",
    "data_folder",
    "estimate",
    "length_report",
]
