import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel.errors import SourceError
from flywheel.sections import Attributes
from flywheel.sources.attributes import read_attributes
from flywheel.sources.files import FileSource
from flywheel.sources.source import LINE, ROW, UNREADABLE, Mark


def read(url: str, root: Path, marks: Sequence[Mark] = ()) -> tuple[list[dict[str, object]], list[Mark], list[str]]:
    """Every row of every new delivery, their marks as they would come back from disk, and their names."""
    rows, found, names = [], list(marks), []
    for delivery in FileSource(url, root).deliveries(list(marks)):
        for batch in delivery.batches():
            rows += batch.to_pylist()
        found.append(json.loads(json.dumps(delivery.mark())))
        names.append(delivery.name)
    return rows, found, names


def test_csv_cells_stay_as_they_were(tmp_path: Path) -> None:
    text = '\ufeffid,name\n007,"a ""quoted"", one"\n,"two\nlines"\n1.50,😀\n'
    (tmp_path / "e.csv").write_text(text, encoding="utf-8", newline="")
    rows, _, _ = read("e.csv", tmp_path)
    assert rows == [
        {"id": "007", "name": 'a "quoted", one'},
        {"id": "", "name": "two\nlines"},
        {"id": "1.50", "name": "😀"},
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_separators_are_seen_in_the_header(tmp_path: Path, separator: str) -> None:
    (tmp_path / "e.csv").write_text(f"a{separator}b\r\n1{separator}2\r\n")
    assert read("e.csv", tmp_path)[0] == [{"a": "1", "b": "2"}]


def test_a_value_retyped_far_down_is_read(tmp_path: Path) -> None:
    lines = ["n,m", *(f"{k},x" for k in range(900_000)), "many,x"]
    (tmp_path / "e.csv").write_text("\n".join(lines))
    delivery = next(FileSource("e.csv", tmp_path).deliveries([]))
    batches = list(delivery.batches())
    assert batches[-1].to_pylist()[-1] == {"n": "many", "m": "x"}
    assert sum(batch.num_rows for batch in batches) == 900_001


def test_csv_rows_with_too_many_or_too_few_fields_are_told_apart(tmp_path: Path) -> None:
    many = "".join(f"{k},{k}\n" for k in range(3, 700_000))
    (tmp_path / "e.csv").write_text(f"a,b\n1,1\n2,2,2\n{many}4\n5,5\n6,\n7\n")
    batches = list(next(FileSource("e.csv", tmp_path).deliveries([])).batches())
    bad = [row for batch in batches if UNREADABLE in batch.schema.names for row in batch.to_pylist()]
    assert [(row[ROW], row[LINE]) for row in bad] == [(2, "2,2,2"), (700_000, "4"), (700_003, "7")]
    assert bad[0][UNREADABLE] == "the row has 3 fields and the header 2"
    assert batches[0].slice(0, 3).to_pylist()[1] == {"a": "3", "b": "3", ROW: 3}
    assert sum(batch.num_rows for batch in batches) == 700_003


def test_jsonl_is_strict_row_by_row(tmp_path: Path) -> None:
    lines = ['{"id": 12345678901234567890, "y": 1.50, "g": ["a", 1], "ok": true}', "", '{"id": "x", "y": null}']
    bad = ['{"y": NaN}', '{"y": -Infinity}', "[1]", '{"y": ', "[" * 100_000, '{"y": "\\ud800"}', '{"y": "\udcff"}']
    (tmp_path / "e.jsonl").write_bytes("\n".join(lines + bad).encode("utf-8", "surrogateescape"))
    rows, _, _ = read("e.jsonl", tmp_path)
    good = [row for row in rows if UNREADABLE not in row]
    assert good[0] == {"id": "12345678901234567890", "y": "1.50", "g": ["a", "1"], "ok": "true", ROW: 1}
    assert [row[ROW] for row in rows if UNREADABLE in row] == list(range(3, 10))
    assert "NaN is not JSON" in str(next(row[UNREADABLE] for row in rows if UNREADABLE in row))


def test_parquet_and_gzip_and_a_glob_in_order_of_names(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [3]}), tmp_path / "e3.parquet")
    (tmp_path / "e2.jsonl.gz").write_bytes(gzip.compress(b'{"a": 2}\n'))
    (tmp_path / "e1.csv.gz").write_bytes(gzip.compress(b"a\n1\n"))
    rows, marks, names = read("e*", tmp_path)
    assert rows == [{"a": "1"}, {"a": "2"}, {"a": 3}]
    assert [mark["label"] for mark in marks] == ["e1.csv.gz", "e2.jsonl.gz", "e3.parquet"]
    assert len(set(names)) == 3
    assert read("e*", tmp_path, marks)[0] == []


def test_anything_fsspec_reads(tmp_path: Path) -> None:
    import fsspec

    with fsspec.filesystem("memory").open("/bucket/e.csv", "wb") as file:
        file.write(b"a\n1\n")
    assert read("memory://bucket/e.csv", tmp_path)[0] == [{"a": "1"}]


