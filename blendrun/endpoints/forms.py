"""Whether the grammar compiler keeps all that the forms of a request's answers say."""

from __future__ import annotations

from typing import Any

from blendrun.endpoints.schemas import check_pattern, check_schema
from blendrun.errors import ErrorCode, LineError


def check_forms(body: dict[str, Any]) -> None:
    """body: in SGLang's words. Raises LineError `schema_unsupported` for the first thing that would not be kept."""
    if isinstance(pattern := body.get("regex"), str):
        check_pattern(pattern, "regex")
    wanted = body.get("response_format")
    if isinstance(wanted, dict) and wanted.get("type") == "json_schema":
        schema = wanted.get("json_schema")
        if isinstance(schema, dict):
            check_schema(schema.get("schema"), "response_format.json_schema.schema")
    choice, tools = body.get("tool_choice"), body.get("tools")
    for number, tool in enumerate(tools if isinstance(tools, list) and choice != "none" else ()):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            raise LineError(
                ErrorCode.INVALID_REQUEST,
                f'`tools[{number}].function` must be an object: {{"type": "function", "function": {{"name": "...", '
                '"parameters": {...}}}',
            )
        chosen = choice.get("function") if isinstance(choice, dict) else None
        named = isinstance(chosen, dict) and chosen.get("name") == function.get("name")
        if named or choice == "required" or function.get("strict") is True:
            check_schema(function.get("parameters"), f"tools[{number}].function.parameters", of_tool=True)
