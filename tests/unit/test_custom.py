import numpy as np
import pandas as pd
import pytest

from flywheel.errors import ConfigError, DataError
from flywheel.learn import custom

ROWS = pd.DataFrame({"age": [1.0, 2.0, np.nan, 4.0, 8.0]})


def made(text, rows=ROWS):
    return custom.from_text(text).matrix(rows)


def test_each_public_function_is_a_column_in_the_order_of_the_file(tmp_path):
    text = """
from math import sqrt

def b(rows): return rows['age'] * 2

def _own(x): return x

def a(rows): return _own(rows['age'])
"""
    (tmp_path / custom.FILE).write_text(text)
    own = custom.load(tmp_path)
    assert own.names == ("b", "a")
    np.testing.assert_array_equal(own.matrix(ROWS), np.array([[2, 4, np.nan, 8, 16], ROWS["age"]], np.float32).T)
    assert own.fingerprint != custom.from_text(text + "#").fingerprint


def test_without_the_file_there_are_no_columns(tmp_path):
    assert custom.load(tmp_path).names == ()
    assert custom.load(tmp_path).matrix(ROWS).shape == (5, 0)


def test_a_window_without_rows_has_no_values():
    assert made("def a(rows): return rows['age'] - rows['age'].shift(0)", ROWS.iloc[:0]).shape == (0, 1)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return rows['age'].rank()", "the feature a is not row-wise"),
        ("return rows['age'].fillna(rows['age'].mean())", "the feature a is not row-wise"),
        ("return rows['age'].shift(1)", "the feature a is not row-wise"),
        ("return range(len(rows))", "the feature a is not row-wise"),
        ("return 1.0", r"the feature a has shape \(\) for 5 rows"),
        ("return rows['age'].dropna()", r"the feature a has shape \(4,\) for 5 rows"),
        ("return rows['age'] / 0", "the feature a is infinite in 4 rows"),
        ("return rows['agee']", "(?s)the feature a failed.*KeyError"),
        ("return ['x'] * len(rows)", "(?s)the feature a failed.*ValueError"),
    ],
)
def test_what_is_no_number_per_row_of_its_own_is_refused(body, says):
    with pytest.raises(DataError, match=says):
        made(f"def a(rows): {body}")


@pytest.mark.parametrize("text", ["def a(:", "import nothing_of_this_name", "raise SystemError('no')"])
def test_a_file_that_cannot_be_run_is_named(text, tmp_path):
    (tmp_path / custom.FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"features\.py cannot be run"):
        custom.load(tmp_path)
