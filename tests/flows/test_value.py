"""What a generation would have earned, and how much to explore, asked of a workspace that served for weeks."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from flows import choices as chosen
from flows import evidence, exploring, inspect, valuing
from flywheel.errors import ConfigError, DataError
from flywheel.evidence import Exploration, OffPolicy
from flywheel.learn.plan import plan
from flywheel.measure import slots
from flywheel.workspace import Workspace
from tests.flows import live
from tests.flows.live import Lived
from tests.flows.shell import Shell
from tests.flows.world import amend, copy

EXAM = {"windows": 3, "rows": 300}


@pytest.fixture(scope="module")
def lived(lived_weeks: Lived, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Its exam is several weeks, in which several generations served."""
    return amend(copy(lived_weeks.ws.root, tmp_path_factory.mktemp("valued") / "live").root, exam=EXAM)


def windows(ws: Workspace) -> tuple[str, ...]:
    return plan(ws.ledger(), ws.config, datetime.now(UTC)).exam


def rows(ws: Workspace) -> int:
    return sum(line.rows for line in ws.ledger() if line.window in windows(ws))


@pytest.mark.slow
def test_decisions_are_scored_as_they_were_served(lived: Workspace) -> None:
    choices = chosen.choices(lived, windows(lived))
    assert np.isfinite(choices.reward).sum() == rows(lived) > 2000
    lists, generations, told = valuing.replayed(lived, choices, chosen.scorer(lived, 1))
    assert len(generations) > 2  # several served, and the baseline the holdback
    assert len(lists.users) == len(choices.decisions) == choices.of, told
    by = np.array([decision.generation for decision in choices.decisions])
    for n, generation in enumerate(generations):
        part = lists.take(by == generation)
        again = slots.followed(part.worth[n], part.there, part.shown, lived.config.serve)  # type: ignore[arg-type]
        assert again == pytest.approx(choices.logged[by == generation], rel=1e-5)


@pytest.mark.slow
def test_a_generation_is_valued_and_the_value_kept(lived: Workspace) -> None:
    found = valuing.value(lived, 1)
    assert found.policy == "generation 1"
    assert found.rows == rows(lived)
    assert found.mean_weight.low < 1 < found.mean_weight.high
    assert evidence.kept(lived, OffPolicy) == found
    assert any("logged by the baseline" in line for line in found.says)
    if not found.refused:
        assert [one.estimator for one in found.values] == ["ips", "snips", "dr"]
        assert found.gain is not None
        assert found.gain.low < 0.5 > abs(found.gain.value)


@pytest.mark.slow
def test_who_served_is_worth_what_was_logged(lived: Workspace) -> None:
    last = windows(lived)[-1:]
    choices = chosen.choices(lived, last)
    served = max({decision.generation for decision in choices.decisions})
    found = valuing.of(lived, chosen.scorer(lived, served), last, "it")
    assert found.effective > 0.5 * found.rows
    assert found.gain is not None
    assert abs(found.gain.value) < 0.02


@pytest.mark.slow
def test_what_the_newest_windows_fitted_is_not_valued_on_them(lived: Workspace) -> None:
    newest = max(made.generation for made in inspect.generations(lived))
    with pytest.raises(DataError, match=f"generation {newest} cannot be valued"):
        valuing.value(lived, newest)


@pytest.mark.slow
def test_decisions_of_another_policy_are_left_out(lived: Workspace, tmp_path: Path) -> None:
    other = amend(copy(lived.root, tmp_path / "other").root, serve={"explore": 0.4})
    with pytest.raises(DataError, match="can be told again") as caught:
        valuing.value(other, 1)
    assert "left out: 100.0% of decisions" in str(caught.value.why)
    assert "do not come out again" in str(caught.value.why)


@pytest.mark.slow
def test_a_state_that_is_kept_no_more_leaves_its_decisions_out(lived: Workspace) -> None:
    choices = chosen.choices(lived, windows(lived)[-1:])
    lost = msgspec.structs.replace(choices.decisions[0], state=10**6)
    mixed = replace(choices, decisions=(lost, *choices.decisions[1:]))
    lists, _, told = valuing.replayed(lived, mixed, chosen.scorer(lived, 1))
    assert len(lists.users) == len(choices.decisions) - 1
    assert "whose state is kept no more" in told[0]


@pytest.mark.slow
def test_how_much_to_explore(lived: Workspace) -> None:
    found = exploring.plan(lived, 0.01)
    assert found.current == 0.1
    assert found.candidates == pytest.approx(12, abs=0.2)
    assert found.rows == rows(lived)
    assert evidence.kept(lived, Exploration) == found
    few, many = (exploring.plan(lived, gain) for gain in (0.001, 0.5))
    assert few.share is None
    assert few.turns > 10
    assert many.turns == 1


@pytest.mark.slow
def test_the_commands_say_it(lived: Workspace, shell: Shell) -> None:
    told = shell.run(lived.root, "value", "1")
    assert told.code == 0, told.said
    assert "generation 1 would have earned" in told.out
    held = json.loads(shell.run(lived.root, "value", "1", "--json").out)
    assert held["policy"] == "generation 1"
    planned = shell.run(lived.root, "explore", "--gain", "0.02")
    assert planned.code == 0, planned.said
    assert "gain that shows" in planned.out


@pytest.mark.slow
def test_an_imported_log_says_nothing_of_what_else_might_have_been_shown(turned: Workspace) -> None:
    found = valuing.value(turned, 1)
    assert found.refused == valuing.NO_CANDIDATES
    assert found.logged.low < found.logged.value < found.logged.high
    assert evidence.kept(turned, OffPolicy) == found
    told = valuing.finding(turned, chosen.scorer(turned, 1), windows(turned))
    assert told is not None
    assert (told.status, told.n) == ("not enough evidence", found.rows)
    with pytest.raises(ConfigError, match="answers nobody"):
        exploring.plan(turned, 0.01)


@pytest.mark.slow
def test_without_propensities_there_is_no_finding(turned: Workspace) -> None:
    contract = turned.config.contract.model_copy(update={"propensity": None})
    ws = Workspace(turned.root, turned.config.model_copy(update={"contract": contract}))
    assert valuing.finding(ws, chosen.scorer(ws, 0), windows(ws)) is None
    with pytest.raises(ConfigError, match="nothing says with which probability"):
        valuing.value(ws, 1)


@pytest.mark.slow
def test_before_the_first_generation_there_is_nothing_to_plan(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no generation yet"):
        exploring.plan(live.build(tmp_path / "new"), 0.01)


@pytest.mark.slow
def test_the_gate_is_told_of_harm_alone(lived: Workspace) -> None:
    found = valuing.finding(lived, chosen.scorer(lived, 1), windows(lived))
    assert found is not None
    assert found.name == "off-policy value"
    assert found.status in ("pass", "not enough evidence")
