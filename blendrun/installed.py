"""How this very blendrun was installed, and the command that adds an extra to it.

Never the bare name: an index may have another package of that name, or none.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

_CHECKOUT = Path(__file__).resolve().parents[1]


def install_command(extra: str) -> str:
    """A command line that adds an extra (`sglang`, `tables`, …) to this installation, in its environment.

    Of a checkout, a folder, a wheel or a repository it names that, as long as it is there; else the extra's packages.
    """
    return f"{installer()} {_what(extra)}"


def installer() -> str:
    """Of packages, into the environment that runs this: pip's command, or uv's where it has no pip."""
    python = shlex.quote(sys.executable or "python3")
    return f"{python} -m pip install" if find_spec("pip") is not None else f"uv pip install --python {python}"


def _what(extra: str) -> str:
    try:
        found = distribution("blendrun")
    except PackageNotFoundError:
        return _from_checkout(_CHECKOUT, extra, editable=True)
    return _from_origin(found, extra) or " ".join(map(shlex.quote, _requirements(found, extra)))


def _from_origin(found: Distribution, extra: str) -> str | None:
    """By what pip and uv note of a package that came from no index (direct_url.json)."""
    try:
        origin = json.loads(found.read_text("direct_url.json") or "null")
        url = str(origin["url"])
    except (ValueError, TypeError, KeyError):
        return None
    parts = urlsplit(url)
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        return shlex.quote(f"blendrun[{extra}] @ {vcs['vcs']}+{url}@{vcs['commit_id']}")
    if parts.scheme != "file":
        return shlex.quote(f"blendrun[{extra}] @ {url}")
    path = Path(unquote(parts.path))
    if not path.exists():
        return None
    editable = bool(origin.get("dir_info", {}).get("editable"))
    return _from_checkout(path, extra, editable=editable)


def _from_checkout(path: Path, extra: str, *, editable: bool) -> str:
    """A folder, or a wheel, which has neither a development mode nor pinned versions beside it."""
    words = ["-e"] if editable else []
    words.append(shlex.quote(f"{path}[{extra}]"))
    if (path / "constraints.txt").is_file():
        words += ["-c", shlex.quote(str(path / "constraints.txt"))]
    return " ".join(words)


def _requirements(found: Distribution, extra: str) -> list[str]:
    """The packages of an extra as its metadata has them, such as `sglang<0.6,>=0.5.17`."""
    marker = re.compile(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]")
    split = (line.partition(";") for line in found.requires or ())
    return [requirement.strip() for requirement, _, condition in split if marker.search(condition)]
