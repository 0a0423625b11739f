"""What a file is that holds no requests: by its first bytes, and by its first line. Names are not asked."""

from __future__ import annotations

import re
from typing import Any

import orjson

# Bytes that tell what a file is; a tar archive has its mark at byte 257.
HEAD_BYTES = 4096
_UNPACK = "unpack it, or use .gz or .zst"
# Formats people try; each line of such a file would be refused on its own, which helps nobody.
_MAGIC = (
    (b"ARROW1", "an Arrow file; write it as JSON lines"),
    (b"Obj\x01", "an Avro file; write it as JSON lines"),
    (b"ORC", "an ORC file; write it as JSON lines"),
    (b"\x89HDF", "an HDF5 file; write it as JSON lines"),
    (b"SQLite format 3\0", "a SQLite database; write it as JSON lines"),
    (b"\x93NUMPY", "a NumPy array; write it as JSON lines"),
    (b"%PDF", "a PDF; write its requests as JSON lines"),
    (b"PK\x03\x04", "a zip archive; unpack it"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"\xfd7zXZ", f"xz data; {_UNPACK}"),
    (b"\x5d\0\0", f"lzma data; {_UNPACK}"),
    (b"BZh", f"bzip2 data; {_UNPACK}"),
    (b"\x04\x22\x4d\x18", f"lz4 data; {_UNPACK}"),
    (b"\xff\x06\0\0sNaPpY", f"snappy data; {_UNPACK}"),
    (b"LZIP", f"lzip data; {_UNPACK}"),
    (b"\x1f\x8b", "gzip data inside what was unpacked; unpack it once"),
    (b"\x28\xb5\x2f\xfd", "zstd data inside what was unpacked; unpack it once"),
    (b"\xff\xfe\0\0", "UTF-32 text; save it as UTF-8"),
    (b"\0\0\xfe\xff", "UTF-32 text; save it as UTF-8"),
    (b"\xff\xfe", "UTF-16 text; save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text; save it as UTF-8"),
    (b"version https://git-lfs.", "a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`"),
)
_PAGE = re.compile(rb"\s*<(?:!doctype|html|\?xml)", re.IGNORECASE)
_ANSWER, _RESULT = {"custom_id", "response", "error"}, {"custom_id", "result"}


def foreign(head: bytes) -> str | None:
    """What a file is that is no text in UTF-8, and what to do; None where its first bytes do not say. head: plain."""
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    if _is_tar(head[:512]):
        return "a tar archive; unpack it"
    if _PAGE.match(head):
        return "a page of HTML or XML; was the download refused?"
    return _wide_text(head[:4])


def _wide_text(first: bytes) -> str | None:
    """Text of JSON begins with two ASCII characters: where the zeros are tells how wide they are."""
    if len(first) < 4:
        return None
    zeros = tuple(byte == 0 for byte in first)
    if zeros in ((True, True, True, False), (False, True, True, True)):
        return "UTF-32 text without a byte order mark; save it as UTF-8"
    if zeros in ((True, False, True, False), (False, True, False, True)):
        return "UTF-16 text without a byte order mark; save it as UTF-8"
    return None


def _is_tar(block: bytes) -> bool:
    """By the mark, or, where old programs made none, by the sum of the header's bytes."""
    if block[257:262] == b"ustar":
        return True
    if len(block) < 512 or not block[0]:
        return False
    try:
        stated = int(block[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return stated == sum(block[:148]) + 8 * 32 + sum(block[156:])


def looks_like_request(raw: bytes) -> bool:
    """Whether somebody meant this line to be a request, right or wrong: an object with an id, or with a body."""
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return False
    return isinstance(line, dict) and ("body" in line or ("custom_id" in line and not is_answer(line)))


def is_answer(line: dict[str, Any]) -> bool:
    """Whether it is a line of a batch's output or errors file."""
    return (line.keys() >= _ANSWER or line.keys() >= _RESULT) and "body" not in line and "params" not in line


def is_answer_line(raw: bytes) -> bool:
    """The same of its bytes."""
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return False
    return isinstance(line, dict) and is_answer(line)


def why_no_request(raw: bytes, size: int) -> str:
    """What to say of a file without a single request. raw: its first line that is not blank; size: bytes of it all."""
    text = raw.strip().removeprefix(b"\xef\xbb\xbf")
    whole = len(raw) >= size - 2
    try:
        line = orjson.loads(text)
    except orjson.JSONDecodeError:
        line = None
    if isinstance(line, dict) and is_answer(line):
        return "it holds the answers of a batch, not requests"
    if text.startswith(b"["):
        return "it is a JSON array of what is neither rows nor requests"
    if text.startswith(b"{") and line is None and not whole and not _closed(text):
        return "it is JSON over several lines; write each request as one line (`jq -c . FILE`)"
    return "each line must be one JSON object with a `custom_id` and a `body`"


def _closed(text: bytes) -> bool:
    """Whether a line ends where an object could: then it is a line, and wrong in itself."""
    return text.endswith(b"}")


def why_not_json(text: str) -> str:
    """What is wrong with text that is nearly JSON, a clause; empty where that cannot be told."""
    rest = _rest(text)
    if rest == ",":
        return "a comma stands behind it, as between the elements of an array; lines have none"
    if rest:
        return "two values are on the line; each request needs a line of its own"
    if text.startswith("\ufeff"):
        return "a byte order mark stands before it (were files joined?)"
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)
    for pattern, why in _SLIPS:
        if re.search(pattern, bare):
            return why
    return ""


# Looked for outside of quoted text.
_SLIPS = (
    (r"[{\[,:]\s*'", 'names and text need double quotes, "…" (Python: json.dumps, not str)'),
    (r"\bNaN\b|\bInfinity\b", "NaN and Infinity are no JSON; leave the field out, or write null"),
    (r"\b(?:None|True|False)\b", "JSON has null, true and false (Python: json.dumps, not str)"),
    (r",\s*[}\]]", "a comma stands before a closing bracket"),
    (r"//|/\*", "JSON has no comments"),
    (r"[{,]\s*[A-Za-z_]\w*\s*:", "names need double quotes"),
)


def _rest(text: str) -> str:
    """What stands behind a line's first value; nothing where it has none."""
    import json

    text = text.strip()
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return ""
    return text[end:].strip()
