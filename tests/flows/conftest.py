"""One Prefect API for all flow tests, one warm process that commands are forked from, and workspaces to copy."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flywheel.integrations.prefect_api import History, boot, ready
from flywheel.workspace import Workspace
from tests.flows import live, world
from tests.flows.shell import Shell
from tests.integration.mlflow_world import QUIET


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every flow meets MLflow, whose own warnings are exempt as in its integration tests."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for mark in QUIET:
                item.add_marker(mark)


@pytest.fixture(scope="session", autouse=True)
def prefect_history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """Flows called in a test, and commands started by one, record here instead of booting an API each."""
    before = dict(os.environ)
    os.environ.pop("PREFECT_API_URL", None)
    with ready(boot(tmp_path_factory.mktemp("prefect"))) as history:
        assert history.url is not None, history.note
        os.environ["PREFECT_API_URL"] = history.url
        yield history
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def shell(prefect_history: History, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """The `flywheel` command as real processes."""
    running = Shell(tmp_path_factory.mktemp("shell"))
    yield running
    running.close()


@pytest.fixture(scope="session")
def fresh_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.build(tmp_path_factory.mktemp("fresh") / "cinema").root


@pytest.fixture(scope="session")
def turned_root(fresh_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    ws = world.copy(fresh_root, tmp_path_factory.mktemp("turned") / "cinema")
    last = max((ws.root / "log").iterdir())
    last.rename(ws.root / last.name)
    first = world.turn(ws, world.FIRST)
    assert first.status == "promoted", first
    (ws.root / last.name).rename(last)
    return ws.root


@pytest.fixture
def fresh(fresh_root: Path, tmp_path: Path) -> Workspace:
    """A workspace with a month of deliveries, none of them collected."""
    return world.copy(fresh_root, tmp_path / "fresh" / "cinema")


@pytest.fixture
def turned(turned_root: Path, tmp_path: Path) -> Workspace:
    """The same after a turn that closed eight windows and made generation 1 the champion; a file has arrived since."""
    return world.copy(turned_root, tmp_path / "turned" / "cinema")


@pytest.fixture(scope="session")
def lived_weeks(tmp_path_factory: pytest.TempPathFactory) -> live.Lived:
    """A product that answered a small world for six weeks, from an empty workspace on."""
    ws = live.build(tmp_path_factory.mktemp("lived") / "live")
    world, turned = live.live(ws, 6)
    assert [t.closed for t in turned] == [1] * 6
    assert "promoted" in {t.status for t in turned[:-2]}, turned
    return live.Lived(ws, world)
