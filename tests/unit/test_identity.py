"""Which ids a dataset holds, how many users it had up to each window, and that only new windows are read for it."""

import numpy as np
import pyarrow as pa
import pytest

from flywheel.data import identity
from flywheel.data.identity import Ids, Users

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


def column(names):
    return pa.chunked_array([pa.array(names, pa.string())])


def files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.npy")}


def test_ids_may_be_given_as_hashes(tmp_path):
    windows = {0: ["a", "b"], 1: ["c", "a"]}
    read, given = (Ids(tmp_path / name, {}, lambda window: column(windows[window])) for name in ("read", "given"))
    for window, names in windows.items():
        read.add(window, str(window))
        given.add(window, str(window), identity.hashes(column(names)))
    assert files(tmp_path / "given") == files(tmp_path / "read")
    assert given.known(column(["c", "d", "b"])).to_pylist() == [True, False, True]


def test_an_index_is_healed_before_others_read_it(tmp_path):
    chain = {0: "a", 1: "b"}
    Ids(tmp_path, chain, lambda window: column([f"of {window}"]))
    whole = files(tmp_path)
    for path in tmp_path.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:-4] + b"\1\2\3\4")
    assert files(tmp_path) != whole
    Ids(tmp_path, chain, lambda window: column([f"of {window}"])).heal()
    assert files(tmp_path) == whole


@pytest.mark.parametrize("seed", range(20))
def test_tells_each_window_what_it_brings_and_an_earlier_one_holds(seed):
    rng = np.random.default_rng(seed)
    brought = [[f"i{k}" for k in rng.choice(40, rng.integers(0, 15), replace=False)] for _ in range(6)]
    held = [[name for name in names if rng.random() < 0.7] for names in brought]
    told = identity.repeated([identity.hashes(column(names)) for names in brought], lambda window: column(held[window]))
    earlier = [{name for names in held[:window] for name in names} for window in range(6)]
    assert told == [sorted(earlier[window].intersection(names)) for window, names in enumerate(brought)]
    assert any(told)
