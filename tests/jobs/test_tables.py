"""Rows of tables become request lines: which columns, which words, which rows cannot."""

from __future__ import annotations

import base64
import csv
import datetime
import gzip
import io
import json
import re
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blendrun.errors import BlendrunError, InputInvalidError, UsageError
from blendrun.installed import install_command
from blendrun.jobs.index import index_jobs
from blendrun.jobs.source import Source, open_sources
from blendrun.jobs.tables.base import Kind
from blendrun.jobs.tables.columns import Columns
from blendrun.jobs.tables.note import notes
from blendrun.store.tables.own import check_own
from blendrun.store.tables.write import write_table

CHAT = "/v1/chat/completions"
ERROR_LINE = b'{"custom_id": "1", "response": null, "error": {"code": "c", "message": "m"}}'
PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def made(path: Path, spool: Path, **columns: Any) -> tuple[Source, list[dict[str, Any]]]:
    """The source, and its lines; of a row that cannot be a request its error."""
    source = open_sources([path], spool, columns=Columns(**columns))[0]
    return source, [json.loads(line) for line in source.path.read_bytes().splitlines() if line]


def told(*sources: Source) -> str:
    return "\n".join(notes((source.name, source.made) for source in sources))


def bodies(path: Path, spool: Path, **columns: Any) -> list[dict[str, Any]]:
    return [line["body"] for line in made(path, spool, **columns)[1]]


def said(body: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(message["role"], message["content"]) for message in body["messages"]]


class TestWhichColumns:
    def test_a_reasoning_set_needs_no_option(self, tmp_path: Path, spool: Path) -> None:
        path = parquet(tmp_path / "s1.parquet", id=["x", "y"], problem=["1+1?", "2+2?"], solution=["2", "4"])
        source, lines = made(path, spool)
        assert [line["custom_id"] for line in lines] == ["row-1", "row-2"]
        assert {line["url"] for line in lines} == {CHAT}
        assert [said(line["body"]) for line in lines] == [[("user", "1+1?")], [("user", "2+2?")]]
        assert told(source) == (
            f"{path}: 2 rows of Parquet become requests of {CHAT}: the prompt is `problem`; custom_id is row-N"
        )

    @pytest.mark.parametrize(
        ("columns", "words"),
        [
            ({"prompt": "promt"}, "no column 'promt'; its columns are a, b"),
            ({"id": "uid", "prompt": "a"}, "no column 'uid'"),
            ({"template": "{{ a }} {{ c }}"}, "no column 'c'"),
            ({"template": "[[DOCUMENT]]"}, "which column is [[DOCUMENT]]?"),
            ({}, "which column is the prompt? Give --prompt-column"),
        ],
    )
    def test_one_that_is_not_there_is_told_with_those_that_are(
        self, tmp_path: Path, spool: Path, columns: dict[str, Any], words: str
    ) -> None:
        path = parquet(tmp_path / "t.parquet", a=["x"], b=["y"])
        with pytest.raises(InputInvalidError) as caught:
            open_sources([path], spool, columns=Columns(**columns))
        assert words in str(caught.value)
        assert "a, b" in str(caught.value)

    @pytest.mark.parametrize(
        ("columns", "words"),
        [
            ({"messages": "a", "prompt": "b"}, "--messages-column holds whole conversations"),
            ({"template": "no column"}, "names no column"),
            ({"template": " "}, "is empty"),
            ({"prompt": "a", "url": "/v1/rerank"}, "rows become requests of"),
            ({"prompt": "a", "system": "x", "url": "/v1/completions"}, "--system-prompt is for chats"),
            ({"prompt": "a", "max_tokens": 3, "url": "/v1/embeddings"}, "--max-tokens is for answers"),
        ],
    )
    def test_options_that_do_not_go_together(
        self, tmp_path: Path, spool: Path, columns: dict[str, Any], words: str
    ) -> None:
        path = parquet(tmp_path / "t.parquet", a=["x"], b=["y"])
        with pytest.raises(UsageError) as caught:
            open_sources([path], spool, columns=Columns(**columns))
        assert words in str(caught.value)

    def test_options_for_rows_are_not_passed_over_where_there_are_none(self, tmp_path: Path, spool: Path) -> None:
        path = write(tmp_path / "a.jsonl", json.dumps({"custom_id": "1", "url": CHAT, "body": {}}))
        with pytest.raises(UsageError, match="--max-tokens says how rows become requests"):
            open_sources([path], spool, columns=Columns(max_tokens=3))

    def test_instruction_and_input_are_one_prompt(self, tmp_path: Path, spool: Path) -> None:
        path = parquet(tmp_path / "t.parquet", instruction=["Sum up.", "Say hello."], input=["A text.", ""])
        assert [said(body) for body in bodies(path, spool)] == [
            [("user", "Sum up.\n\nA text.")],
            [("user", "Say hello.")],
        ]

    def test_everything_that_can_be_said(self, tmp_path: Path, spool: Path) -> None:
        path = parquet(tmp_path / "t.parquet", key=[7], text=["T"], n=pa.array([2], pa.int32()), ok=[True], l=[[1, 2]])
        schema = {"type": "object"}
        source, lines = made(
            path,
            spool,
            id="key",
            system="Be brief.",
            template="{{n}} {{ ok }} {{ l }} [[DOCUMENT]] {not}",
            max_tokens=5,
            temperature=0.5,
            schema=schema,
        )
        assert lines == [
            {
                "custom_id": "7",
                "url": CHAT,
                "body": {
                    "messages": [
                        {"role": "system", "content": "Be brief."},
                        {"role": "user", "content": "2 true [1,2] T {not}"},
                    ],
                    "max_tokens": 5,
                    "temperature": 0.5,
                    "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
                },
            }
        ]
        assert len(index_jobs([source]).accepted) == 1

    @pytest.mark.parametrize(
        ("url", "body"),
        [("/v1/completions", {"prompt": "T"}), ("/v1/embeddings", {"input": "T"}), ("/v1/classify", {"input": "T"})],
    )
    def test_other_urls(self, tmp_path: Path, spool: Path, url: str, body: dict[str, Any]) -> None:
        source, lines = made(parquet(tmp_path / "t.parquet", text=["T"]), spool, url=url)
        assert (lines[0]["url"], lines[0]["body"]) == (url, body)
        assert len(index_jobs([source]).accepted) == 1


