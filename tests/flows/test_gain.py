"""`flywheel gain` and `flywheel hazards` on a product that really served, and on such that cannot be asked."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from flows import evidence, growing
from flywheel.errors import DataError
from flywheel.evidence import Curve, CurvePoint, Gain, Hazards
from flywheel.workspace import Workspace
from tests.flows import live, world
from tests.flows.live import Lived
from tests.flows.shell import Shell
from tests.flows.world import amend, copy

pytestmark = pytest.mark.slow


@pytest.fixture
def lived(lived_weeks: Lived, tmp_path: Path) -> Lived:
    return Lived(copy(lived_weeks.ws.root, tmp_path / "live"), lived_weeks.world)


def test_a_served_workspace_is_measured_and_what_was_found_is_kept(lived: Lived) -> None:
    ws, now = lived.ws, live.now(lived.world)
    found = growing.gain(ws, now)
    assert found == evidence.kept(ws, Gain)
    assert found.verdict == "not enough evidence"  # a holdback of a handful
    assert "users were ever in the holdback" in found.says[0]
    rows = sum(line.rows for line in ws.ledger())
    assert sum(p.rows for p in found.periods) == rows
    assert found.turn_days == 7
    harm = growing.hazards_of(ws, now)
    assert harm == evidence.kept(ws, Hazards)
    assert "holdback" in harm.says[0]


def test_what_is_measured_is_what_was_known_then(lived: Lived) -> None:
    ws, now = lived.ws, live.now(lived.world)
    early = growing.gain(ws, now - timedelta(days=14))
    all_of_it = growing.gain(ws, now)
    assert len(early.periods) == len(all_of_it.periods) - 2
    assert [p.rows for p in early.periods] == [p.rows for p in all_of_it.periods][:-2]


def test_a_curve_that_is_kept_is_used_and_else_models_are_fitted_without_half_of_the_users(lived: Lived) -> None:
    ws, now = lived.ws, live.now(lived.world)
    made = growing._turns(ws, now).made
    assert growing._slope(ws, made, now, retrain=False) is None
    fitted = growing._slope(ws, made, now, retrain=True)
    assert fitted is not None
    assert fitted.se > 0
    points = tuple(CurvePoint(n, n // 10, 0.6 + 0.02 * k, 0.001, 5) for k, n in enumerate((500, 1000, 2000)))
    curve = Curve(
        metric=ws.config.metric, as_of=now, exam_rows=300, points=points, envelope=(0.6, 0.62, 0.64), forecast=(),
        shape="well-behaved", region="power-law", families={}, scale=1.0, elasticity=None, elasticity_of="",
        grid=(), more_users=None, more_per_user=None, made_from="", says=(),
    )  # fmt: skip
    evidence.keep(ws, curve)
    kept = growing._slope(ws, made, now, retrain=False)
    assert kept is not None
    assert kept.per_log_rows == pytest.approx(0.0289, abs=1e-3)
    assert kept.to_champion == fitted.to_champion


def test_both_commands_say_it(lived: Lived, shell: Shell) -> None:
    now = live.now(lived.world).isoformat()
    said = shell.run(lived.ws.root, "gain", "--as-of", now, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["verdict"] == "not enough evidence"
    shown = shell.run(lived.ws.root, "hazards", "--as-of", now)
    assert "holdback" in shown.out


def test_who_serves_nobody_is_told_so(turned: Workspace) -> None:
    for measure in (growing.gain, growing.hazards_of):
        with pytest.raises(DataError, match="serves nobody"):
            measure(turned, world.closes(world.SECOND))


def test_nothing_closed_is_told_so(tmp_path: Path) -> None:
    ws = live.build(tmp_path / "live")
    with pytest.raises(DataError, match="no closed window"):
        growing.gain(amend(ws.root), live.START)
