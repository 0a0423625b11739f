"""What JSON of others takes in memory once it is read: a file of a few megabytes may hold millions of empty lists."""

from __future__ import annotations

# What a value takes at most, for each kind; a reader needs it for all of a line, or of an answer.
_OBJECT_BYTES, _ARRAY_BYTES, _VALUE_BYTES = 232, 64, 40
# Of its own length at most.
_MOST_TIMES = 8


def too_many_values(content: bytes, most: int) -> bool:
    """Whether reading JSON takes more than eight times the bytes that it may have."""
    # What is short can have no more, whatever it holds.
    if len(content) * (1 + _OBJECT_BYTES) <= _MOST_TIMES * most:
        return False
    size = len(content) + _OBJECT_BYTES * content.count(b"{") + _ARRAY_BYTES * content.count(b"[")
    return size + _VALUE_BYTES * content.count(b",") > _MOST_TIMES * most
