"""Documents say what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_cli_reference_is_what_the_code_says() -> None:
    command = [sys.executable, "scripts/make_cli_reference.py", "docs/cli.md", "--check"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_the_table_of_fields_is_what_the_code_says() -> None:
    command = [sys.executable, "scripts/make_field_table.py", "docs/files.md", "--check"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_the_architecture_has_a_line_for_every_module_and_no_other() -> None:
    command = [sys.executable, "scripts/make_module_list.py", "docs/architecture.md", "--check"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:blend|runner|store|backends|engine|planner|endpoints|cli)(?:\.\w+)+)`", page))
    for name in named:
        *path, last = name.split(".")
        inside = ROOT.joinpath("blendrun", *path)
        found = [inside / last, inside / f"{last}.py", inside.with_suffix(".py")]
        assert any(each.exists() for each in found), f"the page speaks of {name}"
    assert len(named) > 10


def test_the_schemas_are_what_the_code_says() -> None:
    command = [sys.executable, "scripts/make_schemas.py", "docs/schemas", "--check"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_the_examples_are_what_their_script_writes(tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in (ROOT / "examples").glob("*.jsonl")}
    subprocess.run([sys.executable, "scripts/make_examples.py", str(tmp_path)], cwd=ROOT, check=True)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")} == before


def test_links_between_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_exit_code_is_in_the_operations_page() -> None:
    from blendrun import errors

    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")]
    for code in {kind.exit_code for kind in kinds} | {errors.EXIT_OK, errors.EXIT_SOME_LINES_FAILED}:
        assert re.search(rf"^\| {code} \|", page, re.MULTILINE), f"exit code {code}"
    for code in errors.ErrorCode:
        assert f"`{code}`" in page, code


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Links between pages and to files among them."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", str(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert "blendrun" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    from blendrun.events import EngineStats, Expected, PhaseStarted, Progress
    from blendrun.report.export.metrics import Metrics

    metrics = Metrics(model="m")
    stats = EngineStats(1, 1, 1, 1.0, 1.0, 1, 1, 1, 1, paced_seconds=0.5, priced_seconds=0.5)
    for event in (Expected(1.0, 10, 5, 3.0), PhaseStarted("run"), stats, Progress(1, 4, "requests")):
        metrics(event)
    known = {sample.name for family in metrics.collect() for sample in family.samples}
    metrics.ended(0, success=True)
    known |= {sample.name for family in metrics.collect() for sample in family.samples}
    dashboard = (ROOT / "scripts" / "grafana" / "blendrun.json").read_text(encoding="utf-8")
    asked = set(re.findall(r"\bblendrun_\w+", dashboard))
    assert asked and asked <= known
    # What was warned of and how a run ended are for alerts; what needed no engine, and the model's name, for tables.
    beside = {f"blendrun_{name}" for name in ("warnings_total", "exit_code", "requests_not_asked_total", "run_info")}
    assert {name for name in known if not name.endswith("_created")} - asked == beside, "all others have a panel"
