"""Moves of the champion alias: because the gate says so, or because a person does. It moves last, and once."""

import getpass
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Literal

from flows import deciding
from flows.failpoints import failpoint
from flows.journal import tell
from flows.lock import locked
from flywheel import trial
from flywheel.errors import RegistryError
from flywheel.integrations import mlflow_registry
from flywheel.integrations.mlflow_store import Store
from flywheel.learn import promote
from flywheel.learn.promote import Aliases
from flywheel.records import Generation, Move, Verdict
from flywheel.watched import MONITOR
from flywheel.workspace import Workspace


def unsettled(ws: Workspace, made: Generation) -> bool:
    """Whether a generation passed the gate against today's champion and was not made champion yet.

    One that was champion and was taken back is settled: the next turn does not undo a rollback. So is one that waits,
    was refused by a person, or served as canary.
    """
    state, told = aliases(ws), trial.read(made.tags)
    if made.verdict != "promote" or state.champion != made.examined_against:
        return False
    if state.waiting == made.generation or told.answer is not None or told.canary is not None:
        return False
    return all(move.before != made.generation for move in mlflow_registry.moves(deciding.open_store(ws)))


def settle(ws: Workspace, number: int) -> Literal["promoted", "waiting", ""]:
    """Move the champion alias if the generation's verdict says so; or have it wait, where the policy asks for more.

    Nothing, where the verdict is another. The alias moves last, and once.
    """
    made, policy = deciding.generation(ws, number), ws.config.gate
    if made.verdict == "promote" and (policy.approval == "person" or policy.canary):
        failpoint("wait:before")
        let_wait(ws, number)
        failpoint("wait:after")
        return "waiting"
    return "promoted" if promote_passed(ws, made, made.reason) else ""


def let_wait(ws: Workspace, number: int) -> None:
    """Have a generation wait, in place of one that does; 0 is nobody."""
    mlflow_registry.point(deciding.open_store(ws), "waiting", number)


def promote_passed(ws: Workspace, made: Generation, why: str) -> bool:
    """Move the champion alias if the generation's verdict says so; whether it moved."""
    said, state = Verdict(made.verdict, made.reason), aliases(ws)
    plan = promote.moves(said, state, generation=made.generation, examined_against=made.examined_against)
    moved = carry_out(ws, state, plan, "promote", who=getpass.getuser(), why=why, when=datetime.now(UTC))
    return moved is not None


def move_by_hand(ws: Workspace, number: int | None, *, why: str, dry_run: bool) -> Move:
    """Make a generation the champion because a person says so; without a number, the one before it.

    Args:
        ws: the workspace.
        number: the generation to promote, or None to roll back.
        why: the reason, kept with the move.
        dry_run: only say what would move.

    Raises:
        BusyError: a turn is under way.
        RegistryError: there is no such generation, it is the champion already, or there is nothing to go back to.
    """
    who, when = getpass.getuser(), datetime.now(UTC)
    action: Literal["promote", "rollback"] = "rollback" if number is None else "promote"
    with locked(ws.cache, action):
        state = aliases(ws)
        if number is None:
            plan = promote.rollback(state)
        else:
            plan = promote.promotion(state, generation=number, examined_against=state.champion)
        move = promote.record(state, plan, action=action, who=who, when=when, why=why)
        if move is None:
            raise RegistryError(f"generation {number} is the champion already", next="flywheel generations")
        if not dry_run:
            carry_out(ws, state, plan, action, who=who, why=why, when=when)
            tell("rolled back" if number is None else "promoted", generation=move.after, before=move.before, reason=why)
        return move


def take_back(ws: Workspace, seen: Aliases, why: str) -> Move:
    """Go back to the champion before, for the monitor, which holds the workspace and saw the aliases as `seen`.

    Raises:
        RegistryError: somebody has moved the champion since, or there is nothing to go back to.
    """
    state = aliases(ws)
    if (state.champion, state.previous) != (seen.champion, seen.previous):
        found = (
            f"champion and previous were {seen.champion} and {seen.previous}, are {state.champion} and {state.previous}"
        )
        raise RegistryError("the champion was moved while the monitor looked", why=found, next="flywheel monitor")
    plan, when = promote.rollback(state), datetime.now(UTC)
    move = carry_out(ws, state, plan, "rollback", who=MONITOR, why=why, when=when)
    assert move is not None
    tell("rolled back", generation=move.after, before=move.before, reason=why)
    return move


def finish_taking_back(ws: Workspace) -> Move | None:
    """The newest move, if it is the monitor's and made; `previous`, which moves last, is moved if a kill left that."""
    store, state = deciding.open_store(ws), aliases(ws)
    last = next(reversed(mlflow_registry.moves(store)), None)
    if last is None or last.who != MONITOR or last.after != state.champion:
        return None
    if state.previous == state.champion:
        mlflow_registry.point(store, "previous", last.before)
    return last


def aliases(ws: Workspace) -> Aliases:
    """Where the aliases point now."""
    return Aliases(**asdict(mlflow_registry.state(deciding.open_store(ws))))


def carry_out(
    ws: Workspace,
    state: Aliases,
    plan: tuple[promote.AliasMove, ...],
    action: Literal["promote", "rollback", "canary"],
    *,
    who: str,
    why: str,
    when: datetime,
) -> Move | None:
    """Note what moves, then move it, to generations that can be loaded; what became of the champion, or the canary.

    What a killed run noted is not noted again: two moves in a row cannot be from and to the same.
    """
    if not plan:
        return None
    place = "canary" if action == "canary" else "promote"
    move = promote.record(state, plan, action=action, who=who, when=when, why=why)
    ends = promote.record(state, plan, action="canary", who=who, when=when, why=why)
    noting = list(dict.fromkeys(one for one in (move, ends) if one is not None))
    store = deciding.open_store(ws)
    for one in noting:
        if one.after:
            mlflow_registry.load(store, one.after)
    failpoint(f"{place}:before")
    for one in noting:
        _note(store, one)
    for step in plan:
        mlflow_registry.point(store, step.alias, step.generation)
        failpoint(f"{place}:mid")
    failpoint(f"{place}:after")
    return move


def _note(store: Store, move: Move) -> None:
    log = mlflow_registry.canaries if move.action == "canary" else mlflow_registry.moves
    last = log(store)[-1:]
    if not any((n.action, n.before, n.after) == (move.action, move.before, move.after) for n in last):
        mlflow_registry.record(store, move)
