"""A champion that does harm is taken back, by what people make of it; one that does none is left alone."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flows import deciding, inspect, monitor, moving, products, serving, watching
from flows import turn as turning
from flywheel import parquet
from flywheel.data import dataset
from flywheel.events import Candidate, Outcome, Request
from flywheel.found import PAGE
from flywheel.integrations import mlflow_registry, mlflow_tracking
from flywheel.integrations.prefect_api import Booting, ready
from flywheel.watched import HARM, MONITOR, Watched
from flywheel.workspace import Workspace
from tests.flows import live
from tests.flows.live import Lived
from tests.flows.shell import Shell
from tests.flows.world import amend, copy

SECOND = 1_000_000
PEOPLE = 500
LATER = timedelta(days=9)  # after which the window of a morning is closed


class Promoted(NamedTuple):
    """A workspace in which a person made a generation the champion, in place of another, and what they are told by."""

    ws: Workspace
    broken: int
    before: int
    since: datetime


def quiet(flow: Any, *given: Any, **named: Any) -> Any:
    with ready(Booting(fault="a test needs no history")):
        return flow(*given, **named)


def visited(ws: Workspace, start: datetime, wheel: float, holdback: float, people: int = PEOPLE) -> None:
    """A day on which so many people come, each of whom likes so many items of those that an arm shows."""
    rng = np.random.default_rng(5)
    product = products.InProcess(ws)
    ranker, inbox = product._ranker, serving.inbox(ws)
    decisions, outcomes = [], []
    for n in range(people):
        now = round(start.timestamp()) * SECOND + n * 60 * SECOND
        candidates = tuple(Candidate(f"item{i}", {"genres": ["drama"] if i % 2 else ["war"]}) for i in range(8))
        request = Request(f"visitor{n}", candidates, {"device": "tv", "hour": 20.0}, 6)
        decision = ranker.rank(request, decision_id=f"{now:x}", now=now)
        decisions.append(decision)
        outcomes += [
            Outcome(f"{decision.id}-{slot.item}", decision.id, slot.item, 1.0, now + SECOND)
            for slot in decision.shown
            if rng.random() < {"wheel": wheel, "holdback": holdback}[decision.arm]
        ]
    inbox.write(decisions, outcomes, ())
    inbox.close()
    product.close()


@pytest.fixture
def told() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An address that Apprise knows, and what arrives there."""
    arrived: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"json://127.0.0.1:{server.server_port}/secret", arrived
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def promoted(lived_weeks: Lived, tmp_path_factory: pytest.TempPathFactory) -> Promoted:
    """The newest generation that does not serve is made champion by hand, and people come."""
    root = copy(lived_weeks.ws.root, tmp_path_factory.mktemp("promoted") / "live").root
    ws = amend(root, serve={"holdback": 0.3})
    before = deciding.champion(ws)
    broken = max(mlflow_registry.state(deciding.open_store(ws)).generations - {before})
    moving.move_by_hand(ws, broken, why="a person thought so", dry_run=False)
    return Promoted(ws, broken, before, live.now(lived_weeks.world))


def test_harm_is_taken_back_and_stays_back(
    promoted: Promoted, tmp_path: Path, shell: Shell, told: tuple[str, list[dict[str, Any]]]
) -> None:
    """And a kill between the record, the move and its end changes nothing of what a rerun comes to."""
    address, arrived = told
    ws = copy(promoted.ws.root, tmp_path / "live")
    ws = amend(ws.root, monitor={"notify": [address, "json://127.0.0.1:9/nobody"]})
    visited(ws, promoted.since, wheel=0.1, holdback=0.5)
    as_of = promoted.since + LATER
    quiet(turning.collect_only, ws.root, as_of)
    for place in ("harm:after", "promote:mid"):
        killed = shell.run(ws.root, "monitor", "--as-of", as_of.isoformat(), env={"FLYWHEEL_FAILPOINT": place})
        assert killed.code == 137, killed.said
    store = deciding.open_store(ws)
    assert (moving.aliases(ws).champion, moving.aliases(ws).previous) == (promoted.before, promoted.before)
    found = shell.run(ws.root, "monitor", "--as-of", as_of.isoformat())
    assert found.code == 0, found.said
    assert "was loaded as servers do: nobody has asked since" in " ".join(found.out.split())
    assert (moving.aliases(ws).champion, moving.aliases(ws).previous) == (promoted.before, promoted.broken)
    moves = mlflow_registry.moves(store)
    assert [(m.action, m.before, m.after) for m in moves[-2:]] == [
        ("promote", promoted.before, promoted.broken),
        ("rollback", promoted.broken, promoted.before),
    ]
    assert moves[-1].who == MONITOR
    assert "against the holdback: " in moves[-1].why
    assert deciding.generation(ws, promoted.broken).tags[HARM] == moves[-1].why
    assert "did harm" in shell.run(ws.root, "explain", str(promoted.broken)).out
    assert f"in place of generation {promoted.broken}" in (ws.cache / PAGE).read_text()
    visited(ws, as_of, wheel=0.5, holdback=0.5, people=40)
    seen: Watched = quiet(monitor.monitor, ws.root, as_of)
    assert seen.taken_back is not None
    assert seen.taken_back.served, seen.taken_back.proof
    assert f"in place of generation {promoted.broken}" in shell.run(ws.root, "status").out
    turned = quiet(turning.turn, ws.root, as_of, trigger="test")
    assert turned.generation != promoted.broken
    assert deciding.champion(ws) != promoted.broken
    assert len(arrived) == 1  # by the run that ended; whoever died before told nobody
    assert f"in place of generation {promoted.broken}" in arrived[0]["message"]


