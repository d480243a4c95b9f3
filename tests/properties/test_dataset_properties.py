import contextlib
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.data import dataset
from flywheel.errors import IntegrityError
from flywheel.fingerprint import Seen, sha256, verify
from flywheel.schema import NAME, REJECTED, TIME

SCHEMA = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("ts", TIME, nullable=False),
        pa.field("label", pa.float64()),
        pa.field("user", NAME),
        pa.field("genres", pa.list_(pa.string())),
    ]
)
NOTHING = REJECTED.empty_table()
words = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
row = st.fixed_dictionaries(
    {
        "event_id": words,
        "ts": st.integers(0, 2**50),
        "label": st.none() | st.floats(allow_nan=False),
        "user": st.none() | words,
        "genres": st.none() | st.lists(st.none() | words, max_size=3),
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(row, max_size=20), st.data())
def test_any_table_comes_back_and_equal_tables_make_equal_bytes(values, draw):
    table = pa.Table.from_pylist(values, schema=SCHEMA)
    cut = draw.draw(st.integers(0, len(values)))
    pieces = pa.concat_tables([pa.Table.from_pylist(part, schema=SCHEMA) for part in (values[:cut], values[cut:])])
    with tempfile.TemporaryDirectory() as folder:
        a, b = Path(folder) / "a", Path(folder) / "b"
        assert dataset.write_window(a, "w", table, NOTHING) == dataset.write_window(b, "w", pieces, NOTHING)
        assert dataset.read_window(a, "w").to_pylist() == values or dataset.read_window(a, "w").equals(table)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_flipped_bit_goes_unnoticed(draw):
    table = pa.Table.from_pylist(
        [{"event_id": f"e{i}", "ts": i, "label": i / 7, "user": f"u{i % 5}", "genres": ["a", "b"]} for i in range(40)],
        schema=SCHEMA,
    )
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        written, _ = dataset.write_window(data, "w", table, NOTHING)
        path = dataset.events_path(data, "w")
        raw = bytearray(path.read_bytes())
        raw[draw.draw(st.integers(0, len(raw) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
        path.write_bytes(raw)
        assert sha256(path) != written
        with pytest.raises(IntegrityError):
            verify(path, written, Seen(data / "seen"))
        with contextlib.suppress(IntegrityError):  # reading may miss a bit in the footer; it fails in no other way
            dataset.read_window(data, "w")