class TestConversations:
    def test_messages_sharegpt_and_text_are_alike_and_an_answer_behind_them_is_left_out(
        self, tmp_path: Path, spool: Path
    ) -> None:
        messages = [
            {"role": "system", "content": "S", "name": None},
            {"role": "user", "content": "Q", "name": None},
            {"role": "assistant", "content": "A", "name": None},
        ]
        turns = [
            {"from": "system", "value": "S"},
            {"from": "human", "value": "Q"},
            {"from": "gpt", "value": "A"},
        ]
        want = [("system", "S"), ("user", "Q")]
        for number, cell in enumerate((messages, turns, json.dumps(messages))):
            path = parquet(tmp_path / f"{number}.parquet", conversations=[cell])
            source, lines = made(path, spool)
            assert said(lines[0]["body"]) == want
            assert "name" not in lines[0]["body"]["messages"][0]
            assert "1 conversations end with an answer, which is left out" in told(source)
        # A conversation may stand in a column of prompts, too.
        path = parquet(tmp_path / "p.parquet", prompt=[messages[:2]])
        assert said(bodies(path, spool, system="other")[0]) == want

    @pytest.mark.parametrize(
        ("cell", "why"),
        [
            (None, "`messages` is null"),
            ("hello", "not a JSON list of messages"),
            ("[]", "an empty list"),
            ('["a"]', "no list of messages"),
            ('[{"from": "observation", "value": "x"}]', "a turn from 'observation'"),
            ('[{"role": "assistant", "content": "x"}]', "no message but the assistant's"),
        ],
    )
    def test_a_bad_one_costs_its_row(self, tmp_path: Path, spool: Path, cell: str | None, why: str) -> None:
        path = parquet(tmp_path / "t.parquet", messages=['[{"role": "user", "content": "Hi"}]', cell])
        source, _ = made(path, spool)
        job = index_jobs([source])
        assert job.accepted.tolist() == [0]
        assert job.error(1).message.startswith("row 2: ")
        assert why in job.error(1).message
        assert job.error(1).custom_id == "row-2"
        assert "1 cannot be requests" in told(source)


