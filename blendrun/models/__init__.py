"""Models: their cards (dimensions and costs), and from a name to a folder that an engine loads."""

from __future__ import annotations

from blendrun.models.cards import ModelCard, card_from_config, list_aliases, load_card
from blendrun.models.resolve import ResolvedModel, resolve_model

__all__ = ["ModelCard", "ResolvedModel", "card_from_config", "list_aliases", "load_card", "resolve_model"]
