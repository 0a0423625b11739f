"""Tables in, tables out: the same answers as from lines, beside the rows' own columns, by the same guards."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import struct
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import blendrun as blendrun_api
from blendrun.endpoints.embeddings import placeholder
from blendrun.errors import InputInvalidError, InputMissingError, UsageError
from blendrun.jobs.source import open_sources
from blendrun.store.tables.cells import vector
from blendrun.store.tables.own import own_tables, row_chunks
from blendrun.store.tables.types import fitted, schema_type
from tests.command import REPLAY, blendrun, ids, lines_of, write_jobs

ROWS = 40
COUNTS = ["prompt_tokens", "cached_tokens", "completion_tokens"]
ENDED = ["finish_reason", *COUNTS, "error_code", "error"]


def reasoning_set(path: Path, rows: int = ROWS, bad: tuple[int, ...] = ()) -> Path:
    problems = [None if row in bad else f"problem {row}" for row in range(rows)]
    table = pa.table(
        {
            "id": [f"p{row}" for row in range(rows)],
            "problem": pa.array(problems, pa.string()),
            "solution": [f'line\n{row}, "quoted"' for row in range(rows)],
            "level": pa.array(range(rows), pa.int32()),
            "tags": [["a", str(row)] for row in range(rows)],
        }
    )
    pq.write_table(table.replace_schema_metadata({"mine": "kept"}), path)
    return path


def ran(*words: str | Path, cwd: Path, code: int = 0) -> str:
    done = blendrun("run", *words, *REPLAY, cwd=cwd)
    assert done.returncode == code, done.stderr
    return str(done.stderr)


class TestTheSameAnswers:
    def test_from_the_table_and_from_the_lines_made_of_it(self, tmp_path: Path) -> None:
        reasoning_set(tmp_path / "t.parquet", bad=(3, 17))
        words = ("--prompt-template", "Solve {{ problem }} at {{ level }}", "--id-column", "id", "--max-tokens", "9")
        done = blendrun("convert", "t.parquet", *words, "-o", "lines.jsonl", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        ran("t.parquet", *words, "-o", "a.jsonl", cwd=tmp_path, code=3)
        ran("lines.jsonl", "-o", "b.jsonl", cwd=tmp_path, code=3)
        for name in ("", ".errors.jsonl"):
            assert (tmp_path / f"a.jsonl{name}").read_bytes() == (tmp_path / f"b.jsonl{name}").read_bytes()
        assert ids(tmp_path / "a.jsonl") == [f"p{row}" for row in range(ROWS) if row not in (3, 17)]
        errors = lines_of(tmp_path / "a.jsonl.errors.jsonl")
        assert [(error["error"]["line"], error["error"]["message"]) for error in errors] == [
            (4, "row 4: `problem` is null"),
            (18, "row 18: `problem` is null"),
        ]

    def test_one_note_says_what_was_filled_in(self, tmp_path: Path) -> None:
        reasoning_set(tmp_path / "t.parquet", bad=(3,))
        said = ran("t.parquet", cwd=tmp_path, code=3)
        assert said.count("rows of Parquet become requests of /v1/chat/completions") == 1
        assert "custom_id is row-N; 1 cannot be requests, and are error lines" in said
        assert (tmp_path / "t.answers.jsonl").exists()

    def test_plan_reads_what_run_reads(self, tmp_path: Path, tiny_model: Path) -> None:
        reasoning_set(tmp_path / "t.parquet", rows=5)
        words = ("--system-prompt", "Be brief.")
        assert blendrun("convert", "t.parquet", *words, "-o", "l.jsonl", cwd=tmp_path).returncode == 0
        plan = ("plan", "--model", tiny_model, "--hardware", "h100-sxm", "--json", "-q")
        made = [blendrun(*plan, *jobs, cwd=tmp_path).stdout for jobs in (("t.parquet", *words), ("l.jsonl",))]
        first, second = map(json.loads, made)
        names = ("requests", "prompt_tokens", "shared_tokens", "output_tokens")
        assert [first[name] for name in names] == [second[name] for name in names]
        assert first["requests"] == 5

    def test_run_batch_takes_one(self, tmp_path: Path) -> None:
        reasoning_set(tmp_path / "t.parquet", bad=(1,))
        words = ("run-batch", "-i", "t.parquet", "--model", "x", "--engine", "replay")
        assert blendrun(*words, "-o", "out.jsonl", cwd=tmp_path).returncode == 0
        assert ids(tmp_path / "out.jsonl") == [f"row-{row + 1}" for row in range(ROWS)]
        refused = blendrun(*words, "-o", "out.parquet", cwd=tmp_path)
        assert (refused.returncode, "run-batch writes lines" in refused.stderr) == (2, True)


class TestResume:
    def test_other_words_on_the_same_file_are_another_input(self, tmp_path: Path) -> None:
        reasoning_set(tmp_path / "t.parquet")
        out = ("-o", "out.parquet")
        ran("t.parquet", *out, cwd=tmp_path)
        assert "finished before" in ran("t.parquet", *out, cwd=tmp_path)
        other = ("t.parquet", *out, "--system-prompt", "Be brief.")
        assert "the input" in ran(*other, cwd=tmp_path, code=78)
        ran(*other, "--no-resume", cwd=tmp_path)
        assert "finished before" in ran(*other, cwd=tmp_path)

    def test_a_table_that_is_cut_is_written_again_from_the_journal(self, tmp_path: Path) -> None:
        reasoning_set(tmp_path / "t.parquet")
        for name in ("out.parquet", "out.csv"):
            out = tmp_path / name
            ran("t.parquet", "-o", name, cwd=tmp_path)
            whole = out.read_bytes()
            out.write_bytes(whole[: len(whole) // 2])
            assert "phase=run" not in ran("t.parquet", "-o", name, cwd=tmp_path)
            assert out.read_bytes() == whole
            out.write_bytes(b"mine")
            assert "is not what this run wrote there" in ran("t.parquet", "-o", name, cwd=tmp_path, code=73)
            ran("t.parquet", "-o", name, "--overwrite", cwd=tmp_path)
            assert out.read_bytes() == whole

    def test_a_file_of_others_is_not_replaced(self, tmp_path: Path) -> None:
        reasoning_set(tmp_path / "t.parquet")
        (tmp_path / "out.csv").write_text("mine")
        assert "no run state lies beside it" in ran("t.parquet", "-o", "out.csv", cwd=tmp_path, code=73)
        assert "is the input" in ran("t.parquet", "-o", "t.parquet", cwd=tmp_path, code=73)

    def test_a_table_that_changed_meanwhile_has_no_columns_to_put_beside(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text("prompt\n" + "x\n" * 50)
        tables = own_tables(open_sources([path], tmp_path / "spool"))
        path.write_text("prompt\n" + "y\n" * 50)
        with pytest.raises(InputInvalidError, match="changed while the job was running"):
            list(row_chunks(tables))
        path.unlink()
        with pytest.raises(InputMissingError, match="`blendrun answers` prints them"):
            list(row_chunks(tables))


class TestOutputs:
    def test_parquet_has_the_rows_own_columns_as_they_were(self, tmp_path: Path) -> None:
        source = pq.read_table(reasoning_set(tmp_path / "t.parquet", bad=(3,)))
        ran("t.parquet", "-o", "out.parquet", cwd=tmp_path, code=3)
        table = pq.read_table(tmp_path / "out.parquet")
        assert table.select(source.column_names).equals(source)
        assert table.schema.metadata[b"mine"] == b"kept"
        assert table.column_names == [*source.column_names, "response", "reasoning", *ENDED]
        rows = table.to_pylist()
        assert rows[3]["error"] == "row 4: `problem` is null"
        assert (rows[3]["response"], rows[3]["error_code"]) == (None, "invalid_request")
        assert {row["response"] for row in rows if row["error"] is None} == {"[replay] no model was run"}
        assert all(row["completion_tokens"] > 0 and row["finish_reason"] for row in rows if row["error"] is None)

    def test_others_read_it(self, tmp_path: Path) -> None:
        reasoning_set(tmp_path / "t.parquet")
        for name in ("out.parquet", "out.csv"):
            ran("t.parquet", "-o", name, cwd=tmp_path)
            # pandas has no types of its own to check.
            for library in (import_module("pandas"), polars):
                read = library.read_parquet if name.endswith("t") else library.read_csv
                found = read(tmp_path / name)
                assert len(found) == ROWS
                assert list(found["solution"])[5] == 'line\n5, "quoted"'
                assert set(found["response"]) == {"[replay] no model was run"}

    def test_of_lines_it_has_their_ids(self, tmp_path: Path) -> None:
        write_jobs(tmp_path / "jobs.jsonl", 5)
        ran("jobs.jsonl", "-o", "out.tsv", cwd=tmp_path)
        rows = list(csv.DictReader(io.StringIO((tmp_path / "out.tsv").read_text()), delimiter="\t"))
        assert [row["custom_id"] for row in rows] == [f"id {row}" for row in range(5)]
        assert list(rows[0]) == ["custom_id", "response", "reasoning", *ENDED]

    def test_of_a_csv_in_any_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_bytes(b'k,prompt\ncaf\xe9,"a, ""b""\nc"\nx,caf\xe9\ny\n')
        ran("t.csv", "-o", "out.csv", cwd=tmp_path, code=3)
        rows = list(csv.reader(io.StringIO((tmp_path / "out.csv").read_bytes().decode("latin-1"))))
        assert [row[:2] for row in rows[1:]] == [["caf\xe9", 'a, "b"\nc'], ["x", "caf\xe9"], ["", ""]]
        ran("t.csv", "-o", "out.parquet", cwd=tmp_path, code=3)
        table = pq.read_table(tmp_path / "out.parquet").to_pylist()
        assert [row["k"] for row in table] == ["caf\ufffd", "x", None]

    def test_halves_of_pairs_in_json(self, tmp_path: Path) -> None:
        (tmp_path / "t.json").write_text(r'[{"prompt": "a", "x": "\ud800"}, {"prompt": "\ud800"}]')
        ran("t.json", "-o", "out.csv", cwd=tmp_path, code=3)
        ran("t.json", "-o", "out.parquet", cwd=tmp_path, code=3)
        rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
        assert [(row["prompt"], row["x"]) for row in rows] == [("a", "?"), ("?", None)]
        assert "not UTF-8" in rows[1]["error"]

    def test_of_packed_rows_and_of_stdin(self, tmp_path: Path) -> None:
        rows = [{"prompt": "a", "n_": 1, "mixed": 1}, {"prompt": "b", "n_": 2, "mixed": "x", "deep": {"a": [1]}}]
        text = "\n".join(map(json.dumps, rows)).encode()
        (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(text))
        ran("t.jsonl.gz", "-o", "out.parquet", cwd=tmp_path)
        done = blendrun("run", "-", "-o", "in.parquet", *REPLAY, cwd=tmp_path, input=text)
        assert done.returncode == 0, done.stderr
        for name in ("out", "in"):
            found = pq.read_table(tmp_path / f"{name}.parquet").to_pylist()
            assert [{name: row[name] for name in ("prompt", "n_", "mixed", "deep")} for row in found] == [
                {"prompt": "a", "n_": 1, "mixed": "1", "deep": None},
                {"prompt": "b", "n_": 2, "mixed": "x", "deep": '{"a":[1]}'},
            ]

    def test_several_tables_are_one_and_those_that_cannot_be_are_refused_first(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"prompt": ["a"], "n": pa.array([1], pa.int32())}), tmp_path / "a.parquet")
        pq.write_table(pa.table({"prompt": ["b"], "m": ["x"]}), tmp_path / "b.parquet")
        pq.write_table(pa.table({"prompt": ["c"], "n": ["text"]}), tmp_path / "c.parquet")
        ran("a.parquet", "b.parquet", "-o", "out.parquet", cwd=tmp_path)
        rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
        assert [(row["prompt"], row["n"], row["m"]) for row in rows] == [("a", 1, None), ("b", None, "x")]
        said = ran("a.parquet", "c.parquet", "-o", "no.parquet", cwd=tmp_path, code=2)
        assert "do not go into one table" in said
        (tmp_path / "d.csv").write_text("prompt\nd\n")
        assert "have no columns in common" in ran("a.parquet", "d.csv", "-o", "no.csv", cwd=tmp_path, code=2)

    def test_answers_of_answers_have_names_of_their_own(self, tmp_path: Path) -> None:
        reasoning_set(tmp_path / "t.parquet", rows=3)
        ran("t.parquet", "-o", "first.parquet", cwd=tmp_path)
        judged = ("first.parquet", "--prompt-template", "Good? {{ problem }}: {{ response }}", "-o", "second.parquet")
        ran(*judged, cwd=tmp_path)
        names = pq.read_schema(tmp_path / "second.parquet").names
        assert [name for name in names if name.startswith(("response", "error"))] == [
            *("response", "error_code", "error"),
            *("response_2", "error_code_2", "error_2"),
        ]

    def test_several_of_them_are_rows_where_it_is_said_how(self, tmp_path: Path) -> None:
        reasoning_set(tmp_path / "t.parquet", rows=3)
        ran("t.parquet", "-o", "first.parquet", cwd=tmp_path)
        reasoning_set(tmp_path / "u.parquet", rows=2)
        names: tuple[str, ...] = ("first.parquet", "u.parquet")
        assert "first.parquet is the output of a run; give --prompt-template" in ran(*names, cwd=tmp_path, code=65)
        words = ("--prompt-template", "Good? {{ problem }}", "--limit", "5")
        for _ in range(2):
            # The second time the pattern of a shell names this run's own output, too.
            said = ran(*names, *words, "-o", "out.parquet", cwd=tmp_path)
            assert "first.parquet is left out" not in said
            assert pq.read_table(tmp_path / "out.parquet").num_rows == 5
            names = ("first.parquet", "u.parquet", "out.parquet")
        assert "out.parquet is left out" in said
        ran(*names[:2], *words, cwd=tmp_path)
        assert len(lines_of(tmp_path / "first.answers.jsonl")) == 5

    @pytest.mark.parametrize("packed", [False, True])
    def test_an_edit_that_no_prompt_reads_is_in_the_table_with_the_same_answers(
        self, tmp_path: Path, packed: bool
    ) -> None:
        name, again = "t.csv.gz" if packed else "t.csv", "written again"

        def edit(mark: str) -> None:
            text = f"prompt,mark\na,{mark}\nb,{mark}\n".encode()
            (tmp_path / name).write_bytes(gzip.compress(text, mtime=0) if packed else text)

        def answers() -> list[dict[str, str]]:
            return list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))

        edit("old")
        words = (name, "-o", "out.csv")
        assert again not in ran(*words, cwd=tmp_path)
        before = answers()
        edit("new")
        assert again in ran(*words, cwd=tmp_path)
        assert answers() == [row | {"mark": "new"} for row in before]
        assert "nothing to do" in ran(*words, cwd=tmp_path)
        # Killed as it began to write: the old output stands beside a journal that has all answers.
        edit("newer")
        (tmp_path / "out.csv.blendrun" / "summary.json").unlink()
        ran(*words, cwd=tmp_path)
        assert {row["mark"] for row in answers()} == {"newer"}

    def test_a_limit_ends_the_table(self, tmp_path: Path) -> None:
        reasoning_set(tmp_path / "t.parquet")
        ran("t.parquet", "--limit", "7", "-o", "out.parquet", cwd=tmp_path)
        assert pq.read_table(tmp_path / "out.parquet")["level"].to_pylist() == list(range(7))

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (
                ("-o", "out.parquet", "--shard", "1/2"),
                "blendrun merge out.jsonl, and blendrun convert out.jsonl -o out.parquet",
            ),
            (("-o", "out.csv.gz"), "what is written is not packed; give out.csv"),
            (("-o", "out.jsonl.zst"), "what is written is not packed; give out.jsonl"),
            (("-o", "out.xlsx"), "no .xlsx is written; known are .jsonl, .parquet"),
            (("-o", "out.arrow"), "no .arrow is written"),
            (("--partial", "out.parquet"), "--partial out.parquet: lines are written there, no Parquet"),
            (("--partial", "out.jsonl.gz"), "--partial out.jsonl.gz: what is written is not packed"),
            (("-o", "out.parquet", "--upload", "https://host/a.jsonl"), "and -o out.parquet is a Parquet file"),
            (("-o", "out.jsonl", "--upload", "https://host/a.csv"), "and -o out.jsonl is lines"),
            (("--schema", "none.json"), "--schema is a file with a JSON schema"),
            (("--schema", "t.parquet"), "is not JSON"),
        ],
    )
    def test_refused_before_anything_begins(self, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
        reasoning_set(tmp_path / "t.parquet")
        done = blendrun("run", "t.parquet", *words, *REPLAY, cwd=tmp_path)
        assert done.returncode in (2, 66)
        assert said in done.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["t.parquet"]


class TestAnswers:
    def test_several_of_a_line_are_a_list(self, tmp_path: Path) -> None:
        rows = [{"prompt": "a", "n": 3}, {"prompt": "b"}]
        (tmp_path / "t.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
        ran("t.jsonl", "-o", "out.parquet", cwd=tmp_path)
        assert [len(cell) for cell in pq.read_table(tmp_path / "out.parquet")["response"].to_pylist()] == [3, 1]

    @pytest.mark.parametrize("form", ["float", "base64"])
    def test_vectors_are_fixed_lists_of_32_bits(self, tmp_path: Path, form: str) -> None:
        body = {"input": "x", "dimensions": 16, "encoding_format": form}
        embedding_lines(tmp_path / "e.jsonl", [body] * 5)
        ran("e.jsonl", "-o", "out.parquet", cwd=tmp_path)
        table = pq.read_table(tmp_path / "out.parquet")
        assert table.schema.field("embedding").type == pa.list_(pa.float32(), 16)
        want = np.array(placeholder(16), np.float32).tolist()
        assert table["embedding"].to_pylist() == [want] * 5
        assert table.column_names == ["custom_id", "embedding", *COUNTS[:2], "error_code", "error"]
        ran("e.jsonl", "-o", "out.csv", cwd=tmp_path)
        cell = next(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))["embedding"]
        assert np.array(json.loads(cell), np.float32).tolist() == want

    def test_vectors_that_are_unlike(self, tmp_path: Path) -> None:
        one, two = {"input": "x", "dimensions": 4}, {"input": ["x", "y"], "dimensions": 4}
        bodies: list[dict[str, Any]] = [one, {"input": [" ", "y"]}, one, two]
        embedding_lines(tmp_path / "e.jsonl", bodies)
        ran("e.jsonl", "-o", "out.parquet", cwd=tmp_path, code=3)
        table = pq.read_table(tmp_path / "out.parquet")
        assert table.schema.field("embedding").type == pa.list_(pa.list_(pa.float32(), 4))
        assert [cell and len(cell) for cell in table["embedding"].to_pylist()] == [1, None, 1, 2]
        embedding_lines(tmp_path / "f.jsonl", [{"input": "x", "dimensions": 4}, {"input": "x", "dimensions": 5}])
        ran("f.jsonl", "-o", "f.parquet", cwd=tmp_path)
        table = pq.read_table(tmp_path / "f.parquet")
        assert table.schema.field("embedding").type == pa.list_(pa.float32())
        assert [len(cell) for cell in table["embedding"].to_pylist()] == [4, 5]

    def test_every_kind_of_answer_in_one_table(self, tmp_path: Path) -> None:
        lines: list[tuple[str, dict[str, Any]]] = [
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
            ("/v1/completions", {"prompt": "x"}),
            ("/v1/responses", {"input": "x"}),
            ("/v1/embeddings", {"input": "x"}),
            ("/v1/classify", {"input": ["x", "y"]}),
            ("/v1/score", {"text_1": "x", "text_2": ["y", "z"]}),
            ("/v1/rerank", {"query": "x", "documents": ["y", "z"]}),
        ]
        text = [orjson.dumps({"custom_id": str(n), "url": url, "body": body}) for n, (url, body) in enumerate(lines)]
        text.append(orjson.dumps({"custom_id": "7", "params": {"max_tokens": 9, "messages": lines[0][1]["messages"]}}))
        (tmp_path / "m.jsonl").write_bytes(b"\n".join(text))
        ran("m.jsonl", "-o", "out.parquet", cwd=tmp_path)
        rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
        assert [row["response"] is not None for row in rows] == [True, True, True, *[False] * 4, True]
        assert all(row["prompt_tokens"] for row in rows)
        assert rows[4]["label"] == ["LABEL_0"] * 2
        assert len(rows[5]["scores"]) == 2
        assert (rows[6]["ranking"], len(rows[6]["relevance_scores"])) == ([0, 1], 2)


def embedding_lines(path: Path, bodies: list[dict[str, Any]]) -> None:
    lines = [{"custom_id": str(n), "url": "/v1/embeddings", "body": body} for n, body in enumerate(bodies)]
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)))


def test_base64_is_of_little_ends() -> None:
    packed = base64.b64encode(struct.pack("<2f", 1.5, -2.0)).decode()
    assert vector(packed).tolist() == vector([1.5, -2.0]).tolist() == [1.5, -2.0]


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": ["integer", "null"]},
        "score": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "any": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
    },
}


class TestParsed:
    def test_a_schema_has_an_arrow_type(self) -> None:
        assert schema_type(SCHEMA) == pa.struct(
            [
                ("name", pa.string()),
                ("age", pa.int64()),
                ("score", pa.float64()),
                ("tags", pa.list_(pa.string())),
                ("any", pa.string()),
            ]
        )

    def test_what_does_not_fit_is_null(self) -> None:
        value = {"name": 3, "age": 2.0, "score": 1, "tags": ["a", None], "any": {"x": 1}, "more": 1}
        assert fitted(value, schema_type(SCHEMA)) == {
            "name": "3",
            "age": 2,
            "score": 1.0,
            "tags": ["a", None],
            "any": '{"x":1}',
        }
        values: tuple[Any, ...] = ([], "text", 3)
        for wrong in values:
            assert fitted(wrong, schema_type(SCHEMA)) is None
        assert fitted(2**70, pa.int64()) is None
        assert fitted(True, pa.int64()) is None

    def test_the_column_is_there_where_a_schema_is(self, tmp_path: Path) -> None:
        (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
        reasoning_set(tmp_path / "t.parquet", rows=2)
        ran("t.parquet", "--schema", "schema.json", "-o", "out.parquet", cwd=tmp_path)
        # The placeholders are no JSON.
        assert pq.read_table(tmp_path / "out.parquet")["parsed"].to_pylist() == [None, None]


def test_answers_in_lines_become_a_table(tmp_path: Path) -> None:
    reasoning_set(tmp_path / "t.parquet", rows=6, bad=(2,))
    ran("t.parquet", "-o", "a.jsonl", "--shard", "1/2", cwd=tmp_path, code=3)
    ran("t.parquet", "-o", "a.jsonl", "--shard", "2/2", cwd=tmp_path)
    assert blendrun("merge", "a.jsonl", cwd=tmp_path).returncode == 3
    assert blendrun("convert", "a.jsonl", "-o", "a.parquet", cwd=tmp_path).returncode == 0
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    # Failures come last.
    assert [row["custom_id"] for row in rows] == ["row-1", "row-2", "row-4", "row-5", "row-6", "row-3"]
    assert [row["error"] is None for row in rows] == [True] * 5 + [False]
    ran("t.parquet", "-o", "b.jsonl", cwd=tmp_path, code=3)
    assert blendrun("convert", "b.jsonl", "-o", "b.csv", cwd=tmp_path).returncode == 0
    wrong = blendrun("convert", "t.parquet", "-o", "c.parquet", cwd=tmp_path)
    assert (wrong.returncode, "holds no answers" in wrong.stderr) == (65, True)
    assert not (tmp_path / "c.parquet").exists()


class TestConversionOfAnswers:
    def convert(self, folder: Path, *words: str, code: int = 0) -> str:
        if not (folder / "a.jsonl").exists():
            reasoning_set(folder / "t.parquet", rows=6, bad=(2,))
            ran("t.parquet", "-o", "a.jsonl", cwd=folder, code=3)
        done = blendrun("convert", *words, cwd=folder)
        assert done.returncode == code, done.stderr
        return str(done.stderr)

    @pytest.mark.parametrize(
        "words", [("--max-tokens", "9"), ("--prompt-template", "{{ x }}"), ("--endpoint", "/v1/completions")]
    )
    def test_what_is_said_of_rows_is_refused(self, tmp_path: Path, words: tuple[str, ...]) -> None:
        said = self.convert(tmp_path, "a.jsonl", "-o", "b.parquet", *words, code=2)
        assert f"{words[0]} says how rows become requests" in said
        assert not (tmp_path / "b.parquet").exists()

    def test_the_limit_is_of_answers(self, tmp_path: Path) -> None:
        self.convert(tmp_path, "a.jsonl", "-o", "b.parquet", "--limit", "2")
        assert pq.read_table(tmp_path / "b.parquet")["custom_id"].to_pylist() == ["row-1", "row-2"]

    @pytest.mark.parametrize("again", ["a.jsonl", "./a.jsonl", "a.jsonl.errors.jsonl"])
    def test_no_file_is_read_twice(self, tmp_path: Path, again: str) -> None:
        for names in (("a.jsonl", again), (again, "a.jsonl")):
            assert "would be read twice" in self.convert(tmp_path, *names, "-o", "b.parquet", code=2)

    def test_each_other_file_is_called_what_it_is(self, tmp_path: Path) -> None:
        self.convert(tmp_path, "a.jsonl", "-o", "b.csv")
        self.convert(tmp_path, "a.jsonl", "-o", "b.parquet")
        (tmp_path / "a.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
        for name in ("b.csv", "b.parquet"):
            assert f"{name} is a table of answers already" in self.convert(tmp_path, name, "-o", "c.tsv", code=65)
        assert "a.gz is packed; unpack it first" in self.convert(tmp_path, "a.gz", "-o", "c.tsv", code=65)
        for name in ("a.jsonl", "a.gz"):
            assert f"{name} holds answers; give -o NAME.parquet" in self.convert(tmp_path, name, code=65)
        assert not (tmp_path / "c.tsv").exists()
        assert "no .xlsx is written" in self.convert(tmp_path, "t.parquet", "-o", "c.xlsx", code=2)

    def test_where_all_lines_failed_the_table_has_the_failures(self, tmp_path: Path) -> None:
        reasoning_set(tmp_path / "u.parquet", rows=2, bad=(0, 1))
        ran("u.parquet", "-o", "f.jsonl", cwd=tmp_path, code=3)
        self.convert(tmp_path, "f.jsonl", "-o", "f.parquet")
        assert pq.read_table(tmp_path / "f.parquet")["error_code"].to_pylist() == ["invalid_request"] * 2


def test_from_python(tmp_path: Path) -> None:
    reasoning_set(tmp_path / "t.parquet", rows=2)
    summary = blendrun_api.run(
        tmp_path / "t.parquet",
        output=tmp_path / "out.parquet",
        engine="replay",
        prompt_column="solution",
        schema={"type": "object", "properties": {"a": {"type": "integer"}}},
    )
    assert summary.counts.completed == 2
    assert pq.read_schema(tmp_path / "out.parquet").field("parsed").type == pa.struct([("a", pa.int64())])
    with pytest.raises(UsageError, match=r"read it with pandas, polars or datasets, for example polars.read_parquet\("):
        blendrun_api.read(tmp_path / "out.parquet")


def test_rows_of_json_name_their_adapter(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"prompt": "a", "lora_path": "sql"}\n{"prompt": "b", "lora_path": null}\n')
    for url in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
        done = blendrun("convert", "t.jsonl", "--endpoint", url, cwd=tmp_path)
        bodies = [json.loads(line)["body"] for line in done.stdout.splitlines()]
        assert [body.get("lora_path") for body in bodies] == ["sql", None]


@pytest.mark.parametrize("words", [(), ("--max-tokens", "9")])
def test_a_csv_from_stdin_has_no_name_to_be_known_by(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = blendrun("run", "-", "-o", "a.jsonl", *words, *REPLAY, cwd=tmp_path, input="prompt,x\na,b\n")
    assert done.returncode in (2, 65)
    assert "CSV, TSV and text are known by their names, so give a file" in done.stderr


def test_convert_replaces_nothing_unasked_and_takes_rows_only(tmp_path: Path) -> None:
    reasoning_set(tmp_path / "t.parquet", rows=2)
    (tmp_path / "out.jsonl").write_text("mine")
    words = ("convert", "t.parquet", "-o", "out.jsonl")
    assert blendrun(*words, cwd=tmp_path).returncode == 73
    assert blendrun(*words, "--overwrite", cwd=tmp_path).returncode == 0
    assert ids(tmp_path / "out.jsonl") == ["row-1", "row-2"]
    again = blendrun("convert", "out.jsonl", cwd=tmp_path)
    assert (again.returncode, "holds requests already" in again.stderr) == (65, True)
    assert blendrun("convert", "t.parquet", "-q", "--limit", "1", cwd=tmp_path).stdout.count("\n") == 1