@pytest.mark.parametrize("packed", [False, True])
def test_of_a_file_that_grew_only_the_new_rows_are_read(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("e.csv.gz" if packed else "e.csv")
    pack = gzip.compress if packed else bytes
    path.write_bytes(pack(b"a;b\n1;1\n"))
    _, marks, first = read(path.name, tmp_path)
    path.write_bytes(pack(b"a;b\n1;1\n2;2\n"))
    rows, marks, second = read(path.name, tmp_path, marks)
    assert rows == [{"a": "2", "b": "2"}]
    assert first != second
    path.write_bytes(pack(b"a;b\n1;1\n2;2\n3;3\n"))
    grown = next(FileSource(path.name, tmp_path).deliveries(marks))
    assert grown.first_row == 3
    assert [row for batch in grown.batches() for row in batch.to_pylist()] == [{"a": "3", "b": "3"}]


@pytest.mark.parametrize("text", ["a,b\n1,9\n2,2\n", "b,a\n1,1\n2,2\n", "a,b\n1,1"])
def test_a_replaced_file_is_read_as_a_whole(tmp_path: Path, text: str) -> None:
    (tmp_path / "e.csv").write_text("a,b\n1,1\n")
    _, marks, _ = read("e.csv", tmp_path)
    (tmp_path / "e.csv").write_text(text)
    assert len(read("e.csv", tmp_path, marks)[0]) == text.count("\n") - 1 + (text[-1] != "\n")


def test_a_last_line_without_its_end_may_have_been_half_a_row(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("a,b\n1,1\n2,2")
    _, marks, _ = read("e.csv", tmp_path)
    (tmp_path / "e.csv").write_text("a,b\n1,1\n2,22\n")
    assert [row["b"] for row in read("e.csv", tmp_path, marks)[0]] == ["1", "22"]


def test_empty_files_have_no_rows(tmp_path: Path) -> None:
    (tmp_path / "e1.csv").write_text("a,b\n")
    (tmp_path / "e2.csv").write_text("")
    (tmp_path / "e3.jsonl").write_text("")
    rows, marks, _ = read("e*", tmp_path)
    assert rows == []
    (tmp_path / "e1.csv").write_text("a,b\n1,2\n")
    assert read("e*", tmp_path, marks)[0] == [{"a": "1", "b": "2"}]


def refusal(url: str, root: Path) -> str:
    with pytest.raises(SourceError) as caught:
        read(url, root)
    assert len(str(caught.value).splitlines()) <= 6
    return str(caught.value)


def test_a_truncated_gzip_is_named_with_the_row(tmp_path: Path) -> None:
    whole = gzip.compress("\n".join(["a,b", *(f"{k},{k * 7919 % 10007}" for k in range(2_000_000))]).encode(), 1)
    (tmp_path / "e.csv.gz").write_bytes(whole[: len(whole) // 2])
    text = refusal("e.csv.gz", tmp_path)
    assert "e.csv.gz is cut short or damaged" in text
    assert int(text.split("within its first ")[1].split()[0]) > 5_000_000


@pytest.mark.parametrize("cut", [10, 400])
def test_a_truncated_parquet_is_named(tmp_path: Path, cut: int) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": list(range(1000))}), sink)
    (tmp_path / "e.parquet").write_bytes(sink.getvalue()[:-cut])
    assert "e.parquet cannot be read" in refusal("e.parquet", tmp_path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    assert "no file matches logs/*.csv" in refusal("logs/*.csv", tmp_path)
    assert "e.csv does not exist" in refusal("e.csv", tmp_path)
    (tmp_path / "folder").mkdir()
    assert "name its files: folder/*.csv" in refusal("folder", tmp_path)
    assert "cannot be read" in refusal("nosuch://x/e.csv", tmp_path)


def test_a_csv_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_bytes(b"a\n" + "é\n".encode("latin-1"))
    assert "UTF" in refusal("e.csv", tmp_path)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("a,b,a\n1,2,3\n")
    assert "two columns called 'a'" in refusal("e.csv", tmp_path)


def test_a_file_named_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "e[1].csv").write_text("a\n1\n")
    assert read("e[1].csv", tmp_path)[0] == [{"a": "1"}]


def attributes(root: Path, text: str) -> pa.Table:
    (root / "items.csv").write_text(text)
    spec = {"url": "items.csv", "key": "item", "column": "id", "numeric": ["w"], "lists": {"g": "|"}}
    return read_attributes(Attributes.model_validate(spec), root)


def test_attributes_are_typed(tmp_path: Path) -> None:
    table = attributes(tmp_path, "id,w,g,more\n007,1.5,a|b,x\n8,,,x\n")
    assert table.to_pylist() == [{"id": "007", "w": 1.5, "g": ["a", "b"]}, {"id": "8", "w": None, "g": None}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,w,g\n1,1,\n1,1,\n", "items.csv has id '1' twice"),
        ("id,w,g\n1,1,\n2,heavy,\n", "w is not a number: 'heavy'\n  where: items.csv, row 2"),
        ("id,g\n1,\n", "items.csv has no column 'w'"),
        ("id,w,g\n1,1,,,\n", "items.csv has a row that cannot be read"),
        ("id,w,g\n,1,\n", "id is empty"),
    ],
)
def test_attributes_that_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SourceError) as caught:
        attributes(tmp_path, text)
    assert said in str(caught.value)
