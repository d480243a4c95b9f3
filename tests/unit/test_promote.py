from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import pytest

from flywheel.errors import RegistryError
from flywheel.learn.promote import Aliases, AliasMove, canary, ended, moves, promotion, record, rollback
from flywheel.records import Move, Verdict

NOW = datetime(2024, 3, 4, tzinfo=UTC)
ALL = frozenset(range(1, 8))
STATE = Aliases(champion=3, previous=2, challenger=7, generations=ALL)


def after(state, plan):
    for move in plan:
        state = move.apply(state)
    return state


def test_previous_moves_first_and_champion_last():
    plan = moves(Verdict("promote", ""), STATE, generation=7, examined_against=3)
    assert plan == (AliasMove("previous", 3), AliasMove("champion", 7))


@pytest.mark.parametrize("decision", ["keep", "reject"])
def test_a_verdict_that_does_not_promote_moves_nothing(decision):
    assert moves(Verdict(decision, ""), STATE, generation=7, examined_against=3) == ()


def test_what_is_champion_already_is_not_moved_again():
    assert promotion(replace(STATE, champion=7, previous=3), generation=7, examined_against=3) == ()


def test_a_champion_that_changed_during_the_gate_stops_the_promotion():
    with pytest.raises(RegistryError, match=r"champion changed from 3 to 5 during the gate\n.*nothing moved"):
        promotion(replace(STATE, champion=5), generation=7, examined_against=3)


def test_a_champion_that_went_away_or_came_during_the_gate_stops_the_promotion():
    with pytest.raises(RegistryError, match="from 3 to the baseline during"):
        promotion(replace(STATE, champion=0), generation=7, examined_against=3)
    with pytest.raises(RegistryError, match="from the baseline to 3 during"):
        promotion(STATE, generation=7, examined_against=0)


def test_a_generation_that_the_registry_does_not_hold_is_not_promoted():
    with pytest.raises(RegistryError, match=r"generation 9 is not in the registry\n.*holds 7, 6, 5, 4, 2, 1"):
        promotion(STATE, generation=9, examined_against=3)


def test_the_first_promotion_leaves_no_previous():
    plan = promotion(Aliases(generations=ALL), generation=1, examined_against=0)
    assert plan == (AliasMove("champion", 1),)


def test_a_promotion_over_the_baseline_makes_the_baseline_previous():
    plan = promotion(Aliases(previous=5, generations=ALL), generation=7, examined_against=0)
    assert plan == (AliasMove("previous", 0), AliasMove("champion", 7))


def test_a_rollback_swaps_and_a_second_one_returns():
    once = after(STATE, rollback(STATE))
    assert (once.champion, once.previous) == (2, 3)
    assert after(once, rollback(once)) == STATE


def test_a_rollback_without_a_previous_goes_to_the_baseline_and_back():
    first = Aliases(champion=1, generations=frozenset({1}))
    once = after(first, rollback(first))
    assert (once.champion, once.previous) == (0, 1)
    assert after(once, rollback(once)) == first


def test_a_rollback_from_the_baseline_with_no_previous_is_refused_with_candidates():
    with pytest.raises(RegistryError, match=r"(?s)baseline has nothing to roll back to.*registry holds 2, 1"):
        rollback(Aliases(generations=frozenset({1, 2})))


def test_a_rollback_in_an_empty_registry_is_refused():
    with pytest.raises(RegistryError, match="the registry holds no other generation"):
        rollback(Aliases())


def test_a_rollback_to_the_champion_itself_is_refused_with_candidates():
    many = frozenset(range(1, 30))
    with pytest.raises(RegistryError, match=r"previous is 3 as well; the registry holds 29, .*, 20 and 18 older"):
        rollback(replace(STATE, previous=3, generations=many))


def test_a_rollback_to_a_generation_that_is_gone_is_refused():
    with pytest.raises(RegistryError, match="previous is generation 2, which is not in the registry"):
        rollback(replace(STATE, generations=ALL - {2}))


def test_a_move_is_recorded_with_who_when_and_why():
    plan = promotion(STATE, generation=7, examined_against=3)
    made = record(STATE, plan, action="promote", who="ana", when=NOW, why="AUC .846 against .831")
    assert made == Move("promote", 3, 7, "ana", NOW, "AUC .846 against .831")
    back = record(STATE, rollback(STATE), action="rollback", who="ana", when=NOW, why="complaints")
    assert back == Move("rollback", 3, 2, "ana", NOW, "complaints")


def test_no_move_is_no_record():
    assert record(STATE, (), action="promote", who="ana", when=NOW, why="") is None


def every_plan():
    """Each promotion and rollback of three generations from each state that the aliases can be in."""
    held = frozenset({1, 2, 3})
    for champion, previous, tried, waiting in product(range(4), range(4), range(3), range(3)):
        state = Aliases(champion, previous, 3, tried, waiting, held)
        for generation in held:
            yield state, promotion(state, generation=generation, examined_against=champion), generation
        if champion != previous:
            yield state, rollback(state), previous


def test_promise_6_at_every_step_the_champion_is_the_old_one_or_the_new_one():
    for state, plan, target in every_plan():
        seen = [after(state, plan[:steps]).champion for steps in range(len(plan) + 1)]
        assert set(seen) <= {state.champion, target}
        assert seen[-1] == target
        assert sum(move.alias == "champion" for move in plan) == (state.champion != target)


def test_promise_7_a_promotion_killed_at_any_step_ends_the_same_when_run_again():
    for state, plan, target in every_plan():
        if target == state.previous or {state.canary, state.waiting} - {0, target}:
            continue  # the trial of another generation is ended by whoever looks at trials next
        for steps in range(len(plan) + 1):
            killed = after(state, plan[:steps])
            again = promotion(killed, generation=target, examined_against=state.champion)
            assert after(killed, again) == after(state, plan)


def test_whoever_moves_the_champion_ends_the_canary_and_whoever_waits():
    for state, plan, _ in every_plan():
        if plan and after(state, plan).champion != state.champion:
            assert (after(state, plan).canary, after(state, plan).waiting) == (0, 0)


def test_a_canary_begins_before_it_ceases_to_wait():
    state = replace(STATE, waiting=7)
    plan = canary(state)
    assert plan == (AliasMove("canary", 7), AliasMove("waiting", 0))
    began = record(state, plan, action="canary", who="flywheel", when=NOW, why="a tenth first")
    assert began == Move("canary", 0, 7, "flywheel", NOW, "a tenth first")
    serving = after(state, plan)
    assert serving.champion == state.champion
    assert ended(serving) == (AliasMove("canary", 0),)
    done = promotion(serving, generation=7, examined_against=3)
    assert done == (AliasMove("previous", 3), AliasMove("champion", 7), AliasMove("canary", 0))
    assert record(serving, done, action="canary", who="", when=NOW, why="") == Move("canary", 7, 0, "", NOW, "")
