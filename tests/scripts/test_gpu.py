"""Fifteen minutes on a GPU, rehearsed without one: the rounds themselves, what is carried, and the tables."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

ROOT = Path(__file__).resolve().parents[2]
GPU = ROOT / "scripts" / "gpu"
# All but two of the rounds that compare orders, which are the same code again.
ROUNDS = ("machine", "products", "run", "calibrate", "predict", "stock-exclusive", "ours-mixed")

pytestmark = pytest.mark.runtime


def rounds(out: Path, *words: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and rows of a rehearsal."""
    command = [sys.executable, str(GPU / "rounds.py"), "--rehearse", "--out", str(out), *words]
    done = subprocess.run(command, cwd=out.parent, capture_output=True, text=True, timeout=2400)
    path = out / "rounds.jsonl"
    assert path.exists(), done.stderr
    return done.returncode, [json.loads(line) for line in path.read_text().splitlines()]


def test_the_rehearsal_ends_with_every_round_and_its_tables(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, found = rounds(out, "--rounds", ",".join(ROUNDS))
    by_name = {row["round"]: row for row in found}
    assert list(by_name) == list(ROUNDS)
    assert [row["why"] for row in found if row["status"] != "done"] == []
    assert code == 0
    run = by_name["run"]
    assert 0 < run["answered when killed"] < run["lines"] == run["counts"]["completed"]
    assert run["each line once and in order"] is True
    assert run["kv_tokens"] == run["pool planned"]
    blended = by_name["ours-mixed"]["live"]["rows"][0]
    assert blended["hit_rate"] == pytest.approx(blended["predicted_hit_rate"], abs=0.02)
    with tarfile.open(out / "logs.tar.gz") as archive:
        logs = {Path(name).name for name in archive.getnames()}
    assert {"killed.log", "engine.log", "steps.jsonl", "ours-plan-mixed.steps.jsonl"} <= logs
    words: list[str | Path] = [sys.executable, GPU / "read.py", out]
    tables = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    for part in ("| ours | blended | mixed |", "| stock | given | exclusive |", "decode, up to", "each line once"):
        assert part in tables


def test_a_round_that_would_not_end_in_time_is_skipped_and_what_was_measured_is_kept(tmp_path: Path) -> None:
    code, found = rounds(tmp_path / "out", "--rounds", "machine,run", "--seconds", "14")
    assert code == 0
    assert [row["status"] for row in found] == ["done", "skipped"]
    assert "s are left" in found[1]["why"]


def test_the_branch_for_cuda_is_imported_from_what_is_carried(tmp_path: Path) -> None:
    if shutil.which("bash") is None or not (ROOT / ".venv" / "bin" / "uv").exists():
        pytest.skip("the environment was not made by `make`: no uv in .venv")
    site = tmp_path / "site"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    made = subprocess.run(["bash", GPU / "site.sh", site, version], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    # Not from the project's folder: blendrun is carried too.
    words: list[str | Path] = [sys.executable, GPU / "pretend.py", site]
    done = subprocess.run(words, cwd=tmp_path, env={"PYTHONPATH": str(site)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    origins = dict(line.split(": ") for line in done.stdout.splitlines() if line.startswith(("sglang", "blendrun")))
    assert len(origins) == 12
    assert set(origins.values()) == {"carried"}


class TestMixedRows:
    """Rows of one token through the decode kernel: the same answers, by plain attention in both kernels' place."""

    HEADS, SIZE, SLOTS = 2, 4, 200

    @pytest.fixture
    def rows(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.syspath_prepend(str(GPU / "stub"))
        import importlib

        return importlib.import_module("blendrun_rounds.mixed_rows")

    @pytest.mark.parametrize(
        ("lengths", "count"),
        [([5, *[1] * 9], 9), ([5, 1, 3, *[1] * 8], 8), ([5, *[1] * 7], 0), ([1] * 9, 0), ([5, 6], 0), ([], 0)],
    )
    def test_only_rows_at_the_end_and_enough_of_them(self, rows: Any, lengths: list[int], count: int) -> None:
        assert rows.last_rows(lengths) == count

    def test_answers_are_those_of_the_extend_kernel(self, rows: Any) -> None:
        torch.manual_seed(0)
        cached, new = [7, 0, *range(3, 13)], [4, 6, *[1] * 10]
        lengths = [a + b for a, b in zip(cached, new, strict=True)]
        table = torch.randperm(self.SLOTS).repeat(12, 1).view(12, -1)
        table = torch.stack([table[row].roll(row * 17) for row in range(12)])
        keys, values = (torch.randn(self.SLOTS, self.HEADS, self.SIZE) for _ in range(2))
        query = torch.randn(sum(new), self.HEADS, self.SIZE)
        calls: list[str] = []
        backend = self._backend(table, calls)
        batch = SimpleNamespace(
            forward_mode=SimpleNamespace(is_mixed=lambda: True),
            extend_seq_lens_cpu=new,
            extend_prefix_lens_cpu=cached,
            seq_lens=torch.tensor(lengths),
            req_pool_indices=torch.arange(12),
        )
        rows.note_rows(lambda *_: None, backend, batch)
        assert backend.blendrun_rows.count == 10

        def extend(
            backend: Any, layer: Any, query: Any, key: Any, value: Any, output: Any, *more: Any, **_: Any
        ) -> None:
            calls.append(f"extend {len(output)}")
            at = 0
            for row, (before, count) in enumerate(zip(cached, new, strict=True)):
                for place in range(count):
                    if at < len(output):
                        output[at] = self._attend(query[at], keys, values, table[row, : before + place + 1])
                    at += 1

        output = torch.zeros_like(query)
        indptr = torch.zeros(13, dtype=torch.int32)
        named = {"sinks": None, "sliding_window_size": -1, "extend_seq_lens_cpu": new}
        arguments = (query, query, query, output, keys, values, indptr, indptr, torch.zeros(0), None, True, None, 6)
        rows.attend(extend, backend, SimpleNamespace(scaling=0.5), *arguments, 1.0, 1.0, **named)
        wanted = torch.zeros_like(query)
        extend(backend, None, query, query, query, wanted)
        torch.testing.assert_close(output, wanted)
        # All rows the first time, to compare; then the long ones by one kernel and ten by the other.
        assert calls == ["extend 20", "extend 10", "decode 10", "extend 20"]

    def _backend(self, table: Any, calls: list[str]) -> Any:
        def decode(
            query: Any, keys: Any, values: Any, output: Any, indptr: Any, indices: Any, *_: Any, **__: Any
        ) -> None:
            calls.append(f"decode {len(output)}")
            for row in range(len(output)):
                output[row] = self._attend(query[row], keys, values, indices[indptr[row] : indptr[row + 1]])

        return SimpleNamespace(
            req_to_token=table,
            get_num_kv_splits=lambda splits, *_: splits.fill_(1),
            max_kv_splits=8,
            forward_metadata=object(),
            decode_attention_fwd=decode,
        )

    def _attend(self, query: Any, keys: Any, values: Any, slots: Any) -> Any:
        scores = torch.einsum("hd,thd->ht", query, keys[slots]) * 0.5
        return torch.einsum("ht,thd->hd", scores.softmax(-1), values[slots])
