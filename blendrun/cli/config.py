"""`--config FILE`: options of a command from YAML. What stands on the command line wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from blendrun.errors import InputMissingError, UsageError


def apply_config(context: typer.Context, config: Path | None) -> dict[str, Any]:
    """All options of the command by parameter name, with those of `config` where the command line is silent.

    Keys are the long options with - or _; `engine_args` is a mapping. Raises UsageError naming a wrong key or
    value, InputMissingError for a missing file.
    """
    options = dict(context.params)
    if config is None:
        return options
    for key, value in _read(config).items():
        name = key.replace("-", "_")
        if name == "engine_args" and isinstance(value, dict):
            name, value = "engine_arg", [f"{argument}={setting}" for argument, setting in value.items()]
        if name not in options or name in ("config", "jobs"):
            known = ", ".join(sorted(set(options) - {"config", "jobs"}))
            raise UsageError(f"{config}: unknown option {key!r}; known are {known}")
        source = context.get_parameter_source(name)
        if source is None or source.name in ("DEFAULT", "DEFAULT_MAP"):
            options[name] = _convert(context, name, value, config)
    return options


def _read(config: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputMissingError(f"cannot read {config}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{config} is not YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UsageError(f"{config} must be a mapping of options, for example `model: smollm2-135m`")
    return content


def _convert(context: typer.Context, name: str, value: object, config: Path) -> Any:
    """The value as the option's own type reads it."""
    parameter = next(parameter for parameter in context.command.params if parameter.name == name)
    words = [str(item) for item in value] if isinstance(value, list) else str(value)
    try:
        return parameter.type_cast_value(context, words)  # type: ignore[attr-defined]  # click's, untyped by typer
    except typer.BadParameter as error:
        raise UsageError(f"{config}: {name}: {error}") from error