class TestPictures:
    @pytest.mark.parametrize(
        "cell", [PNG, {"bytes": PNG, "path": None}, [{"bytes": PNG, "path": "x.png"}]], ids=["bytes", "struct", "list"]
    )
    def test_bytes_become_data(self, tmp_path: Path, spool: Path, cell: Any) -> None:
        path = parquet(tmp_path / "t.parquet", text=["What?"], image=[cell])
        content = bodies(path, spool, image="image")[0]["messages"][0]["content"]
        assert content == [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}},
            {"type": "text", "text": "What?"},
        ]

    def test_addresses_stay_and_what_is_none_costs_its_row(self, tmp_path: Path, spool: Path) -> None:
        path = parquet(tmp_path / "t.parquet", text=["a", "b"], image=["http://x/y.png", None])
        lines = made(path, spool, image="image")[1]
        assert lines[0]["body"]["messages"][0]["content"][0]["image_url"]["url"] == "http://x/y.png"
        assert lines[1]["bad_row"] == "row 2: `image` is null"


class TestParquet:
    def test_types_of_columns(self, tmp_path: Path, spool: Path) -> None:
        day = datetime.datetime(2024, 1, 2, 3, 4, 5)
        path = parquet(
            tmp_path / "t.parquet",
            dictionary=pa.array(["d"]).dictionary_encode(),
            large=pa.array(["l"], pa.large_string()),
            int=pa.array([-3], pa.int8()),
            real=[0.5],
            flag=[False],
            time=pa.array([day]),
            raw=pa.array([b"raw"]),
            struct=[{"a": 1, "b": None}],
        )
        names = pq.read_schema(path).names
        template = "|".join(f"{{{{ {name} }}}}" for name in names)
        text = said(bodies(path, spool, template=template)[0])[0][1]
        assert text == 'd|l|-3|0.5|false|2024-01-02T03:04:05|raw|{"a":1,"b":null}'

    def test_nulls_cost_their_row(self, tmp_path: Path, spool: Path) -> None:
        path = parquet(tmp_path / "t.parquet", prompt=["a", None, "", "b"], key=["1", "2", "3", None])
        lines = made(path, spool, id="key")[1]
        assert [line.get("bad_row") for line in lines] == [
            None,
            "row 2: `prompt` is null",
            "row 3: `prompt` is empty",
            "row 4: `key` is null",
        ]
        assert [line["custom_id"] for line in lines] == ["1", "2", "3", "row-4"]

    def test_text_that_is_no_utf8_costs_its_row(self, tmp_path: Path, spool: Path) -> None:
        text = pa.StringArray.from_buffers(3, pa.py_buffer(struct.pack("<4i", 0, 1, 2, 3)), pa.py_buffer(b"a\xe9b"))
        job = index_jobs([made(parquet(tmp_path / "t.parquet", prompt=text), spool)[0]])
        assert job.accepted.tolist() == [0, 2]
        assert "row 2: it cannot be read" in job.error(1).message

    @pytest.mark.parametrize(
        ("table", "words"),
        [
            (pa.table({}), "has no columns"),
            (pa.table({"prompt": pa.array([], pa.string())}), "holds no rows"),
            (pa.Table.from_arrays([pa.array(["x"])] * 2, names=["a", "a"]), "two columns named 'a'"),
        ],
    )
    def test_nothing_in_it(self, tmp_path: Path, spool: Path, table: pa.Table, words: str) -> None:
        pq.write_table(table, tmp_path / "t.parquet")
        with pytest.raises(InputInvalidError, match=words):
            open_sources([tmp_path / "t.parquet"], spool)

    def test_half_a_file(self, tmp_path: Path, spool: Path) -> None:
        path = parquet(tmp_path / "t.parquet", prompt=["x" * 1000] * 100)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(InputInvalidError, match="is a Parquet file, and not sound"):
            open_sources([path], spool)


