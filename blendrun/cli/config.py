"""`--config FILE`: options of a command from YAML. What stands on the command line wins."""

from __future__ import annotations

import json
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
    given = {key.replace("-", "_"): value for key, value in _read(config).items()}
    if isinstance(arguments := given.pop("engine_args", None), dict):
        listed = given.get("engine_arg") or []
        given["engine_arg"] = [
            *(listed if isinstance(listed, list) else [listed]),
            *(f"{name}={_as_json(value)}" for name, value in arguments.items()),
        ]
    elif arguments is not None:
        raise UsageError(f"{config}: engine_args must be a mapping, for example `max_running_requests: 16`")
    known = sorted(set(options) - {"config", "jobs"})
    if unknown := sorted(set(given) - set(known)):
        raise UsageError(f"{config}: unknown option {unknown[0]!r}; known are {', '.join(known)}")
    for name, value in _parse(context, given, config).items():
        source = context.get_parameter_source(name)
        if source is None or source.name in ("DEFAULT", "DEFAULT_MAP"):
            options[name] = value
        elif name == "engine_arg":
            # Argument by argument: the later one of a name counts.
            options[name] = [*value, *options[name]]
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


def _parse(context: typer.Context, given: dict[str, Any], config: Path) -> dict[str, Any]:
    """The values of `given` as the command itself reads them from a command line."""
    words = [word for name, value in given.items() for word in _words(name, value, context.params[name], config)]
    try:
        parsed = context.command.make_context(context.info_name, [*words, "--", "jobs"]).params
    except typer.BadParameter as error:
        raise UsageError(f"{config}: {error.format_message()}") from error
    except UsageError as error:
        raise UsageError(f"{config}: {error}") from error
    return {name: parsed[name] for name in given}


def _words(name: str, value: object, default: object, config: Path) -> list[str]:
    """An option as it would stand on the command line. default: a bool where the option is a flag."""
    option = f"--{name.replace('_', '-')}"
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise UsageError(f"{config}: {name} is true or false, not {value!r:.60}")
        if value:
            return [option]
        return ["--no-resume"] if name == "resume" else []
    values = value if isinstance(value, list) and name == "engine_arg" else [value]
    if any(isinstance(item, list | dict) or item is None for item in values):
        raise UsageError(f"{config}: {name} takes one value, not {value!r:.60}")
    # YAML reads `on` and `off` as true and false.
    return [f"{option}={('off', 'on')[item] if isinstance(item, bool) else item}" for item in values]


def _as_json(setting: object) -> str:
    """As `--engine-arg` reads it: a YAML `true` must not become the text "True"."""
    return json.dumps(setting, default=str)
