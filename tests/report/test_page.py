"""The page: one file that holds all it shows, whatever the names in it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from blendrun.errors import InputMissingError, OutputUnavailableError
from blendrun.report.page.page import make_page, page_html
from blendrun.report.page.subject import plan_subject, read_plan, run_subject
from blendrun.store.guard import Target
from tests.report.page_of_runs import NASTY, small_plan, subject, write_run

MOST_BYTES = 5_000_000


class Outline(HTMLParser):
    """Elements, what they refer to, and their text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words = ""
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open = tag
        for name, value in attrs:
            if name in ("src", "href", "action", "data", "poster", "srcset"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open not in ("script", "style"):
            self.words += data


def test_a_run_has_every_section_and_refers_to_nothing_outside(tmp_path: Path) -> None:
    outline = Outline(page_html([subject(tmp_path)]))
    sections = "headline timeline occupancy icicle strip lengths orders requests settings"
    for section in sections.split():
        assert section in outline.ids, section
    assert len(outline.ids) == len(set(outline.ids))
    assert all(link.startswith("#") and link[1:] in outline.ids for link in outline.links)
    assert "img" not in outline.tags


def test_names_stay_text(tmp_path: Path) -> None:
    text = page_html([subject(tmp_path)])
    outline = Outline(text)
    assert NASTY in outline.words
    assert outline.tags.count("script") == 2
    assert "49" not in re.findall(r"&\u2028(\d+)", outline.words)
    specs = re.search(r'<script type="application/json" id="specs">(.*?)</script>', text, re.DOTALL)
    assert specs is not None
    icicle = json.loads(specs.group(1))["icicle-0"]
    assert any(NASTY.replace("\u2028", "\ufffd") in block["label"] for block in icicle["data"]["values"])


def test_figures_at_the_head_are_those_of_the_files(tmp_path: Path) -> None:
    words = " ".join(Outline(re.sub("</d[td]>", " ", page_html([subject(tmp_path)]))).words.split())
    assert "answered 59 of 60 1 failed" in words
    assert "run time 8.9 s predicted 8.0 s" in words
    assert "from the cache 25.0 %" in words
    assert "completed, exit code 3" in words


def test_runs_and_plans_stand_side_by_side(tmp_path: Path) -> None:
    subjects = [subject(tmp_path, "one"), subject(tmp_path, "two"), plan_subject(small_plan(), "only planned")]
    outline = Outline(page_html(subjects))
    assert {"icicle-0", "icicle-1", "icicle-2", "timeline-2"} <= set(outline.ids)
    assert "strip-2" not in outline.ids
    assert "Side by side" in outline.words


def test_a_run_that_still_works_or_was_not_planned_has_a_page(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    state = output.with_name(f"{output.name}.blendrun")
    for name in ("summary.json", "plan.json", "steps.jsonl", "records.jsonl"):
        (state / name).unlink()
        assert "not ended" in Outline(page_html([run_subject(output, "a")])).words


def test_a_plan_is_read_from_its_json(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(msgspec.json.encode(small_plan()))
    assert read_plan(path) == small_plan()
    path.write_bytes(b'{"schema_version": 1}')
    with pytest.raises(InputMissingError, match="no plan of this version"):
        read_plan(path)


def test_a_page_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputUnavailableError, match="cannot write"):
        make_page([plan_subject(small_plan(), "a")], Target(tmp_path / "no" / "report.html", "-o"))


def test_a_long_run_gives_a_page_of_the_same_size(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    make_page([run_subject(write_run(tmp_path, requests=20_000), "long")], Target(path, "-o"))
    assert path.stat().st_size < MOST_BYTES / 3
