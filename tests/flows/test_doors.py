"""The third door, a clone of a workspace, and what a dry run leaves alone."""

import json
import shutil

import pytest

from flows import inspect
from flywheel.errors import BlockedError, IntegrityError, SourceError
from flywheel.integrations import dvc_data
from flywheel.workspace import Workspace
from tests.flows import world


def expect(ws: Workspace, most: float) -> None:
    """Have features.json say how many rows a user may have had."""
    kwargs = {"column": "user__count_forever", "max_value": most}
    suite = {"name": "features", "expectations": [{"type": "expect_column_values_to_be_between", "kwargs": kwargs}]}
    (ws.expectations / "features.json").write_text(json.dumps(suite))


def test_features_that_are_not_as_expected_are_not_fitted_on(turned: Workspace) -> None:
    expect(turned, -1)
    with pytest.raises(BlockedError) as caught:
        world.turn(turned, world.SECOND)
    world.told_well(f"flywheel: {caught.value}\n")
    assert caught.value.where == "expectations/features.json"
    assert "user__count_forever" in caught.value.why
    assert [g.generation for g in inspect.generations(turned)] == [1]
    expect(turned, 1e9)
    assert world.turn(turned, world.SECOND).generation == 2


def test_a_clone_goes_on_from_the_closed_windows_without_the_deliveries(turned: Workspace) -> None:
    shutil.rmtree(turned.inbox)
    for path in (turned.root / "log").iterdir():
        path.unlink()
    assert world.turn(turned, world.FIRST).reason == "nothing new since generation 1"


def test_a_source_that_has_gone_is_told_where_deliveries_had_been_taken(turned: Workspace) -> None:
    for path in (turned.root / "log").iterdir():
        path.unlink()
    assert "no file matches" in world.refused(turned, SourceError).what


def test_a_dataset_that_was_not_pulled_is_no_empty_one(turned: Workspace) -> None:
    pointer = (turned.root / "data.dvc").read_text()
    shutil.rmtree(turned.data)
    with pytest.raises(IntegrityError) as caught:
        world.turn(turned, world.SECOND)
    assert caught.value.next == "dvc pull; without a remote, dvc checkout data.dvc"
    assert (turned.root / "data.dvc").read_text() == pointer
    assert not turned.data.exists()


def test_closed_windows_go_to_the_remote_and_a_remote_that_is_down_stops_nothing(
    turned: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    config = turned.root / ".dvc" / "config"
    bare = config.read_text()
    (turned.root / "elsewhere").write_text("a file, and no folder for a remote to be in")
    for folder, generation in (("elsewhere/remote", 2), ("remote", 2)):
        config.write_text(
            bare.replace("[core]\n", "[core]\n    remote = r\n")
            + f"['remote \"r\"']\n    url = {turned.root / folder}\n"
        )
        world.turn(turned, world.SECOND + (folder == "remote"))
        assert inspect.status(turned).generations >= generation
    assert "the data is not on its remote yet" in caplog.text
    pushed = {path.parent.name + path.name for path in (turned.root / "remote").rglob("*") if path.is_file()}
    pointer = dvc_data.pointer(turned.root)
    assert pointer is not None
    assert pointer.md5 in pushed


def test_a_dry_turn_says_what_it_would_close_and_leaves_all_as_it_is(turned: Workspace) -> None:
    before = world.ends(turned)
    ahead = inspect.ahead(turned, world.closes(world.SECOND))
    assert len(ahead.windows) == world.SECOND - world.FIRST
    assert ahead.champion == 1
    assert world.ends(turned) == before
    closed = world.turn(turned, world.SECOND).closed
    assert closed == len(ahead.windows)
    assert dvc_data.pointer(turned.root) is not None
