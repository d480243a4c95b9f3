"""Why a generation is better, how data ages and what others' data is worth, asked of a real workspace."""

import json
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from flows import aging, attributing, evidence, joining, retraining
from flows.bars import bars
from flows.progress import Listener
from flywheel.errors import ConfigError, DataError, RegistryError
from flywheel.evidence import Network, Staleness, Why
from flywheel.workspace import Workspace
from tests.flows import world
from tests.flows.shell import Shell


def unwatched() -> AbstractContextManager[Listener]:
    return bars(lambda _: None)


def test_why_splits_a_difference_into_parts_that_sum_to_it(turned: Workspace, shell: Shell) -> None:
    """Two generations that differ in everything: later rows, more of them, another exam and other columns."""
    world.amend(turned.root, train={"rounds": 30})
    assert world.turn(turned, world.SECOND).generation == 2
    done = shell.run(turned.root, "compare", "1", "2", "--why", "--json")
    assert done.code == 0, done.said
    told = json.loads(done.out)
    assert {part["name"] for part in told["parts"]} == {"exam", "fresher data", "more data", "recipe"}
    assert sum(part["effect"]["value"] for part in told["parts"]) == pytest.approx(told["total"]["value"])
    for part in [*told["parts"], {"effect": told["total"]}]:
        assert part["effect"]["low"] <= part["effect"]["value"] <= part["effect"]["high"]
    assert any("never existed" in sentence for sentence in told["says"])
    kept = evidence.kept(turned, Why)
    assert kept is not None
    assert kept.total.value == told["total"]["value"]
    back = attributing.why(turned, 2, 1, on_progress=unwatched)
    assert back.total.value == -kept.total.value
    assert {p.name: -p.effect.value for p in back.parts} == {p.name: p.effect.value for p in kept.parts}


def test_why_refuses_what_it_cannot_split_in_a_sentence(turned: Workspace) -> None:
    with pytest.raises(RegistryError, match="there is no generation 2") as caught:
        attributing.why(turned, 1, 2, on_progress=unwatched)
    world.told_well(f"flywheel: {caught.value}\n")
    with pytest.raises(ConfigError, match="1 is compared with itself") as twice:
        attributing.why(turned, 1, 1, on_progress=unwatched)
    world.told_well(f"flywheel: {twice.value}\n")


def test_stale_says_how_data_ages_and_whether_to_drop_some(turned: Workspace, shell: Shell) -> None:
    as_of = world.closes(world.FIRST)
    done = shell.run(turned.root, "stale", "--as-of", as_of.isoformat(), "--json")
    assert done.code == 0, done.said
    told = json.loads(done.out)
    assert told["ages"] == sorted(told["ages"], key=lambda one: one["days"])
    assert told["windows"] == sorted(told["windows"], key=lambda one: one["days"])
    assert all(one["rows"] > 0 for one in told["windows"])
    assert len(told["says"]) == 3
    assert ("Keep all" in told["says"][-1]) == (told["keep_days"] is None)
    kept = evidence.kept(turned, Staleness)
    assert kept is not None
    assert kept.as_of == as_of


def test_too_little_history_is_told_in_a_sentence(turned: Workspace, fresh: Workspace) -> None:
    with pytest.raises(DataError, match="too little to tell old from new") as caught:
        aging.stale(turned, world.closes(3), on_progress=unwatched)
    world.told_well(f"flywheel: {caught.value}\n")
    with pytest.raises(DataError, match="no closed window has a row") as empty:
        aging.stale(fresh, datetime(2026, 2, 1, tzinfo=UTC), on_progress=unwatched)
    world.told_well(f"flywheel: {empty.value}\n")


def test_network_says_what_others_rows_are_worth_to_the_same_users(turned: Workspace, shell: Shell) -> None:
    world.amend(turned.root, gate={"min_rows": 20}, exam={"windows": 2, "rows": 600})
    done = shell.run(turned.root, "network", "--as-of", world.closes(world.FIRST).isoformat(), "--json")
    assert done.code == 0, done.said
    told = json.loads(done.out)
    joining_users = [point["users"] for point in told["joining"]]
    assert joining_users == sorted(set(joining_users))
    assert told["difference"]["value"] == pytest.approx(told["everybody"] - told["own"])
    assert evidence.kept(turned, Network) is not None
    left = [path.name for path in turned.cache.iterdir() if path.name.startswith("tmp")]
    assert left == []


def test_thinned_counters_know_the_cohort_alone(turned: Workspace, tmp_path: Path) -> None:
    """The user counters of others stay empty, and those of the cohort are what they are with everybody."""
    whole, part = turned.matrices(), joining.thinned(turned, 0.5, tmp_path)
    window = turned.config.windows.grid.parse(turned.ledger()[5].window)
    for cache in (whole, part):
        cache.build([window])
    users = turned.reader(window, ["user"]).column("user").to_pandas()
    known = retraining.among(users, 0.5)
    count = turned.recipe.names.index("user__count_forever")
    everybody, thin = whole.load(window)[:, count], part.load(window)[:, count]
    assert known.any()
    assert not known.all()
    assert (thin[known] == everybody[known]).all()
    assert (np.nan_to_num(thin[~known]) == 0).all()
    assert np.nan_to_num(everybody[~known]).any()


def test_network_needs_users_and_a_cohort_that_can_be_examined(turned: Workspace) -> None:
    as_of = world.closes(world.FIRST)
    world.amend(turned.root, gate={"min_rows": 5000})
    with pytest.raises(DataError, match="the cohort's exam has") as caught:
        joining.network(Workspace.open(turned.root), as_of, on_progress=unwatched)
    world.told_well(f"flywheel: {caught.value}\n")
    held = turned.config.model_dump(mode="json", exclude_none=True)
    held["contract"].pop("user")
    held["features"]["counters"] = []
    ws = world.rewrite(turned.root, held)
    with pytest.raises(ConfigError, match="no users to tell apart") as none:
        joining.network(ws, as_of, on_progress=unwatched)
    world.told_well(f"flywheel: {none.value}\n")
