"""Which model answers a batch, whatever its lines name, and what its client is told of that: as `blendrun run` says it.

Not known here is what servers list; where adapters are declared, a name that is not served is an error line.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from blendrun.backends.options import RunOptions
from blendrun.backends.permissions import rules_of
from blendrun.endpoints.adapters import other_models
from blendrun.engine.http.settings import parse_servers
from blendrun.engine.settings import detect_platform
from blendrun.errors import BlendrunError
from blendrun.models.card import ModelCard
from blendrun.models.resolve import resolve_model
from blendrun.names import EngineName


@dataclass(slots=True)
class Named:
    """options: of any run. One thread at a time."""

    options: RunOptions
    _base: tuple[str, ...] | None = field(default=None)

    def of(self, names: Counter[str]) -> tuple[str | None, list[str] | None]:
        """The model that answers, and notes, if there are any. names: how many lines give each, in their order."""
        if parse_servers(self.options.engine):
            return self.options.model or next(iter(names), None), None
        label = self.options.label
        if self.options.engine_args.get("lora_paths") or not names.keys() - {label}:
            return label, None
        if self._base is None:
            self._base = rules_of(self.options, self.options.engine_args, self._card()).base or ()
        note = other_models(names, label, self._base)
        return label, None if note is None else [note]

    def _card(self) -> ModelCard | None:
        """Of a model that is on this machine; it has more names than one."""
        if self.options.engine == EngineName.SGLANG and self.options.model is not None:
            with suppress(BlendrunError, OSError):
                platform = detect_platform()
                named = self.options.model
                return resolve_model(named, platform=platform, download=False, weights=False, light=True).card
        return None