def test_what_two_gave_by_turns_is_no_time_of_the_one_before(promoted: Promoted, tmp_path: Path) -> None:
    """As where one of two servers takes up a champion before the other."""
    ws = copy(promoted.ws.root, tmp_path / "live")
    lines = ws.ledger()
    for line, gave in ((lines[-2], [7]), (lines[-1], [7, 8])):
        rows = dataset.read_window(ws.data, line.window)
        place = rows.schema.get_field_index("generation")
        wheel = pc.equal(rows["arm"].cast(pa.string()), "wheel")
        by_turns = pa.array(np.repeat(np.resize(gave, len(rows)), 2)[: len(rows)], rows.schema.field(place).type)
        rows = rows.set_column(place, rows.schema.field(place), pc.if_else(wheel, by_turns, rows["generation"]))
        place = rows.schema.get_field_index("late")
        late = pa.array([number % 3 == 0 for number in range(len(rows))])
        parquet.write(dataset.events_path(ws.data, line.window), rows.set_column(place, rows.schema.field(place), late))
    found = watching.served(ws, lines, 8, 7)
    assert set(found.now.loc[found.now["own"], "window"]) == {lines[-1].window}
    assert set(found.before["window"]) == {lines[-2].window, lines[-1].window}
    assert found.before["ts"].max() < found.now["ts"].min()
    assert not any(at % 3 == 0 for rows in (found.now, found.before) for at in rows["at"]), "a late row counts"


def test_whoever_is_named_is_told_once_and_nobody_else_stops_it(
    promoted: Promoted, tmp_path: Path, told: tuple[str, list[dict[str, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    address, arrived = told
    ws = copy(promoted.ws.root, tmp_path / "live")
    ws = amend(ws.root, monitor={"notify": [address, "json://127.0.0.1:9/token"], "rollback": False})
    visited(ws, promoted.since, wheel=0.5, holdback=0.5)
    as_of = promoted.since + LATER
    quiet(turning.collect_only, ws.root, as_of)
    well: Watched = quiet(monitor.monitor, ws.root, as_of)
    assert not well.harm, well.says
    assert {s.name: s.status for s in well.signals}["against the holdback"] == "well", well.signals
    assert inspect.status(ws).champion == promoted.broken
    assert arrived == []
    visited(ws, promoted.since + timedelta(days=7), wheel=0.02, holdback=0.9)
    as_of += timedelta(days=7)
    quiet(turning.collect_only, ws.root, as_of)
    only_told: Watched = quiet(monitor.monitor, ws.root, as_of)
    assert only_told.harm
    assert "[monitor] rollback is off" in only_told.says[0]
    quiet(monitor.monitor, ws.root, as_of)
    assert deciding.champion(ws) == promoted.broken
    assert [only_told.says[0] in one["message"] for one in arrived] == [True]
    warned = [r.getMessage() for r in caplog.records if "could not be told" in r.getMessage()]
    assert len(warned) == 1
    assert "token" not in warned[0]
    ws = amend(ws.root, monitor={"rollback": True, "notify": [address]})
    store, before = deciding.open_store(ws), deciding.generation(ws, promoted.before)
    mlflow_tracking.say(store, before, HARM, "it was taken back itself once")
    refused: Watched = quiet(monitor.monitor, ws.root, as_of)
    assert refused.taken_back is None
    assert f"Generation {promoted.before}, before it, did harm as well" in refused.says[0]
    store.client.delete_tag(before.run_id, HARM)
    back: Watched = quiet(monitor.monitor, ws.root, as_of)
    assert back.taken_back is not None
    assert "was taken back" in arrived[-1]["message"]
