"""Tables of few bytes that unfold to many: what is held of them is bounded, and what is honest goes in as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendrun.errors import InputInvalidError, LineError
from blendrun.jobs.line import parse_line
from blendrun.jobs.tables import json_rows, parquet_rows, text_rows
from blendrun.jobs.tables.base import BadRow, Kind

MIB = 1 << 20
MOST = parquet_rows._MOST_BYTES
TEXT = "x" * (MIB // 4)


def sizes(path: Path, *wanted: str) -> list[tuple[int, int]]:
    """Rows and bytes of each batch."""
    return [(batch.num_rows, batch.nbytes) for batch in parquet_rows.batches(path, path.name, wanted)]


class TestValuesThatRowsShare:
    """512 rows of 256 KiB each, which stand in the file once: 128 MiB."""

    @pytest.mark.parametrize(
        "column",
        [
            pa.array([TEXT] * 512),
            pa.array([TEXT.encode()] * 512),
            pa.array([{"a": 1, "b": TEXT}] * 512),
            pa.array([[TEXT[: MIB // 8]] * 2] * 512),
            pa.array([[("key", TEXT)]] * 512, pa.map_(pa.string(), pa.string())),
            pa.array([TEXT] * 512).dictionary_encode(),
            pa.array([None] * 511 + [TEXT] * 512),
        ],
        ids=["texts", "bytes", "structs", "lists", "maps", "dictionary", "behind nulls"],
    )
    def test_no_batch_has_more_than_its_bound(self, tmp_path: Path, column: pa.Array) -> None:
        path = tmp_path / "t.parquet"
        pq.write_table(pa.table({"n": range(len(column)), "prompt": column, "z": ["z"] * len(column)}), path)
        assert path.stat().st_size < 2 * MIB
        for wanted in ((), ("prompt",)):
            found = sizes(path, *wanted)
            assert sum(rows for rows, _ in found) == len(column)
            assert max(size for _, size in found) <= MOST + MIB
        assert max(rows for rows, _ in sizes(path, "n")) == len(column)

    def test_what_each_value_takes_of_the_one_before(self, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        table = pa.table({"prompt": [TEXT] * 512})
        pq.write_table(table, path, use_dictionary=False, column_encoding={"prompt": "DELTA_BYTE_ARRAY"})
        assert path.stat().st_size < 2 * MIB
        found = sizes(path)
        assert max(size for _, size in found) <= MOST
        assert sum(rows for rows, _ in found) == 512

    @pytest.mark.parametrize("before", [[], [None] * 100], ids=["at once", "behind nulls"])
    @pytest.mark.parametrize("values", [[TEXT], [{"a": TEXT}], [("key", TEXT)]], ids=["texts", "structs", "maps"])
    def test_a_row_of_many_is_refused_before_it_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[Any], before: list[None]
    ) -> None:
        monkeypatch.setattr(parquet_rows, "_MOST_BYTES", MIB)
        path = tmp_path / "t.parquet"
        kind = pa.map_(pa.string(), pa.string()) if isinstance(values[0], tuple) else None
        pq.write_table(pa.table({"prompt": pa.array([*before, values, values * 128, values], kind)}), path)
        with pytest.raises(InputInvalidError, match="a row of it has up to 33,5"):
            list(parquet_rows.batches(path, "t.parquet"))
        # As many in several rows are read.
        pq.write_table(pa.table({"prompt": pa.array([*before, *[values * 4] * 32], kind)}), path)
        found = sizes(path)
        assert sum(rows for rows, _ in found) == len(before) + 32
        assert max(size for _, size in found) <= 2 * MIB

    def test_a_row_longer_than_a_line_costs_itself(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parquet_rows, "LONGEST_CELL", 1000)
        monkeypatch.setattr(parquet_rows, "_MOST_BYTES", 500)
        path = tmp_path / "t.parquet"
        pq.write_table(pa.table({"prompt": ["a", "x" * 1001, "b"]}), path, row_group_size=1)
        rows = list(parquet_rows.rows(path, "t"))
        assert [row if isinstance(row, dict) else "bad" for row in rows] == [{"prompt": "a"}, "bad", {"prompt": "b"}]


class TestHonestParquet:
    def test_short_values_are_read_as_many_at_a_time_as_before(self, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        texts = [f"problem {row % 300}, at some length" * 8 for row in range(30_000)]
        pq.write_table(pa.table({"prompt": texts, "level": ["hard", "easy"] * 15_000}), path)
        assert max(rows for rows, _ in sizes(path)) == parquet_rows._MOST_ROWS

    @pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
    def test_columns_that_arrow_reads_as_no_dictionaries(self, tmp_path: Path, encoding: str) -> None:
        path = tmp_path / "t.parquet"
        texts = [f"problem {row}, at some length" * 20 for row in range(8_000)]
        table = pa.table({"prompt": texts, "same": ["y" * 10_000] * 8_000})
        pq.write_table(table, path, use_dictionary=["same"], column_encoding={"prompt": encoding})
        rows = list(parquet_rows.rows(path, "t"))
        assert [row["prompt"] for row in rows] == texts  # type: ignore[index]

    def test_lists_of_every_form_are_read_as_they_are(self, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        turns = [None, [], *([{"role": "user", "parts": [f"turn {row}" * 20] * (row % 4)}] * 3 for row in range(2_000))]
        table = pa.table(
            {
                "messages": turns,
                "fixed": pa.array([["a" * 99, "b"]] * len(turns), pa.list_(pa.string(), 2)),
                "large": pa.array([["a" * 999, None]] * len(turns), pa.large_list(pa.large_string())),
                "nested": pa.array([[["a"] * 3, [], None]] * len(turns)),
                "map": pa.array([[("a", "x" * 99)], None] * (len(turns) // 2), pa.map_(pa.string(), pa.string())),
            }
        )
        pq.write_table(table, path)
        found = list(parquet_rows.batches(path, "t"))
        assert pa.Table.from_batches(found).equals(table)
        assert max(batch.num_rows for batch in found) >= 1000

    def test_long_rows_among_short_ones(self, tmp_path: Path) -> None:
        """The average of the file says nothing of a row group of the longest."""
        path = tmp_path / "t.parquet"
        schema = pa.schema([("prompt", pa.string())])
        with pq.ParquetWriter(path, schema, use_dictionary=False) as writer:
            writer.write_table(pa.table({"prompt": ["x"] * 200_000}))
            writer.write_table(pa.table({"prompt": [TEXT] * 256}))
        found = sizes(path)
        assert max(size for _, size in found) <= MOST + MIB
        assert found[0][0] == parquet_rows._rows(pq.read_metadata(path))

    def test_one_long_value_among_short_ones(self, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        pq.write_table(pa.table({"prompt": ["x" * (MIB // 8), *(f"problem {row}" for row in range(9_999))]}), path)
        assert min(rows for rows, _ in sizes(path)[:-1]) >= 128
        assert [row["prompt"] for row in parquet_rows.rows(path, "t")][-1] == "problem 9998"  # type: ignore[index]


class TestManySmallValues:
    """64 MiB of `[],` are 1.3 GiB once they are read."""

    # Eight times the longest line are 2.9 million of objects: 9 MB.
    MANY = b"[" + b"{}," * 2_000_000 + b"0]"

    def test_a_line_of_them_costs_itself(self, tmp_path: Path) -> None:
        path = tmp_path / "t.jsonl"
        path.write_bytes(b'{"prompt":"a"}\n{"prompt":"b","many":' + self.MANY + b'}\n{"prompt":"c"}\n')
        rows = list(json_rows.line_rows(path))
        assert (rows[0], rows[2]) == ({"prompt": "a"}, {"prompt": "c"})
        assert isinstance(rows[1], BadRow)
        assert rows[1].why == "the line has 6,000,026 bytes with too many values to read"

    def test_so_does_a_line_that_is_a_request(self) -> None:
        with pytest.raises(LineError, match="too many values to read"):
            parse_line(b'{"custom_id":"1","body":{"many":' + self.MANY + b"}}")

    def test_an_element_of_them_ends_the_array(self, tmp_path: Path) -> None:
        path = tmp_path / "t.json"
        path.write_bytes(b'[{"prompt":"a"},{"many":' + self.MANY + b"}]")
        rows = json_rows.array_rows(path, "t.json")
        assert next(rows) == {"prompt": "a"}
        with pytest.raises(InputInvalidError, match=r"t.json: element 2 of its array has too many values to read"):
            next(rows)

    def test_a_long_honest_element_among_many_small_ones(self, tmp_path: Path) -> None:
        path = tmp_path / "t.json"
        small: list[Any] = [{"a": row, "b": [1, 2], "c": {}} for row in range(5_000)]
        path.write_bytes(orjson.dumps([*small, {"picture": "A" * (12 * MIB)}, *small]))
        found = list(json_rows.elements(path, "t.json"))
        assert found[:5_000] == found[5_001:] == small
        assert len(found[5_000]["picture"]) == 12 * MIB

    @pytest.mark.parametrize("most", [3 * MIB, 64 * MIB])
    def test_a_prompt_of_a_million_tokens_is_a_line(self, most: int) -> None:
        body = {"model": "m", "prompt": [row % 10 for row in range(1_000_000)], "max_tokens": 1}
        raw = orjson.dumps({"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": body})
        assert parse_line(raw, max_line_bytes=most).custom_id == "1"


class TestCsv:
    def read(self, path: Path, text: str) -> list[Any]:
        path.write_text(text)
        return list(text_rows.csv_rows(path, Kind.CSV, ("prompt", "n")))

    def test_a_line_without_end_costs_itself(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(text_rows, "LONGEST_CELL", 1000)
        rows = self.read(tmp_path / "t.csv", "prompt,n\na,1\n" + "x" * 5000 + "\nb,2\n" + "y" * 5000)
        assert [row.why if isinstance(row, BadRow) else row["prompt"] for row in rows] == [
            "a",
            "the line has more than 1,000 characters, near line 2",
            "b",
            "the line has more than 1,000 characters, near line 3",
        ]

    @pytest.mark.parametrize("cells", ['"\n",', ","], ids=["over many lines", "in one line"])
    def test_a_row_of_too_many_cells_is_not_held(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: str
    ) -> None:
        monkeypatch.setattr(text_rows, "_SHORT", 100)
        monkeypatch.setattr(text_rows, "_ROW_BYTES", 10_000)
        rows = self.read(tmp_path / "t.csv", f"prompt,n\na,1\n{cells * 200}\nb,2\n")
        assert rows[0] == {"prompt": "a", "n": "1"}
        # Behind a row of many lines that is cut short, nobody knows whether a quote is open.
        assert rows[-1] == {"prompt": "b", "n": "2"} or "\n" in cells
        assert any(isinstance(row, BadRow) and "the row has too many cells to read" in row.why for row in rows)

    def test_a_long_honest_cell_goes_in(self, tmp_path: Path) -> None:
        cell = 'To be, or not to be, that is the "question":\n' * 100_000
        quoted = cell.replace('"', '""')
        rows = self.read(tmp_path / "t.csv", f'prompt,n\n"{quoted}",1\nb,2\n')
        assert rows == [{"prompt": cell, "n": "1"}, {"prompt": "b", "n": "2"}]


def test_json_of_a_step_that_is_honest_is_not_counted_twice() -> None:
    """A line of many short texts, as tools and long conversations have."""
    messages = [{"role": "user", "content": f"turn {row}: {{a}}, [b]"} for row in range(30_000)]
    raw = json.dumps({"custom_id": "1", "url": "/v1/chat/completions", "body": {"messages": messages}}).encode()
    assert parse_line(raw, max_line_bytes=4 * MIB).custom_id == "1"
