"""`blendrun models --json` and `blendrun hardware --json`: versioned schemas, made of these classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from blendrun.cost.base import Figure, HardwareCard
from blendrun.models.card import ModelCard

SCHEMA_VERSION = 1
# Bytes of a weight as checkpoints of a method hold it (scales included); others are of 16 bits.
_WEIGHT_BYTES = {"fp8": 1.0, "mxfp4": 4.25 / 8}


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One alias. hub_id: on the Hugging Face hub. context_length: tokens of prompt and answer together. parameters: of
    the whole model. gigabytes: of the weights as published, 10^9 bytes, estimated from the dimensions. license: as the
    publisher calls it. here: folder or file on this machine that has it whole, or null.
    """

    alias: str
    title: str
    hub_id: str | None
    context_length: int
    parameters: int
    gigabytes: float
    license: str
    here: str | None


@dataclass(frozen=True, slots=True)
class KnownModels:
    """All aliases that `--model` takes, by name."""

    schema_version: int
    models: tuple[KnownModel, ...]


@dataclass(frozen=True, slots=True)
class KnownCard:
    """One hardware card: bytes, FLOP/s and byte/s of one device, each with its source. own: what plans take here where
    none is named. file: that it was read from.
    """

    name: str
    title: str
    kind: str
    memory: Figure
    peak_flops: Figure
    achieved_flops: Figure
    peak_bandwidth: Figure
    achieved_bandwidth: Figure
    own: bool
    file: str


@dataclass(frozen=True, slots=True)
class KnownCards:
    """All names that `--hardware` takes."""

    schema_version: int
    cards: tuple[KnownCard, ...]


def known_model(card: ModelCard, here: str | None) -> KnownModel:
    """An alias for the list. here: where this machine has it."""
    return KnownModel(
        alias=card.alias,
        title=card.title,
        hub_id=card.source.hub if card.source is not None else None,
        context_length=card.context_length,
        parameters=card.published_parameters or card.parameters_total,
        gigabytes=round(_weight_bytes(card) / 1e9, 2),
        license=card.license,
        here=here,
    )


def known_card(card: HardwareCard, *, own: bool, file: str) -> KnownCard:
    """A card for the list."""
    rates = (card.memory, card.peak_flops, card.achieved_flops, card.peak_bandwidth, card.achieved_bandwidth)
    return KnownCard(card.name, card.title, card.kind, *rates, own, file)


def _weight_bytes(card: ModelCard) -> float:
    """Embedding and head stay in 16 bits."""
    layers = card.layer_parameters_total * _WEIGHT_BYTES.get(card.quantization or "", 2.0)
    return layers + 2 * (card.parameters_total - card.layer_parameters_total)


def models_json(found: Iterable[KnownModel]) -> bytes:
    """One line of JSON."""
    return msgspec.json.encode(KnownModels(SCHEMA_VERSION, tuple(found)))


def hardware_json(found: Iterable[KnownCard]) -> bytes:
    """One line of JSON."""
    return msgspec.json.encode(KnownCards(SCHEMA_VERSION, tuple(found)))


def models_schema() -> bytes:
    """The JSON Schema of `models_json`'s output."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(KnownModels)), indent=2)


def hardware_schema() -> bytes:
    """The JSON Schema of `hardware_json`'s output."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(KnownCards)), indent=2)
