"""Promise 8 in small: what the ranker looks up at a state is, bit by bit, what the offline matrix has for such rows."""

import random
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.config import parse
from flywheel.errors import DataError
from flywheel.events import Candidate, Request
from flywheel.learn import custom, features
from flywheel.learn.features import Spec
from flywheel.learn.matrix import Cache, Recipe
from flywheel.measure import skew
from flywheel.schema import NOTHING, row_schema
from flywheel.serve.lookup import Lookup
from flywheel.serve.snapshot import Snapshot
from flywheel.sources import columns

CONFIG = parse(
    {
        "product": {"name": "p"},
        "contract": {
            **{role: role for role in ("label", "user", "item", "request", "event_id", "position", "propensity")},
            "timestamp": "ts",
            "label_time": "label_ts",
            "numeric": ["age"],
            "categorical": ["device", "mood"],
            "lists": {"genres": "|", "tags": "|"},
        },
        "windows": {"every": "1d", "attribution": "1d"},
        "features": {
            "smoothing": 2.0,
            "max_categories": 3,
            "counters": [
                {"key": ["user"], "half_lives": ["2d", "forever"]},
                {"key": ["item"], "half_lives": ["3d"]},
                {"key": ["genres"], "half_lives": ["3d"]},
                {"key": ["user", "device"], "half_lives": ["2d"], "backoff": "user"},
                {"key": ["user", "genres"], "half_lives": ["forever", "5d"], "backoff": "user"},
                {"key": ["user", "item", "genres"], "half_lives": ["2d"], "backoff": "user_x_genres"},
                {"key": ["tags"]},
                {"key": ["tags", "item"], "half_lives": ["2d"], "backoff": "tags"},
                {"key": ["item", "tags"], "half_lives": ["2d"], "backoff": "item"},
                {"key": ["device", "item"], "backoff": "item"},
            ],
        },
        "serve": {},
    }
)
GRID = CONFIG.windows.grid
RECIPE = Recipe(Spec(CONFIG), custom.from_text(""))
ABSENT = object()


def some(rng: random.Random, **choices: list) -> dict:
    """One of the choices for each name; `ABSENT` leaves it out."""
    drawn = {name: rng.choice(values) for name, values in choices.items()}
    return {name: value for name, value in drawn.items() if value is not ABSENT}


def names(rng: random.Random) -> list[str]:
    return rng.choices(["drama", "war", "ü", " war", ""], k=rng.randrange(4))


def request(rng: random.Random) -> Request:
    candidates = []
    for item in rng.sample(["i1", "i2", "i3", "i4"], rng.randint(1, 4)):
        device, age = [ABSENT, ABSENT, "tv", "", None], [ABSENT, -0.0, 4, None]
        tags, genres = [ABSENT, ABSENT, ABSENT, names(rng)], [ABSENT, None, names(rng), names(rng)]
        candidates.append(Candidate(item, some(rng, device=device, age=age, tags=tags, genres=genres)))
    context = some(
        rng,
        device=["tv", "phone", "", "car", None],
        mood=["gay", "grave", 3.0, ABSENT],
        age=[1.5, 2.0, None, "old", ABSENT],
        tags=[names(rng), names(rng), None, "war"],
        nobody_asked_for=["this"],
    )
    return Request(rng.choice(["u1", "ü/2"]), tuple(candidates), context)


def history(seed: int) -> list[list]:
    """Per window requests, each with how many windows older its state is, its labels, and whether it was imported."""
    rng = random.Random(seed)
    return [
        [
            (request(rng), rng.randrange(3), rng.choices([0.0, 1.0, None], k=4), rng.random() < 0.2)
            for _ in range(rng.randrange(6))
        ]
        for _ in range(7)
    ]


histories = st.integers(0, 2**32).map(history)
KINDS = {"age": int | float, "device": str, "mood": str, "genres": list, "tags": list}


