"""The loop closed: what is answered becomes rows, rows become generations, and these answer."""

import shutil
import sqlite3
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from flows import inspect, served
from flows.demo import WEEK, World
from flows.products import InProcess, OverHttp
from flywheel.data import dataset
from flywheel.errors import IntegrityError
from flywheel.events import Decision
from flywheel.learn import features
from flywheel.workspace import Workspace
from tests.flows import live
from tests.flows.live import Lived
from tests.flows.shell import Shell
from tests.flows.world import copy, ends


@pytest.fixture
def lived(lived_weeks: Lived, tmp_path: Path) -> Lived:
    return Lived(copy(lived_weeks.ws.root, tmp_path / "live"), lived_weeks.world)


def served_rows(ws: Workspace, *columns: str) -> pa.Table:
    return pa.concat_tables([dataset.read_window(ws.data, line.window, columns) for line in ws.ledger()])


@pytest.mark.slow
def test_promise_8_served_is_trained(lived: Lived) -> None:
    ws = lived.ws
    shutil.rmtree(ws.cache)  # whatever is looked up now is made from the dataset alone
    grid, compared, lags = ws.config.windows.grid, 0, set()
    windows = [grid.parse(line.window) for line in ws.ledger()]
    for recipe in served.serving_recipes(ws):
        cache = ws.matrices(recipe)
        cache.build(windows)
        for window in windows:
            table = ws.reader(window, ["recipe", "features", "state", "generation"])
            theirs = pa.array([name == recipe.fingerprint for name in table["recipe"].to_pylist()])
            table = table.filter(theirs)
            recomputed = features.digest(cache.load(window)[np.asarray(theirs)])
            assert recomputed.tolist() == table["features"].to_pylist()
            compared += len(recomputed)
            lags |= {(window - row["state"], row["generation"] > 0) for row in table.to_pylist()}
    assert compared == sum(line.rows for line in ws.ledger()) > 2000
    assert {(1, True), (2, True)} <= lags  # a state that closed within the window, and the one before


@pytest.mark.slow
def test_rows_that_were_served_otherwise_fail_the_turn(lived: Lived) -> None:
    product = InProcess(lived.ws)
    product._ranker._lookup._tables[1].columns[:-2] += 1  # a ranker that remembers users as they are not
    world = lived.world.fork(product)
    world.live(WEEK)
    product.close()
    before = inspect.generations(lived.ws)
    with pytest.raises(
        IntegrityError, match=r"rows of window 2026-\d\d-\d\d were served with other features"
    ) as caught:
        live.turn(lived.ws, world)
    assert "event d" in str(caught.value.where)
    assert inspect.generations(lived.ws) == before


@pytest.mark.slow
def test_every_decision_and_outcome_is_accounted_for(lived: Lived) -> None:
    told, ledger = inspect.status(lived.ws), lived.ws.ledger()
    settled = dataset.outcomes(ledger)
    assert settled.joined > 300
    assert settled.duplicate > 0
    assert told.outcomes is not None
    assert told.outcomes.arrived == settled.collected + told.outcomes.parked
    assert told.totals.collected == told.totals.rows == sum(line.rows for line in ledger)
    watched = served_rows(lived.ws, "label")["label"].to_numpy().sum()
    assert watched == settled.joined


@pytest.mark.slow
def test_arms_are_sticky_and_the_holdback_meets_no_model(lived: Lived) -> None:
    seen = served_rows(lived.ws, "user", "arm", "generation").to_pandas()
    assert (seen.groupby("user", observed=True)["arm"].nunique() == 1).all()
    assert set(seen["arm"]) == {"wheel", "holdback"}
    assert set(seen.loc[seen["arm"] == "holdback", "generation"]) == {0}
    assert set(seen.loc[seen["arm"] == "wheel", "generation"]) > {0}


@pytest.mark.slow
def test_over_sockets_the_same_is_answered_as_in_process(tmp_path: Path) -> None:
    seen = []
    for product in (InProcess, OverHttp):
        ws = live.build(tmp_path / product.__name__)
        world = World(live.people(), opened := product(ws))
        world.live(2)
        opened.close()
        inbox = sqlite3.connect(ws.inbox / "inbox.db")
        bodies = inbox.execute("SELECT body FROM decisions ORDER BY id").fetchall()
        told = [
            [msgspec.json.decode(body, type=Decision) for (body,) in bodies],
            inbox.execute("SELECT id, decision_id, item, value, ts FROM outcomes ORDER BY id").fetchall(),
        ]
        inbox.close()
        seen.append(told)
    assert seen[0] == seen[1]
    assert min(map(len, seen[0])) > 20


@pytest.fixture(scope="module")
def undisturbed(lived_weeks: Lived, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, World]:
    """A week more, that no turn has taken yet."""
    ws = copy(lived_weeks.ws.root, tmp_path_factory.mktemp("undisturbed") / "live")
    product = InProcess(ws)
    world = lived_weeks.world.fork(product)
    world.live(WEEK)
    product.close()
    return ws, world


@pytest.mark.slow
def test_promise_7_of_turns_that_take_from_the_inbox(
    undisturbed: tuple[Workspace, World], tmp_path: Path, shell: Shell
) -> None:
    waiting, world = undisturbed
    as_of = live.now(world).isoformat()
    places = ("take:after", "close:mid", "close:after", "record:mid")
    killed, calm = copy(waiting.root, tmp_path / "killed"), copy(waiting.root, tmp_path / "calm")
    assert live.turn(calm, world).closed == 1
    for place in places:
        done = shell.run(killed.root, "turn", "--as-of", as_of, env={"FLYWHEEL_FAILPOINT": place})
        assert done.code == 137, (place, done.said)
    live.turn(killed, world)
    assert ends(killed) == ends(calm)
    assert dataset.outcomes(killed.ledger()) == dataset.outcomes(calm.ledger())
