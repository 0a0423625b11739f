"""SGLang's own request and answer, through the steps that its OpenAI classes have. In the engine process only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse

from blendrun.engine import sglang_names


@dataclass(frozen=True, slots=True)
class Asked:
    """A body of /generate."""

    fields: dict[str, Any]


def as_asked(**fields: Any) -> Asked:
    """What `Serving` makes of a body."""
    return Asked(fields)


class NativeGenerate:
    """As SGLang's serving classes, for requests that need no translation."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def _validate_request(self, _: Asked) -> None:
        """Whatever is wrong with it was said when the line was read."""

    def _convert_to_internal_request(self, asked: Asked, _: Any) -> tuple[Any, Asked]:
        given = {name: value for name, value in asked.fields.items() if name != "model"}
        parameters = {name: value for name, value in (given.get("sampling_params") or {}).items() if value is not None}
        return sglang_names.load(sglang_names.GENERATE)(**given | {"sampling_params": parameters}), asked

    async def _handle_non_streaming_request(self, adapted: Any, asked: Asked, raw: Any) -> Any:
        try:
            found = await anext(self._manager.generate_request(adapted, raw))
        except ValueError as error:
            return JSONResponse({"message": str(error)}, status_code=400)
        return {"outputs": found} if isinstance(found, list) else found
