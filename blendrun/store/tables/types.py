"""Arrow types of what cells hold, of JSON schemas, and arrays of cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from blendrun.jobs.tables.arrow import arrow
from blendrun.jobs.tables.cells import plain
from blendrun.jobs.tables.text_rows import is_utf8
from blendrun.store.tables.cells import Of, Shape

# A schema that is nested deeper stands as JSON text.
_DEEPEST = 8


def arrow_type(of: Of, shape: Shape, schema: dict[str, Any] | None) -> Any:
    """Of a column. schema: of the answers, for PARSED."""
    lib = arrow("writing Parquet")
    vector = lib.list_(lib.float32(), -1 if shape.size is None else shape.size)
    several, inputs = shape.several, shape.inputs
    made = {
        Of.TEXT: lambda: lib.string(),
        Of.JSON: lambda: lib.string(),
        Of.TOKENS: lambda: lib.int64(),
        Of.NUMBERS: lambda: lib.list_(lib.float64()),
        Of.PLACES: lambda: lib.list_(lib.int32()),
        Of.TEXTS: lambda: lib.list_(lib.string()) if several else lib.string(),
        Of.LABELS: lambda: lib.list_(lib.string()) if inputs else lib.string(),
        Of.PROBS: lambda: lib.list_(lib.list_(lib.float64())) if inputs else lib.list_(lib.float64()),
        Of.VECTOR: lambda: lib.list_(vector) if inputs else vector,
        Of.PARSED: lambda: lib.list_(schema_type(schema)) if several else schema_type(schema),
    }
    return made[of]()


def schema_type(schema: Any, depth: int = 0) -> Any:
    """The type that every value of a JSON schema has; text, for JSON, where it has several."""
    lib = arrow("writing Parquet")
    kind = schema.get("type") if isinstance(schema, dict) and depth < _DEEPEST else None
    if isinstance(kind, list):
        # Null is in every type.
        named = [each for each in kind if each != "null"]
        kind = named[0] if len(named) == 1 else None
    if kind == "object" and isinstance(properties := schema.get("properties"), dict) and properties:
        return lib.struct([(name, schema_type(each, depth + 1)) for name, each in properties.items()])
    if kind == "array" and isinstance(schema.get("items"), dict):
        return lib.list_(schema_type(schema["items"], depth + 1))
    plain_types = {"integer": lib.int64, "number": lib.float64, "boolean": lib.bool_}
    return plain_types.get(str(kind), lib.string)()


def arrow_array(values: Sequence[Any], wanted: Any) -> Any:
    """The cells of a column. What does not fit its type is null."""
    lib = arrow("writing Parquet")
    if lib.types.is_fixed_size_list(wanted):
        return _vectors(values, wanted)
    return lib.array([fitted(value, wanted) for value in values], wanted)


def fitted(value: Any, wanted: Any) -> Any:
    """A value as `wanted` has it: JSON text where that is text; None for what does not fit."""
    types = arrow("writing Parquet").types
    if value is None:
        return None
    if types.is_string(wanted):
        return _text(value)
    if types.is_struct(wanted):
        if not isinstance(value, dict):
            return None
        return {
            wanted.field(place).name: fitted(value.get(wanted.field(place).name), wanted.field(place).type)
            for place in range(wanted.num_fields)
        }
    if types.is_list(wanted):
        if isinstance(value, np.ndarray):
            return value
        return [fitted(each, wanted.value_type) for each in value] if isinstance(value, list) else None
    if types.is_fixed_size_list(wanted):
        return value
    if types.is_boolean(wanted):
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if types.is_floating(wanted):
        return float(value)
    whole = int(value) if abs(value) < float("inf") and value == int(value) else None
    return whole if whole is not None and -(2**63) <= whole < 2**63 else None


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else plain(value)
    return text if is_utf8(text) else utf8(text).decode(errors="replace")


def utf8(text: str) -> bytes:
    """The bytes of a text, as they were read where that was no UTF-8."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        # Half of a pair, from JSON.
        return text.encode(errors="replace")


def _vectors(values: Sequence[Any], wanted: Any) -> Any:
    """Vectors of one size, without a Python object a number."""
    lib = arrow("writing Parquet")
    size = wanted.list_size
    numbers = np.zeros((len(values), size), np.float32)
    missing = np.ones(len(values), np.bool_)
    for place, value in enumerate(values):
        if value is not None:
            numbers[place], missing[place] = value, False
    return lib.FixedSizeListArray.from_arrays(lib.array(numbers.ravel()), size, mask=lib.array(missing))


def json_text(value: Any) -> str | None:
    """For a column of JSON."""
    return None if value is None else orjson.dumps(value).decode()
