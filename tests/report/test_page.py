"""The page: one file that holds all it shows, whatever the names in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from blendrun.errors import InputMissingError, OutputUnavailableError
from blendrun.planner.findings import Finding, Severity
from blendrun.report.page import page
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
    sections = "headline failed cut answers orders timeline strip occupancy icicle lengths requests settings"
    for section in sections.split():
        assert section in outline.ids, section
    assert len(outline.ids) == len(set(outline.ids))
    assert all(link.startswith("#") and link[1:] in outline.ids for link in outline.links)
    assert "img" not in outline.tags


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("run `blendrun calibrate` now", ["run ", "blendrun calibrate", " now"]),
        ("a ` alone", ["a ` alone"]),
        ("", [""]),
    ],
)
def test_what_stands_between_backticks_is_code(text: str, parts: list[str]) -> None:
    assert page.code_parts(text) == parts


def test_names_stay_text(tmp_path: Path) -> None:
    text = page_html([subject(tmp_path)])
    outline = Outline(text)
    assert NASTY in outline.words
    assert outline.tags.count("script") == 2
    assert "49" not in re.findall(r"&\u2028(\d+)", outline.words)
    specs = re.search(r'<script type="application/json" id="specs">(.*?)</script>', text, re.DOTALL)
    assert specs is not None
    icicle = json.loads(specs.group(1))["icicle-0"]
    assert any(NASTY.replace("\u2028", "\ufffd") in block["example"] for block in icicle["data"]["values"])
    for shown in ("Question 0: ", "Answer 0: ", "happened"):
        assert shown in outline.words


def test_figures_at_the_head_are_those_of_the_files(tmp_path: Path) -> None:
    words = " ".join(Outline(re.sub("</d[td]>", " ", page_html([subject(tmp_path)]))).words.split())
    assert "59 answered, 1 failed, in 8.9 s (load 20.0 s before it)" in words
    assert "answered 59 of 60 1 failed" in words
    assert "wall time 31.0 s load 20.0 s, run 9.0 s" in words
    assert "near the plan? 1.1x the plan predicted 8.0 s, took 8.9 s" in words
    assert "from the cache 25 %" in words


def test_the_order_of_questions_is_the_readers(tmp_path: Path) -> None:
    ids = Outline(page_html([subject(tmp_path)])).ids
    asked = [each for each in ids if each in ("headline", "failed", "cut", "answers", "orders", "icicle", "settings")]
    assert asked == ["headline", "failed", "cut", "answers", "orders", "icicle", "settings"]


def test_without_answers_no_prompt_is_on_the_page(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    assert "Question 0: " in page_html([run_subject(output, "a")])
    plan = replace(small_plan(), icicle=tuple(replace(node, text="a secret") for node in small_plan().icicle))
    output.with_name(f"{output.name}.blendrun").joinpath("plan.json").write_bytes(msgspec.json.encode(plan))
    subjects = [run_subject(output, "a", answers=False), plan_subject(plan, "b", texts=False)]
    text = page_html(subjects)
    assert "Question 0: " not in text and "Answer 0: " not in text and "a secret" not in text
    assert "a secret" in page_html([plan_subject(plan, "b")])


def test_two_runs_of_one_job_lie_over_each_other(tmp_path: Path) -> None:
    outline = Outline(page_html([subject(tmp_path, "one"), subject(tmp_path, "two")]))
    assert "Two runs of one job: one, two" in outline.words and "difference" in outline.words
    assert "the same answer in all runs" in outline.words
    for once in ("timeline", "occupancy", "icicle"):
        assert f"{once}-0" in outline.ids and f"{once}-1" not in outline.ids
    assert {"strip-0", "strip-1"} <= set(outline.ids)


def test_lines_that_will_fail_are_said_first_and_unfolded() -> None:
    why = "3 prompts over the context of llama-3-8b, 8,192 tokens with answer (first: jobs.jsonl, line 1)"
    findings = (
        Finding(Severity.FAILS, "over_context", 3, "jobs.jsonl, line 1", why),
        Finding(Severity.RISK, "cut_short", 2, None, "2 answers will probably be cut short"),
    )
    plan = replace(small_plan(), left_out=3, findings=findings)
    outline = Outline(page_html([plan_subject(plan, "jobs.jsonl")]))
    assert "3 of 60 lines will fail" in outline.words
    assert outline.words.index(why) < outline.words.index("Chosen: ")
    assert outline.ids.index("willfail") < outline.ids.index("maygowrong") < outline.ids.index("orders")


def test_runs_and_plans_stand_side_by_side(tmp_path: Path) -> None:
    subjects = [subject(tmp_path, "one"), subject(tmp_path, "two"), plan_subject(small_plan(), "only planned")]
    outline = Outline(page_html(subjects))
    assert {"icicle-0", "icicle-1", "icicle-2", "timeline-2"} <= set(outline.ids)
    assert "difference" not in outline.words
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


class TestTheScriptOfAllPages:
    @pytest.fixture
    def bundled(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
        """What was put together, for a user who has no page yet."""
        found: list[str] = []

        def bundle(source: str) -> str:
            found.append(source)
            return f"run('</script>', '\u00e9'){len(found)};\r\n"

        monkeypatch.setattr("vl_convert.javascript_bundle", bundle)
        monkeypatch.setenv("BLENDRUN_CACHE", str(tmp_path / "cache"))
        page._script.cache_clear()
        yield found
        page._script.cache_clear()

    def again(self) -> str:
        """As another process has it."""
        page._script.cache_clear()
        return page._script()

    def test_it_is_put_together_once_for_a_user(self, bundled: list[str]) -> None:
        first = self.again()
        assert first == "run('<\\/script>', '\u00e9')1;\r\n"
        assert self.again() == first
        assert len(bundled) == 1

    @pytest.mark.parametrize("damaged", [b"", b"run()", b"\xff\n//", b"alert(1)\n//0123"])
    def test_one_that_is_damaged_is_put_together_anew(self, bundled: list[str], tmp_path: Path, damaged: bytes) -> None:
        self.again()
        (kept,) = (tmp_path / "cache" / "page").iterdir()
        kept.write_bytes(damaged)
        assert "2;" in self.again()
        assert "2;" in self.again()

    def test_a_folder_that_cannot_be_written_costs_time_and_no_page(self, bundled: list[str], tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("a file")
        assert "1;" in self.again()
        assert "2;" in self.again()
