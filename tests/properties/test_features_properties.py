"""Promise 2, and that one window at a time gives the same bits as all at once, against a plain oracle."""

import math
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.config import Config, parse
from flywheel.learn.features import Spec
from flywheel.learn.parted import fold, look, tally
from flywheel.learn.state import advance
from flywheel.segments import Segments

NAME = pa.dictionary(pa.int32(), pa.string())
ROW = pa.schema(
    [
        ("user", NAME),
        ("device", NAME),
        ("genres", pa.list_(pa.string())),
        ("age", pa.float64()),
        ("label", pa.float64()),
        ("late", pa.bool_()),
    ]
)
row = st.fixed_dictionaries(
    {
        "user": st.sampled_from(["u1", "u2", "ü/3", None]),
        "device": st.sampled_from(["tv", "phone", None]),
        "genres": st.one_of(st.none(), st.lists(st.sampled_from(["drama", "war", "noir"]), max_size=3, unique=True)),
        "age": st.sampled_from([1.5, 2.0, None]),
        "label": st.sampled_from([0.0, 1.0, None]),
        "late": st.booleans(),
    }
)
history = st.lists(st.lists(row, max_size=6), min_size=1, max_size=7)


def config(attribution: str = "1d") -> Config:
    return parse(
        {
            "product": {"name": "p"},
            "source": {"url": "x.csv"},
            "contract": {
                "timestamp": "ts",
                "label": "y",
                "user": "u",
                "numeric": ["age"],
                "categorical": ["device"],
                "lists": {"genres": "|"},
            },
            "windows": {"every": "1d", "attribution": attribution},
            "features": {
                "smoothing": 2.0,
                "counters": [
                    {"key": ["user"], "half_lives": ["2d", "forever"]},
                    {"key": ["genres"], "half_lives": ["3d"]},
                    {"key": ["user", "genres"], "half_lives": ["2d"], "backoff": "user"},
                    {
                        "key": ["user", "device", "genres"],
                        "half_lives": ["forever"],
                        "backoff": "user_x_genres",
                    },
                ],
            },
        }
    )


def tables(windows: list[list[dict]], first: int = 100) -> dict[int, pa.Table]:
    return {first + i: pa.Table.from_pylist(rows, schema=ROW) for i, rows in enumerate(windows)}


def build(spec: Spec, folder: Path, windows: dict[int, pa.Table], *, at_once: bool) -> dict[int, np.ndarray]:
    lag = spec.config.windows.grid.lag
    out = {}
    blocks = [list(windows)] if at_once else [[w] for w in windows]
    for block in blocks:
        store = Segments(folder, spec.tables, keep=lag, chain=str)  # opened anew each time, as each turn does
        out |= dict(advance(store, spec, {w: windows[w] for w in block}, {w: w - lag for w in block}))
    return out