class TestText:
    def test_a_csv_with_everything_in_its_cells(self, tmp_path: Path, spool: Path) -> None:
        text = '\ufeffid,prompt\r\n1,"a, ""b""\nc"\r\n\r\n2,\u00e9\r\n3,x,y\r\n4\r\n5,"unclosed'
        lines = made(write(tmp_path / "t.csv", text), spool, id="id")[1]
        assert [said(line["body"])[0][1] for line in lines[:2]] == ['a, "b"\nc', "\u00e9"]
        assert [line["custom_id"] for line in lines] == ["1", "2", "row-3", "row-4", "row-5"]
        assert lines[2]["bad_row"] == "row 3: it has 3 cells, the header 2"
        assert "a quote is opened and never closed" in lines[4]["bad_row"]

    def test_a_packed_one(self, tmp_path: Path, spool: Path) -> None:
        path = write(tmp_path / "t.csv.gz", gzip.compress(b"prompt\na\n"))
        source, lines = made(path, spool)
        assert said(lines[0]["body"]) == [("user", "a")]
        assert {file.parent for file in source.files} == {spool}

    @pytest.mark.parametrize(("name", "mark"), [("t.tsv", "\t"), ("t.csv", ";"), ("t.CSV", "\t")])
    def test_marks_between_cells(self, tmp_path: Path, spool: Path, name: str, mark: str) -> None:
        path = write(tmp_path / name, f"n{mark}question\n1{mark}a, b\n")
        assert [said(body) for body in bodies(path, spool)] == [[("user", "a, b")]]

    def test_a_row_that_is_no_utf8_costs_itself(self, tmp_path: Path, spool: Path) -> None:
        path = write(tmp_path / "t.csv", b"prompt\ncaf\xe9\ngood\n")
        job = index_jobs([made(path, spool)[0]])
        assert job.accepted.tolist() == [1]
        assert "not UTF-8" in job.error(0).message

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "is empty; its first line must name the columns"),
            (b"prompt\n", "holds no rows"),
            (b"pr\xe9\nx\n", "is not UTF-8"),
            (b"a,a\nx,y\n", "two columns named 'a'"),
        ],
    )
    def test_a_csv_that_cannot_be_read(self, tmp_path: Path, spool: Path, content: bytes, words: str) -> None:
        with pytest.raises(InputInvalidError, match=words):
            open_sources([write(tmp_path / "t.csv", content)], spool)

    def test_a_text_has_a_prompt_a_line(self, tmp_path: Path, spool: Path) -> None:
        source, lines = made(write(tmp_path / "t.txt", b"one\r\n\n  two\nthr\xe9e"), spool)
        assert [said(line["body"])[0][1] for line in lines[:2]] == ["one", "  two"]
        job = index_jobs([source])
        # Blank lines are counted, as in a file of requests.
        assert job.line_number.tolist() == [1, 3, 4]
        assert job.accepted.tolist() == [0, 1]

    @pytest.mark.parametrize("text", ["[INST] Hi\n", '["a"]\nHi\n', 'Hi\n{"a": 1}\n'])
    def test_a_prompt_may_look_like_json(self, tmp_path: Path, spool: Path, text: str) -> None:
        prompts = [said(body)[0][1] for body in bodies(write(tmp_path / "t.txt", text), spool)]
        assert prompts == text.splitlines()

    @pytest.mark.parametrize("first", ["", "not JSON\n", "[1]\n"])
    def test_requests_in_a_text_file_are_requests(self, tmp_path: Path, spool: Path, first: str) -> None:
        path = write(tmp_path / "t.txt", first + json.dumps({"custom_id": "1", "url": CHAT, "body": {}}) + "\n")
        assert open_sources([path], spool)[0] == Source(str(path), path, path.stat().st_size)


