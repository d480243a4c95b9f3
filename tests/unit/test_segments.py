import json
import os
import shutil
import time

import numpy as np
import pytest

from flywheel.errors import IntegrityError
from flywheel.segments import MANIFEST, Segments, entry_type, hash_names

ENTRY = entry_type([("last", "<i4"), ("sum", "<f8")])


def store(folder, *, keep=2, chain=str):
    return Segments(folder, {"t": ENTRY}, keep=keep, chain=chain)


def entries(values):
    made = np.zeros(len(values), dtype=ENTRY)
    made["key"], made["sum"] = list(values), list(values.values())
    return made


def put(folder, window, values, **options):
    opened = store(folder, **options)
    opened.put([(window, {"t": entries(values)})])
    return opened


def sums(opened, keys, at):
    found, got = opened.get("t", np.array(keys, dtype=np.uint64), at)
    assert (got["key"][found] == np.array(keys, dtype=np.uint64)[found]).all()
    return [float(s) if f else None for f, s in zip(found, got["sum"], strict=True)]


def biggest(folder):
    return max(folder.glob("t.*.npy"), key=lambda path: path.stat().st_size)


def flip(path, offset=-1):
    """Change one byte in place, long enough after it was written to show in its stat."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(bytes(content))


def test_names_hash_the_same_in_every_process_and_apart_from_each_other():
    names = ["ü", "", "a/b", "a", "b"]
    assert hash_names(["a"])[0] == np.uint64(0xE6C632B61E964E1F)
    assert len(set(hash_names(names).tolist())) == len(names)


def test_the_newest_word_on_a_key_counts(tmp_path):
    put(tmp_path, 1, {5: 1.0, 9: 1.0})
    put(tmp_path, 2, {9: 2.0})
    assert sums(store(tmp_path), [9, 5, 7], 2) == [2.0, 1.0, None]


def test_every_version_within_keep_stays_readable_through_compactions(tmp_path):
    truth, now = {}, {}
    rng = np.random.default_rng(0)
    for window in range(40):
        now = now | {int(k): float(window) for k in rng.integers(0, 50, 8)}
        truth[window] = now
        put(tmp_path, window, {k: v for k, v in now.items() if v == window}, keep=3)
        opened = store(tmp_path, keep=3)
        for at in range(max(0, window - 3), window + 1):
            assert opened.oldest_readable() <= at
            assert sums(opened, range(50), at) == [truth[at].get(k) for k in range(50)]
    files = list(tmp_path.glob("*.npy"))
    assert len(files) < 12, "older segments are merged"
    assert max(np.load(path).nbytes for path in files) <= 50 * ENTRY.itemsize, "and hold each key once"


def test_all_of_a_table_is_what_was_last_said_of_each_key(tmp_path):
    truth = {}
    rng = np.random.default_rng(0)
    for window in range(20):
        said = {int(k): float(window) for k in rng.integers(0, 50, 8)}
        truth |= said
        put(tmp_path, window, said, keep=5)
        keys, values = store(tmp_path).merged("t")
        assert keys.tolist() == sorted(truth)
        assert dict(zip(keys.tolist(), values["sum"].tolist(), strict=True)) == truth


def test_several_windows_put_at_once_are_each_readable(tmp_path):
    opened = store(tmp_path)
    opened.put([(1, {"t": entries({3: 1.0})}), (2, {"t": entries({3: 2.0, 1: 2.0})})], {"note": [1]})
    assert [sums(store(tmp_path), [1, 3], at) for at in (1, 2)] == [[None, 1.0], [2.0, 2.0]]
    assert store(tmp_path).notes == {"note": [1]}


def test_a_window_without_keys_is_a_window(tmp_path):
    put(tmp_path, 1, {})
    put(tmp_path, 2, {})
    assert store(tmp_path).newest == 2
    assert sums(store(tmp_path), [4], 2) == [None]


def test_what_was_made_from_other_data_is_forgotten(tmp_path):
    put(tmp_path, 1, {3: 1.0})
    assert store(tmp_path, chain=lambda window: f"other {window}").newest is None


@pytest.mark.parametrize("offset", [-1, 128, 140])
def test_a_changed_byte_is_noticed(tmp_path, offset):
    put(tmp_path, 1, dict.fromkeys(range(20), 1.0))
    flip(biggest(tmp_path), offset)
    with pytest.raises(IntegrityError, match="is not what was written"):
        sums(store(tmp_path), [3], 1)


def test_a_changed_byte_is_noticed_in_a_file_that_was_seen_to_be_right(tmp_path):
    put(tmp_path, 1, dict.fromkeys(range(20), 1.0), keep=0)
    time.sleep(0.06)
    settle = store(tmp_path, keep=0)
    sums(settle, [3], 1)
    settle.put([(2, {"t": entries({99: 1.0})})])
    stored = json.loads((tmp_path / MANIFEST).read_text())["segments"]
    assert len(stored[0]["stat"]) == 4, "hashed once, it is believed until its stat changes"
    path = tmp_path / stored[0]["file"]
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # a time of modification can be set back
    with pytest.raises(IntegrityError, match="is not what was written"):
        sums(store(tmp_path, keep=0), [3], 2)


def test_a_truncated_or_missing_segment_cannot_be_read(tmp_path):
    put(tmp_path, 1, dict.fromkeys(range(20), 1.0))
    path = biggest(tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(IntegrityError, match="cannot be read"):
        sums(store(tmp_path), [3], 1)
    path.unlink()
    with pytest.raises(IntegrityError, match="cannot be read"):
        sums(store(tmp_path), [3], 1)


def test_killed_between_segment_and_manifest_leaves_the_old_tables_and_can_be_run_again(tmp_path):
    put(tmp_path, 1, {3: 1.0})
    old = (tmp_path / MANIFEST).read_bytes()
    shutil.copytree(tmp_path, tmp_path / "whole")
    put(tmp_path / "whole", 2, {3: 2.0})
    put(tmp_path, 2, {3: 2.0})
    (tmp_path / MANIFEST).write_bytes(old)  # the kill: segment 2 is written, the manifest is not
    (tmp_path / "t.3.x.npy.partial").write_bytes(b"half")
    assert sums(store(tmp_path), [3], 1) == [1.0]
    assert store(tmp_path).newest == 1
    put(tmp_path, 2, {3: 2.0})
    assert sums(store(tmp_path), [3], 2) == [2.0]
    names = {path.name for path in (tmp_path / "whole").glob("*")}
    assert {path.name for path in tmp_path.glob("*") if path.is_file()} == names, "nothing is left over"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"newest": 1}', '{"newest": 1, "address": "1", "segments": [{}], "notes": {}}']
)
def test_a_manifest_that_cannot_be_read_is_an_empty_store(tmp_path, text):
    put(tmp_path, 1, {3: 1.0})
    (tmp_path / MANIFEST).write_text(text)
    assert store(tmp_path).newest is None