def rows(window: int, requests: list) -> pa.Table:
    """The rows that these requests became, each request served from a state some windows older than it might be."""
    ts = GRID.start(window) + timedelta(hours=12)
    lines = []
    for asked, age, labels, imported in requests:
        for one, label in zip(asked.candidates, labels, strict=False):
            given = {**asked.context, **one.attributes}
            line = {
                name: given.get(name) if isinstance(given.get(name), kind) else None for name, kind in KINDS.items()
            }
            line |= {"ts": ts, "user": None if imported and age else asked.user, "item": one.item, "label": label}
            state = None if imported else state_of(window, age)
            lines.append(line | {"event_id": "e", "late": age == 2, "state": state})
    return collected(pa.Table.from_pylist(lines, schema=row_schema(CONFIG)))


def collected(table: pa.Table) -> pa.Table:
    """The table with names and lists as collect has them."""
    for name in ("device", "mood", "genres", "tags"):
        at, field, column = table.column_names.index(name), table.schema.field(name), table[name].combine_chunks()
        listed = pa.types.is_list(field.type)
        parsed = columns.lists(column, name, "|") if listed else columns.names(column, name)
        values = parsed.values if listed else parsed.values.dictionary_encode()
        table = table.set_column(at, field, values)
    return table


def state_of(window: int, age: int) -> int:
    at = window - GRID.lag - age
    return at if at >= 0 else NOTHING


def cache(folder: Path, tables: dict[int, pa.Table]) -> Cache:
    return Cache(folder, RECIPE, {w: str(w) for w in tables}, lambda window, wanted: tables[window].select(wanted))


def snapshots(folder: Path, tables: dict[int, pa.Table]) -> dict[int, Snapshot]:
    """What a ranker would have been given after each window, and before there was one."""
    made = {NOTHING: (NOTHING, {}, {})}
    for window in tables:
        so_far = cache(folder, {w: tables[w] for w in tables if w <= window})
        so_far.build([])
        known = so_far.known()
        made[window] = known.window, known.counters, known.vocabularies
    rest = (RECIPE.names, RECIPE.types, {}, None, "", np.empty((0, 0), np.float32), np.empty(0))
    return {w: Snapshot(0, RECIPE.fingerprint, CONFIG, *known, *rest) for w, known in made.items()}


@given(windows=histories)
@settings(max_examples=6, deadline=None)
def test_promise_8_served_is_trained_in_small(windows):
    tables = {w: rows(w, requests) for w, requests in enumerate(windows)}
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        offline = cache(Path(one), tables)
        offline.build(list(tables))
        lookups = {state: Lookup(snapshot) for state, snapshot in snapshots(Path(other), tables).items()}
        for window, requests in enumerate(windows):
            matrix, at = offline.load(window), 0
            for asked, age, _, imported in requests:
                theirs = matrix[at : at + len(asked.candidates)]
                at += len(asked.candidates)
                if imported:
                    continue
                made = lookups[state_of(window, age)].matrix(asked, asked.candidates, "d", 0)
                np.testing.assert_array_equal(made, theirs)
                assert not len(skew.differing(features.digest(made), theirs))


@given(windows=histories, forged=st.integers(-1, 3), imported=st.booleans())
@settings(max_examples=3, deadline=None)
def test_promise_2_a_state_that_could_not_be_closed_is_not_believed(windows, forged, imported):
    """A row that claims a newer state than any that was closed when it happened has the features of the newest."""
    tables = {w: rows(w, requests) for w, requests in enumerate(windows)}
    claimed = {
        w: table.set_column(
            table.column_names.index("state"),
            "state",
            pa.array([None if imported else w + forged] * len(table), pa.int32()),
        )
        for w, table in tables.items()
    }
    honest = {
        w: table.set_column(
            table.column_names.index("state"), "state", pa.array([w - GRID.lag] * len(table), pa.int32())
        )
        for w, table in tables.items()
    }
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        made, expected = cache(Path(one), claimed), cache(Path(other), honest)
        for window in tables:
            assert made.load(window).tobytes() == expected.load(window).tobytes()


def test_a_file_from_before_anybody_was_served_has_no_states():
    old = rows(0, []).select([name for name in row_schema(CONFIG).names if name != "state"])

    def read(window, columns):
        if missing := set(columns) - set(old.column_names):
            raise DataError(f"no column {missing}")
        return old.select(columns)

    with TemporaryDirectory() as folder:
        assert Cache(Path(folder), RECIPE, {0: "0"}, read).load(0).shape == (0, len(RECIPE.names))