class TestJson:
    ROWS = (
        {"prompt": "a", "max_tokens": 3, "label": 1},
        {"messages": [{"role": "user", "content": "b"}], "custom_id": "mine"},
        {"conversations": [{"from": "human", "value": "c"}]},
    )

    @pytest.mark.parametrize("form", ["lines", "array", "pretty"])
    @pytest.mark.parametrize("packed", [False, True])
    def test_rows_of_any_form(self, tmp_path: Path, spool: Path, form: str, packed: bool) -> None:
        text = {
            "lines": "\n".join(map(json.dumps, self.ROWS)),
            "array": json.dumps(self.ROWS),
            "pretty": json.dumps(self.ROWS, indent=2),
        }[form].encode()
        path = write(tmp_path / "rows.json", gzip.compress(text) if packed else text)
        source, lines = made(path, spool, temperature=0)
        assert [line["custom_id"] for line in lines] == ["row-1", "mine", "row-3"]
        assert [said(line["body"])[0][1] for line in lines] == ["a", "b", "c"]
        assert lines[0]["body"] == {"messages": lines[0]["body"]["messages"], "max_tokens": 3, "temperature": 0}
        assert len(index_jobs([source]).accepted) == 3

    def test_what_is_no_row_among_rows_is_an_error_line(self, tmp_path: Path, spool: Path) -> None:
        good = '{"prompt": "a"}'
        path = write(tmp_path / "r.jsonl", f'{good}\n\n{{"prompt": \n{good}\n[1]\n{{"answer": 4}}\n')
        job = index_jobs(open_sources([path], spool))
        assert job.accepted.tolist() == [0, 2]
        assert [job.line_number[row] for row in (1, 3, 4)] == [3, 5, 6]
        assert "not JSON" in job.error(1).message
        assert "must be a JSON object" in job.error(3).message
        assert "which column is the prompt?" in job.error(4).message

    @pytest.mark.parametrize(
        "text", ['[{"prompt": "a"}, ]', '[{"prompt": "a"} {"prompt": "b"}]', '[{"prompt": "a"}', '[{"prompt": "a"}] x']
    )
    def test_an_array_that_is_not_sound(self, tmp_path: Path, spool: Path, text: str) -> None:
        with pytest.raises(InputInvalidError, match=r"of its array|its array"):
            made(write(tmp_path / "r.json", text), spool, prompt="prompt")

    def test_an_array_longer_than_a_piece(self, tmp_path: Path, spool: Path) -> None:
        rows = [{"prompt": f"{number} " + "x" * (3 << 20 if number == 1 else 5000)} for number in range(300)]
        path = write(tmp_path / "r.json", json.dumps(rows, indent=1))
        prompts = [said(body)[0][1] for body in bodies(path, spool)]
        assert prompts == [row["prompt"] for row in rows]

    def test_texts_in_an_array(self, tmp_path: Path, spool: Path) -> None:
        path = write(tmp_path / "r.json", '["a", "b"]')
        assert [said(body)[0][1] for body in bodies(path, spool)] == ["a", "b"]


