"""Metrics as Prometheus reads them, over HTTP and from a textfile."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from blendrun.errors import OutputUnavailableError
from blendrun.events import EngineStats, Event, Expected, Note, PhaseStarted, Progress
from blendrun.report.export.metrics import Metrics, is_metrics
from blendrun.store.guard import Target
from tests import needs

EVENTS: list[Event] = [
    PhaseStarted("index", "jobs.jsonl"),
    Expected(60.0, 1_000, 400, 500.0),
    PhaseStarted("run", "7 requests"),
    Note("a hook did not take", warning=True),
    Progress(5, 7, "requests", 1, 2, 100, 40, 30),
    EngineStats(12, 60, 30, 1.0, 2.0, 700, 1_000, 2, 3),
]


def samples(text: str) -> dict[tuple[str, ...], float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, *sample.labels.values()] = sample.value
    return found


def scraped(metrics: Metrics) -> str:
    with urlopen(f"http://127.0.0.1:{metrics.port}/metrics") as answer:
        text: str = answer.read().decode()
    return text


def test_what_is_scraped_is_what_happened() -> None:
    with Metrics(port=0, model="m") as metrics:
        for event in EVENTS:
            metrics(event)
        found = samples(scraped(metrics))
    assert found["blendrun_requests_total", "answered"] == 4
    assert found["blendrun_requests_total", "failed"] == 1
    assert found["blendrun_tokens_total", "prefill"] == 60
    assert found["blendrun_tokens_total", "cached"] == 40
    assert found["blendrun_tokens_total", "decode"] == 30
    assert found[("blendrun_inflight_requests",)] == 2
    assert found[("blendrun_inflight_tokens",)] == 700
    assert found["blendrun_phase", "run"] == 1
    assert found["blendrun_phase", "index"] == 0
    assert found[("blendrun_planned_seconds",)] == 60
    assert found[("blendrun_planned_cached_ratio",)] == 0.4
    assert found[("blendrun_warnings_total",)] == 1
    assert ("blendrun_last_success_timestamp_seconds",) not in found


def test_it_listens_on_loopback_alone_and_ends_with_the_run() -> None:
    with Metrics(port=0) as metrics:
        port = metrics.port
        assert port is not None
        addresses = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        listening = [address.partition(":")[0] for address in addresses if int(address.partition(":")[2], 16) == port]
        assert set(listening) == {"0100007F"}
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_that_is_taken_is_refused_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(OutputUnavailableError, match=r"--metrics-port .*give another port"),
            Metrics(port=taken.getsockname()[1]),
        ):
            pass


def test_a_failure_leaves_the_last_success_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "blendrun.prom"
    with Metrics(textfile=Target(path, "--metrics-textfile", (), is_metrics), clock=lambda: 1_000.0) as metrics:
        metrics.ended(0, success=True)
    assert samples(path.read_text())[("blendrun_last_success_timestamp_seconds",)] == 1_000.0
    with Metrics(textfile=Target(path, "--metrics-textfile", (), is_metrics), clock=lambda: 2_000.0) as metrics:
        metrics.ended(69, success=False)
    found = samples(path.read_text())
    assert found[("blendrun_last_success_timestamp_seconds",)] == 1_000.0
    assert found[("blendrun_exit_code",)] == 69
    assert [each.name for each in tmp_path.iterdir()] == ["blendrun.prom"]


def test_a_textfile_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputUnavailableError, match="--metrics-textfile"),
        Metrics(textfile=Target(tmp_path / "no" / "x.prom", "--metrics-textfile")),
    ):
        pass


@pytest.mark.skipif(shutil.which("promtool") is None, reason=needs.PROMTOOL)
def test_promtool_has_nothing_against_them(tmp_path: Path) -> None:
    path = tmp_path / "blendrun.prom"
    with Metrics(textfile=Target(path, "--metrics-textfile", (), is_metrics)) as metrics:
        for event in EVENTS:
            metrics(event)
        metrics.ended(0, success=True)
    checked = subprocess.run(["promtool", "check", "metrics"], input=path.read_bytes(), capture_output=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
