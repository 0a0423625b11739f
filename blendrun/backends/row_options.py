"""What may be said of a table's rows, the same for a run, a plan and a conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec
import orjson

from blendrun.errors import InputMissingError, UsageError
from blendrun.jobs.tables.columns import Columns
from blendrun.paths import at_home


class RowArguments(TypedDict, total=False):
    """The fields of `RowOptions`, for those who call from Python."""

    prompt_column: str | None
    messages_column: str | None
    image_column: str | None
    id_column: str | None
    system_prompt: str | None
    prompt_template: str | None
    max_tokens: int | None
    temperature: float | None
    schema: Path | str | dict[str, Any] | None


class RowOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How rows become requests. schema: of the answers; a JSON file, or from Python the schema itself."""

    prompt_column: str | None = None
    messages_column: str | None = None
    image_column: str | None = None
    id_column: str | None = None
    system_prompt: str | None = None
    prompt_template: str | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    schema: str | dict[str, Any] | None = None

    @property
    def says_rows(self) -> bool:
        """Whether anything was said of how rows become requests."""
        return any(getattr(self, name) is not None for name in RowOptions.__struct_fields__)

    def columns(self, url: str | None, limit: int | None) -> Columns:
        """The same with the schema read, checked. url: of the lines. limit: rows to take.

        Raises UsageError, InputMissingError.
        """
        found = Columns(
            prompt=self.prompt_column,
            messages=self.messages_column,
            image=self.image_column,
            id=self.id_column,
            system=self.system_prompt,
            template=self.prompt_template,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            schema=_schema(self.schema),
            url=url,
            limit=limit,
        )
        found.check()
        return found


def _schema(given: str | dict[str, Any] | None) -> dict[str, Any] | None:
    if not isinstance(given, str):
        return given
    try:
        schema = orjson.loads(Path(at_home(given)).read_bytes())
    except OSError as error:
        raise InputMissingError(
            f"cannot read {given}: {error.strerror}; --schema is a file with a JSON schema"
        ) from error
    except orjson.JSONDecodeError as error:
        raise UsageError(f"--schema {given} is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise UsageError(f"--schema {given} holds no schema: it must be a JSON object")
    return schema