def oracle(spec: Spec, windows: dict[int, pa.Table]) -> dict[int, np.ndarray]:  # noqa: C901  (plain on purpose)
    """The same by the definition: for every row, go through every labelled row of the windows known then."""
    lag, smoothing = spec.config.windows.grid.lag, spec.config.features.smoothing
    rows = {w: t.to_pylist() for w, t in windows.items()}

    def keys(counter, r):
        out = [()]
        for column in counter.key:
            values = (r[column] or []) if column == "genres" else [] if r[column] is None else [r[column]]
            out = [(*k, v) for k in out for v in values]
        return out

    def stats(counter, key, half_life, at):
        rate = 0.0 if half_life is None else spec.config.windows.every / half_life
        n = s = 0.0
        seen = []
        for w in rows:
            for r in rows[w] if w <= at else []:
                if r["label"] is not None and key in keys(counter, r):
                    n, s = n + 2 ** (-(at - w) * rate), s + r["label"] * 2 ** (-(at - w) * rate)
                    seen.append(w)
        return n, s, seen

    def mean(i, key, column, at, r):
        counter = spec.counters[i]
        half_life = counter.half_lives[column]
        n, s, _ = stats(counter, key, half_life, at)
        parent = spec.parents[i]
        if parent < 0:
            prior = 0.5
        else:
            part = dict(zip(counter.key, key, strict=True))
            above = spec.counters[parent]
            longest = max(
                range(len(above.half_lives)),
                key=lambda j: above.half_lives[j].days if above.half_lives[j] else math.inf,
            )
            same = above.half_lives.index(half_life) if half_life in above.half_lives else longest
            prior = mean(parent, tuple(part[c] for c in above.key), same, at, r)
        return (s + smoothing * prior) / (n + smoothing)

    result = {}
    numbers: dict[str, int] = {}
    brought: dict[str, int] = {}
    for w in rows:
        for r in rows[w]:
            if r["device"] is not None:
                numbers.setdefault(r["device"], len(numbers))
                brought.setdefault(r["device"], w)
        lines = []
        for r in rows[w]:
            line = []
            at = w - lag
            for i, counter in enumerate(spec.counters):
                if i == 0:
                    continue
                found = defaultdict(list)
                for key in keys(counter, r):
                    for j, h in enumerate(counter.half_lives):
                        n, _, seen = stats(counter, key, h, at)
                        found[2 * j].append(n)
                        found[2 * j + 1].append(mean(i, key, j, at, r))
                    if seen:
                        found["first"].append(at - min(seen))
                        found["last"].append(at - max(seen))
                order = [*range(2 * len(counter.half_lives)), "first", "last"]
                line += [np.mean(found[k]) if found[k] else np.nan for k in order]
            line.append(np.nan if r["age"] is None else r["age"])
            line.append(numbers[r["device"]] if brought.get(r["device"], at + 1) <= at else np.nan)
            lines.append(line)
        result[w] = np.array(lines, dtype=np.float32).reshape(len(lines), len(spec.names))
    return result


@pytest.mark.parametrize("attribution", ["0d", "1d", "2d"])
@given(windows=history)
@settings(max_examples=60, deadline=None)
def test_features_are_what_the_definition_says(windows, attribution):
    spec = Spec(config(attribution))
    with TemporaryDirectory() as folder:
        made = build(spec, Path(folder), tables(windows), at_once=True)
    expected = oracle(spec, tables(windows))
    for w, matrix in expected.items():
        np.testing.assert_allclose(made[w], matrix, rtol=2e-6)


@given(windows=history)
@settings(max_examples=60, deadline=None)
def test_one_window_at_a_time_gives_the_same_bits_as_all_at_once(windows):
    spec = Spec(config())
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        slow = build(spec, Path(one), tables(windows), at_once=False)
        fast = build(spec, Path(two), tables(windows), at_once=True)
    for w in fast:
        assert slow[w].tobytes() == fast[w].tobytes()


@given(windows=history, extra=st.lists(row, min_size=1, max_size=4), where=st.integers(0, 6))
@settings(max_examples=80, deadline=None)
def test_promise_2_nothing_from_the_future(windows, extra, where):
    """Whatever is added to a window changes no feature of a row decided before that window's state could serve."""
    spec = Spec(config())
    where = min(where, len(windows) - 1)
    changed = [rows + extra if i == where else rows for i, rows in enumerate(windows)]
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        before = build(spec, Path(one), tables(windows), at_once=True)
        after = build(spec, Path(two), tables(changed), at_once=True)
    lag = spec.config.windows.grid.lag
    numbers_move = spec.names.index(
        "device"
    )  # a code names a category; which number it gets says nothing of the future
    columns = [i for i in range(len(spec.names)) if i != numbers_move]
    for w in before:
        if w < 100 + where + lag:
            rows = len(before[w])
            assert before[w][:, columns].tobytes() == after[w][:rows, columns].tobytes()


@given(windows=history, cut=st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_in_three_steps_come_the_same_bits_as_in_one(windows, cut):
    spec, lag = Spec(config()), config().windows.grid.lag
    whole = tables(windows)
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        at_once = build(spec, Path(one), whole, at_once=True)
        parted: dict[int, np.ndarray] = {}
        tallies = {w: tally(spec, table) for w, table in whole.items()}
        for run in filter(None, (list(whole)[:cut], list(whole)[cut:])):
            store = Segments(Path(two), spec.tables, keep=lag, chain=str)
            asked = {w: [w - lag] for w in run}
            held = {w: {at: made} for w, at, made in fold(store, spec, {w: tallies[w] for w in run}, asked)}
            parted |= {w: look(spec, w, whole[w], w - lag, held[w]) for w in run}
    for w in whole:
        assert parted[w].tobytes() == at_once[w].tobytes()