class TestTheSpool:
    def test_lines_are_made_once_and_anew_where_table_or_options_change(
        self, tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("blendrun.jobs.spool._SETTLED_NS", 0)
        path = parquet(tmp_path / "t.parquet", prompt=["a"], other=["b"])
        first = made(path, spool)[0]
        before = first.path.stat().st_mtime_ns
        again = made(path, spool)[0]
        assert (again, again.path.stat().st_mtime_ns) == (first, before)
        assert bodies(path, spool, prompt="other") != bodies(path, spool)
        parquet(path, prompt=["c"])
        assert said(bodies(path, spool)[0]) == [("user", "c")]

    def test_ids_of_several_tables_differ_and_adding_one_leaves_the_others(self, tmp_path: Path, spool: Path) -> None:
        paths = [parquet(tmp_path / f"{name}.parquet", prompt=["a", "b"]) for name in "xy"]
        sources = open_sources(paths, spool)
        assert told(*sources).startswith(f"{paths[0]} and 1 more: 4 rows of Parquet become requests of {CHAT}: ")
        job = index_jobs(sources)
        assert [job.request(row).custom_id for row in range(4)] == ["row-1", "row-2", "2-row-1", "2-row-2"]

    def test_a_limit_takes_the_first_rows_only(self, tmp_path: Path, spool: Path) -> None:
        path = parquet(tmp_path / "t.parquet", prompt=[str(number) for number in range(10_000)])
        assert len(bodies(path, spool, limit=3)) == 3

    def test_two_rows_of_one_id(self, tmp_path: Path, spool: Path) -> None:
        path = parquet(tmp_path / "t.parquet", key=["a", "a", "b"], prompt=["1", "2", "3"])
        job = index_jobs([made(path, spool, id="key")[0]])
        assert job.duplicate_of.tolist() == [-1, 0, -1]


def test_without_pyarrow_it_is_said_how_to_get_it(tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    path = parquet(tmp_path / "t.parquet", prompt=["a"])
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BlendrunError, match=re.escape(f"needs pyarrow: {install_command('tables')}")):
        open_sources([path], spool)
    assert made(write(tmp_path / "t.csv", "prompt\na\n"), spool)[1]


class TestAnyBytes:
    """Whatever a file holds: it is refused in a sentence, or each of its rows becomes a request or an error line, and a
    row of the output.
    """

    @given(content=st.binary(max_size=200) | st.text('a,"\n\r;\t[]{}:\\é', max_size=60).map(str.encode))
    @pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "t.json"])
    def test_of_text(self, name: str, content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
        folder = _folder(tmp_path_factory)
        self.read(write(folder / name, content), folder)

    @settings(suppress_health_check=[HealthCheck.too_slow])
    @given(flips=st.lists(st.tuples(st.integers(4, 600), st.integers(0, 255)), min_size=1, max_size=5))
    def test_of_parquet(self, flips: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory) -> None:
        folder = _folder(tmp_path_factory)
        data = bytearray(parquet(folder / "t.parquet", prompt=["a", None, "b"], n=[[1], [], [2, 3]]).read_bytes())
        for place, byte in flips:
            data[min(place, len(data) - 9)] = byte
        self.read(write(folder / "t.parquet", bytes(data)), folder)

    @pytest.mark.parametrize("path", sorted((Path(__file__).parent / "damaged").iterdir()), ids=lambda path: path.stem)
    def test_of_parquet_that_once_ended_the_process(self, path: Path, tmp_path: Path) -> None:
        """Flipped bits in what the file says of its columns."""
        with pytest.raises(InputInvalidError, match="is a Parquet file, and not sound"):
            open_sources([path], tmp_path / "spool", columns=Columns())

    @staticmethod
    def read(path: Path, folder: Path) -> None:
        try:
            source = open_sources([path], folder / "spool", columns=Columns())[0]
            check_own(folder / "out.csv", [source])
            job = index_jobs([source])
        except BlendrunError:
            return
        with job:
            for row in range(len(job)):
                assert (job.error(row) if job.rejected[row] else job.request(row)) is not None
            for kind in (Kind.CSV, Kind.PARQUET):
                file = io.BytesIO()
                write_table(file, kind, job, lambda _: ERROR_LINE, None)
                rows = pq.read_table(file).num_rows if kind is Kind.PARQUET else rows_of_csv(file.getvalue())
                assert rows == len(job)


def rows_of_csv(data: bytes) -> int:
    return len(list(csv.reader(io.StringIO(data.decode("latin-1"), newline="")))) - 1


def _folder(factory: pytest.TempPathFactory) -> Path:
    """One for all examples: what matters is in the file."""
    found = factory.getbasetemp() / "any-bytes"
    found.mkdir(exist_ok=True)
    return found
