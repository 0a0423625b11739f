"""From options that several commands have to the settings of an engine."""

from __future__ import annotations

from typing import Any

from blendrun.cli.names import DeviceName
from blendrun.engine.base import EngineSettings, Platform
from blendrun.engine.settings import available_cores, detect_platform
from blendrun.models import ResolvedModel


def platform_of(options: dict[str, Any]) -> Platform:
    """Where `--device` has the engine run."""
    if options["device"] == DeviceName.AUTO:
        return detect_platform()
    return "gpu" if options["device"] == DeviceName.GPU else "cpu"


def threads_of(options: dict[str, Any]) -> int:
    """CPU threads of one engine: replicas share the cores."""
    return int(options["threads"] or max(available_cores() // (options.get("replicas") or 1), 1))


def engine_settings(
    model: ResolvedModel, platform: Platform, options: dict[str, Any], arguments: dict[str, Any]
) -> EngineSettings:
    """Of a command's options; arguments: of SGLang's engine, from `--engine-arg`."""
    return EngineSettings(
        model_path=str(model.path),
        platform=platform,
        threads=threads_of(options),
        trust_remote_code=options.get("trust_remote_code", False),
        server_args=arguments,
    )


def context_length(model: ResolvedModel, arguments: dict[str, Any]) -> int | None:
    """Tokens of the engine's context; None where nobody says."""
    return (
        arguments.get("context_length")
        or model.context_length
        or (model.card.context_length if model.card is not None else None)
    )
