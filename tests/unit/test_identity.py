"""How many users a dataset had up to each window, and that only new windows are read for it."""

import pyarrow as pa
import pytest

from flywheel.data.identity import Users

WINDOWS = {0: ["ann", "bob", None, "ann"], 1: [], 2: ["bob", "cleo"], 3: ["dan", "ann"]}
COUNTS = {0: 2, 1: 2, 2: 3, 3: 4}


class Dataset:
    """Users by window, and which windows were read."""

    def __init__(self):
        self.windows = dict(WINDOWS)
        self.read = []

    def users(self, folder, upto=3, version="a"):
        def read(window):
            self.read.append(window)
            return pa.chunked_array([pa.array(self.windows[window], pa.string()).dictionary_encode()])

        return Users(folder, {w: f"{version}{w}" for w in range(upto + 1)}, read)


@pytest.fixture
def dataset():
    return Dataset()


@pytest.mark.parametrize(("window", "count"), COUNTS.items())
def test_counts_each_user_once(tmp_path, dataset, window, count):
    assert dataset.users(tmp_path).until(window) == count


def test_reads_a_window_once(tmp_path, dataset):
    assert [dataset.users(tmp_path, upto).until(upto) for upto in COUNTS] == list(COUNTS.values())
    assert dataset.read == [0, 1, 2, 3]


def test_counts_anew_what_was_closed_anew(tmp_path, dataset):
    dataset.users(tmp_path).until(3)
    dataset.windows[2] = ["eve", "fay", "gus"]
    assert dataset.users(tmp_path, version="b").until(3) == 6


def test_damage_costs_time_and_nothing_else(tmp_path, dataset):
    dataset.users(tmp_path, 2).until(2)
    for path in tmp_path.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:-4] + b"\1\2\3\4")
    assert dataset.users(tmp_path).until(3) == 4


def test_knows_since_when_each_user_is_there(tmp_path, dataset):
    index = dataset.users(tmp_path)
    assert index.first(["cleo", "ann", "nobody", "dan", "bob"]).tolist() == [2, 0, 3, 3, 0]
    assert index.first([]).tolist() == []
