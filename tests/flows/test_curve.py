"""`flywheel curve`: measured on one exam, kept, logged beside the generations, and refused where it cannot be."""

import pytest

from flows import curving, deciding, evidence, retraining
from flows.retraining import Sample
from flywheel.errors import DataError
from flywheel.evidence import Curve
from flywheel.integrations import mlflow_curve
from flywheel.workspace import Workspace
from tests.flows import world


@pytest.mark.slow
def test_the_curve_is_measured_kept_logged_and_told(turned: Workspace) -> None:
    as_of = world.closes(world.FIRST)
    drawn = curving.curve_at(turned, as_of)
    assert len(drawn.points) >= curving.WANTED
    assert [p.rows for p in drawn.points] == sorted(p.rows for p in drawn.points)
    assert drawn.points[-1].quality > drawn.points[0].quality
    assert any("Counters remember everybody" in sentence for sentence in drawn.says)
    assert evidence.kept(turned, Curve) == drawn
    store = deciding.open_store(turned)
    run_id = mlflow_curve.log(store, drawn)
    line = store.client.get_metric_history(run_id, drawn.metric)
    assert sorted(point.step for point in line) == [p.rows for p in drawn.points]
    tagged = {run.data.tags["kind"]: run.data.tags["mlflow.note.content"] for run in runs(store)}
    assert "exams of the generations differ" in tagged[mlflow_curve.GENERATIONS]
    assert "same exam" in tagged[mlflow_curve.INSTANT]
    assert curving.curve_at(turned, as_of) == drawn  # not measured again


def runs(store):
    wanted = "tags.kind = 'learning-curve'", "tags.kind = 'curve'"
    return [run for kind in wanted for run in store.client.search_runs([store.experiment], kind)]


def test_a_curve_before_there_is_an_exam_is_refused(fresh: Workspace) -> None:
    with pytest.raises(DataError, match="no closed window") as caught:
        curving.curve_at(fresh, world.closes(1))
    assert "flywheel status" in str(caught.value)


def test_too_few_rows_are_refused_before_anything_is_fitted(turned: Workspace) -> None:
    few = world.amend(turned.root, train={"min_rows": 2_000})
    with pytest.raises(DataError, match="too few rows for a learning curve"):
        curving.curve_at(few, world.closes(world.FIRST))


def test_samples_are_nested_and_sized_as_asked(turned: Workspace) -> None:
    windows = tuple(line.window for line in turned.ledger())
    pool = retraining.pool(turned, windows)
    count = 0
    for draw in (0, 1):
        small, large = (pool.within(Sample(windows, users=share, draw=draw)) for share in (0.25, 0.5))
        assert all((big | ~little).all() for little, big in zip(small, large, strict=True))
        assert pool.users(small) < pool.users(large) < pool.users(pool.within(Sample(windows)))
        count += pool.users(large)
        for name, at in zip(windows, large, strict=True):
            assert (retraining.chosen(turned, Sample(windows, users=0.5, draw=draw), name) == at).all()
    assert count == pytest.approx(pool.users(pool.within(Sample(windows))), rel=0.3)
