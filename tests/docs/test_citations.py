"""A citation leads to a heading of this project's own documents.

Code cites `docs/<page>.md#<heading>`, pages of the site link to `<page>.md#<heading>`, both with the anchor that site
and GitHub give the heading. The page on the paper is cited in no other form.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve()
# Texts of others, pictures and data.
_NOT_OURS = {"LICENSE", "constraints.txt"}
_NO_TEXT = {".png", ".svg", ".gif", ".ico", ".gz", ".zst", ".jsonl"}

_IN_CODE = re.compile(r"(?<![\w/.-])docs/(?P<page>(?:record/)?[\w-]+\.md)(?:#(?P<anchor>[\w-]+))?")
_LINK = re.compile(r"\]\((?P<page>(?!\w+:)[\w./-]+\.md)?(?:#(?P<anchor>[\w-]+))?\)")
_PAPER = re.compile(r"\bpaper\.md\b")
# Of documents that are not in the project, or that have no numbers. RFCs have.
_NUMBERED = re.compile(
    r"(?<!RFC \d{4} )(?<!RFC \d{4}, )\bsections?\s+(?:#\s+)?\d+|[(,]\s*(?:#\s+)?items?\s+(?:#\s+)?\d+", re.IGNORECASE
)
_ELSEWHERE = re.compile(r"\bdesign\.md\b|\bdesign(?::\s|\s+(?:section|item)\s*\d|\s+\d+\.\d)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Citation:
    """Characters [begin, end) of a file, and what they lead to. anchor: None where they name a page only."""

    begin: int
    end: int
    page: Path
    anchor: str | None


def citations(path: Path, text: str) -> Iterator[Citation]:
    """All citations in a file of the project; links relative to it count in Markdown only."""
    for found in _IN_CODE.finditer(text):
        yield Citation(*found.span(), ROOT / "docs" / found["page"], found["anchor"])
    if path.suffix == ".md":
        for found in _LINK.finditer(text):
            page = (path.parent / found["page"]).resolve() if found["page"] else path
            yield Citation(*found.span(), page, found["anchor"])


def complaints(path: Path, text: str) -> list[str]:
    """What is wrong with the citations of a file, a sentence each."""
    cited = list(citations(path, text))
    proper = [each for each in cited if each.anchor is not None]
    wrong = [(each.begin, each.end, "no such page") for each in cited if not each.page.exists()]
    wrong += [(each.begin, each.end, "no such heading") for each in proper if each.anchor not in headings(each.page)]
    for pattern, what in (
        (_PAPER, "cite a heading, docs/paper.md#<heading>"),
        (_NUMBERED, "cite a heading, not a number"),
        (_ELSEWHERE, "no document of this project"),
    ):
        for found in pattern.finditer(text):
            if not any(each.begin <= found.start() < each.end for each in proper):
                wrong.append((*found.span(), what))
    return [
        f"{path.relative_to(ROOT)}:{_line(text, begin)}: {what}: {text[begin:end]}"
        for begin, end, what in sorted(wrong)
    ]


@cache
def headings(page: Path) -> frozenset[str]:
    """Anchors of a page, as the site (`myst_heading_anchors = 3`) and GitHub make them; none where there is no page."""
    if not page.exists():
        return frozenset()
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    seen: Counter[str] = Counter()
    anchors = []
    for title in re.findall(r"^#{1,3} (.+)$", prose, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        anchors.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return frozenset(anchors)


def test_every_citation_leads_to_a_heading_in_the_one_form() -> None:
    wrong = [complaint for path in _files() for complaint in complaints(path, _read(path))]
    assert not wrong, "\n".join(wrong)


def test_the_search_finds_what_the_code_cites() -> None:
    """A pattern that matched nothing would pass the test above."""
    cited = {
        each.anchor
        for path in _files()
        for each in citations(path, _read(path))
        if path.suffix == ".py" and each.page.name == "paper.md"
    }
    assert cited >= {"the-dual-scan", "the-step-budget", "cost-of-a-request", "splitting-keeps-every-leaf"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("scan.py", "# docs/paper.md#no-such-heading", id="no such heading"),
        pytest.param("scan.py", "# docs/no-such-page.md", id="no such page"),
        pytest.param("scan.py", "# docs/paper.md, The dual scan", id="a page without a heading"),
        pytest.param("scan.py", "# Algorithm 3 (paper.md 1.6)", id="a number of another document"),
        pytest.param("scan.py", "# docs/paper.md#the-tail, as paper.md has it", id="one of two"),
        pytest.param("scan.py", "# (section 4, item 22)", id="a numbered section"),
        pytest.param("scan.py", "# as section\n# 4 says", id="a numbered section over two lines"),
        pytest.param("scan.py", "# correction (item 14)", id="a numbered item"),
        pytest.param("scan.py", "# see design.md", id="design.md"),
        pytest.param("scan.py", "# design: six contracts", id="design"),
        pytest.param("docs/method.md", "[the scan](paper.md#no-such-heading)", id="a link to no heading"),
        pytest.param("docs/method.md", "[the scan](paper.md)", id="a link to the page on the paper only"),
        pytest.param("docs/method.md", "[below](#no-such-heading)", id="a link within a page to no heading"),
        pytest.param("README.md", "[the scan](paper.md#the-dual-scan)", id="a link to another folder's page"),
    ],
)
def test_a_wrong_citation_is_found(name: str, text: str) -> None:
    assert complaints(ROOT / name, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("scan.py", "# Algorithm 3 (docs/paper.md#the-dual-scan)."),
        ("scan.py", "# docs/method.md has the whole; RFC 9110 section 15.5 the codes"),
        ("docs/method.md", "[the scan](paper.md#the-dual-scan) and [the blend](#the-blend)"),
        ("README.md", "[the scan](docs/paper.md#the-dual-scan)"),
        ("scan.py", "from blendrun.calibrate.design import Room"),
    ],
)
def test_a_right_citation_is_left_alone(name: str, text: str) -> None:
    assert not complaints(ROOT / name, text)


def _files() -> list[Path]:
    """Text files of the project, those that are new and not yet committed among them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    paths = [ROOT / name for name in names if name and name not in _NOT_OURS]
    return [path for path in paths if path.suffix not in _NO_TEXT and path.is_file() and path != HERE]


def _read(path: Path) -> str:
    # Some files are damaged on purpose.
    return path.read_text(encoding="utf-8", errors="replace")


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1
