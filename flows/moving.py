"""Moves of the champion alias: because the gate says so, or because a person does. It moves last, and once."""

import getpass
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

from flows import deciding
from flows.failpoints import failpoint
from flows.journal import tell
from flows.lock import locked
from flywheel.errors import RegistryError
from flywheel.integrations import mlflow_registry
from flywheel.learn import promote
from flywheel.learn.promote import Aliases
from flywheel.records import Generation, Move, Verdict
from flywheel.workspace import Workspace


def unsettled(ws: Workspace, made: Generation) -> bool:
    """Whether a generation passed the gate against today's champion and was not made champion yet.

    One that was champion and was taken back is settled: the next turn does not undo a rollback.
    """
    if made.verdict != "promote" or deciding.champion(ws) != made.examined_against:
        return False
    return all(move.before != made.generation for move in mlflow_registry.moves(deciding.open_store(ws)))


def settle(ws: Workspace, number: int) -> bool:
    """Move the champion alias if the generation's verdict says so; whether it moved. The alias moves last, and once."""
    made = deciding.generation(ws, number)
    said = Verdict(made.verdict, made.reason)
    state = aliases(ws)
    plan = promote.moves(said, state, generation=number, examined_against=made.examined_against)
    return _apply(ws, state, plan, "promote", getpass.getuser(), made.reason, datetime.now(UTC)) is not None


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
            _apply(ws, state, plan, action, who, why, when)
            tell("rolled back" if number is None else "promoted", generation=move.after, before=move.before, reason=why)
        return move


def aliases(ws: Workspace) -> Aliases:
    """Where the aliases point now."""
    return Aliases(**asdict(mlflow_registry.state(deciding.open_store(ws))))


def _apply(
    ws: Workspace, state: Aliases, plan: tuple[promote.AliasMove, ...], action: Any, who: str, why: str, when: datetime
) -> Move | None:
    """Note the move, then make it, the champion last, to a generation that can be loaded.

    What a killed run noted is not noted again: two moves in a row cannot be from and to the same.
    """
    move = promote.record(state, plan, action=action, who=who, when=when, why=why)
    if move is None:
        return None
    store = deciding.open_store(ws)
    if move.after:
        mlflow_registry.load(store, move.after)
    failpoint("promote:before")
    noted = mlflow_registry.moves(store)[-1:]
    if not any((n.action, n.before, n.after) == (move.action, move.before, move.after) for n in noted):
        mlflow_registry.record(store, move)
    for step in plan:
        mlflow_registry.point(store, step.alias, step.generation)
        failpoint("promote:mid")
    failpoint("promote:after")
    return move
