"""Write the list of modules into a page: python scripts/make_module_list.py docs/architecture.md [--check]

Each module's line is the first sentence of its docstring.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- modules: made by `make docs` -->\n", "<!-- end of modules -->\n"
# Of the import contract: layers from the top.
_CONTRACT = re.compile(r"^layers = \[\n(.*?)^\]", re.DOTALL | re.MULTILINE)


def layers() -> list[str]:
    """Packages and modules right below `blendrun`, from the top layer down."""
    contract = _CONTRACT.search((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if contract is None:
        sys.exit("pyproject.toml has no layers")
    return re.findall(r"blendrun\.(\w+)", contract[1])


def modules() -> str:
    """A heading a layer, with what its package says of itself; below it a line a module."""
    parts = []
    for name in layers():
        package = ROOT / "blendrun" / name
        if not package.is_dir():
            parts.append(f"### `{name}`\n\n{sentence(package.with_suffix('.py'))}\n")
            continue
        lines = "".join(f"- `{module}`: {said}\n" for module, said in _inside(package))
        parts.append(f"### `{name}/`\n\n{sentence(package / '__init__.py')}\n\n{lines}")
    return "\n".join(parts)


def _inside(package: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package).with_suffix("")
        if inside.name != "__init__":
            yield str(inside), sentence(path)
        elif path.parent != package:
            yield f"{inside.parent}/", sentence(path)


def sentence(path: Path) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not text:
        sys.exit(f"{path} has no docstring")
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[.?!]) (?=[A-Z`*])", paragraph)[0]


def main() -> None:
    path = Path(sys.argv[1])
    page = path.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    made = f"{head}{BEGIN}\n{modules()}\n{END}{rest.partition(END)[2]}"
    if "--check" in sys.argv:
        if made != page:
            sys.exit(f"{path} is not what the code says: run make docs")
        return
    path.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
