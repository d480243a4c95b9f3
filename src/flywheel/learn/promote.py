"""Which aliases move, in which order, so that whoever looks in between sees the old champion or the new one.

A plan is a value; carrying it out is the corridor's. An alias on generation 0 is no alias: while `champion` is 0 the
baseline serves. A challenger that passed may have to wait for a person (`waiting`) and to serve a share of people first
(`canary`) before it becomes champion. Both were let through against one champion: whoever moves that ends them.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from flywheel.errors import RegistryError
from flywheel.records import Move, Verdict

Alias = Literal["champion", "previous", "canary", "waiting"]


@dataclass(frozen=True)
class Aliases:
    """Where the aliases point (0 for none), and the generations that the registry holds."""

    champion: int = 0
    previous: int = 0
    challenger: int = 0
    canary: int = 0
    waiting: int = 0
    generations: frozenset[int] = frozenset()


@dataclass(frozen=True)
class AliasMove:
    """Point an alias at a generation; at 0, remove it."""

    alias: Alias
    generation: int

    def apply(self, state: Aliases) -> Aliases:
        """The state once this move is made."""
        aliases: dict[str, int] = {self.alias: self.generation}
        return replace(state, **aliases)  # type: ignore[arg-type]


def moves(verdict: Verdict, state: Aliases, *, generation: int, examined_against: int) -> tuple[AliasMove, ...]:
    """The alias moves that a verdict on `generation` calls for; none unless it says promote.

    Raises:
        RegistryError: as `promotion` does.
    """
    if verdict.decision != "promote":
        return ()
    return promotion(state, generation=generation, examined_against=examined_against)


def promotion(state: Aliases, *, generation: int, examined_against: int) -> tuple[AliasMove, ...]:
    """`previous` to the old champion, then `champion` to the new, which ends a canary and whoever waits.

    What was moved before a crash is not moved again.

    Raises:
        RegistryError: the registry does not hold the generation, or the champion is no longer the one that it
            was examined against.
    """
    if generation not in state.generations:
        why = _held(state)
        raise RegistryError(f"generation {generation} is not in the registry", why=why, next="flywheel generations")
    if generation == state.champion:
        return tuple(move for move in ended(state) if generation in (state.canary, state.waiting))
    if state.champion != examined_against:
        raise RegistryError(
            f"champion changed from {_named(examined_against)} to {_named(state.champion)} during the gate",
            why=f"generation {generation} was not examined against it; nothing moved",
            next=f"flywheel explain {generation}, and if it convinces: flywheel promote {generation} --why REASON",
        )
    keep = () if state.previous == state.champion else (AliasMove("previous", state.champion),)
    return (*keep, AliasMove("champion", generation), *ended(state))


def rollback(state: Aliases) -> tuple[AliasMove, ...]:
    """Swap `champion` and `previous`; a second rollback returns. Without a `previous`, to the baseline.

    The champion moves first: after a crash in between, the rollback has happened, and a rerun is refused rather
    than undoing it.

    Raises:
        RegistryError: there is nothing to roll back to, or the registry no longer holds it.
    """
    if state.champion == state.previous:
        why = "the baseline serves" if state.champion == 0 else f"previous is {state.previous} as well"
        raise RegistryError(
            f"champion {_named(state.champion)} has nothing to roll back to",
            why=f"{why}; {_held(state)}",
            next="flywheel promote N --why REASON",
        )
    if state.previous and state.previous not in state.generations:
        raise RegistryError(
            f"previous is generation {state.previous}, which is not in the registry",
            why=f"{_held(state)}; nothing moved",
            next="flywheel promote N --why REASON",
        )
    return AliasMove("champion", state.previous), AliasMove("previous", state.champion), *ended(state)


def ended(state: Aliases) -> tuple[AliasMove, ...]:
    """What ends the canary and whoever waits."""
    aliases: tuple[Alias, ...] = ("canary", "waiting")
    return tuple(AliasMove(alias, 0) for alias in aliases if getattr(state, alias))


def canary(state: Aliases) -> tuple[AliasMove, ...]:
    """Have whoever waits serve as canary; it ceases to wait only then, so that a crash in between loses nobody."""
    return AliasMove("canary", state.waiting), AliasMove("waiting", 0)


def record(
    state: Aliases,
    plan: tuple[AliasMove, ...],
    *,
    action: Literal["promote", "rollback", "canary"],
    who: str,
    when: datetime,
    why: str,
) -> Move | None:
    """What a plan does to the champion, or to the canary, by whom, when and why; None where it leaves that alone."""
    after = state
    for move in plan:
        after = move.apply(after)
    moved: Alias = "canary" if action == "canary" else "champion"
    before, now = getattr(state, moved), getattr(after, moved)
    return None if before == now else Move(action, before, now, who, when, why)


def _named(generation: int) -> str:
    return str(generation) if generation else "the baseline"


def _held(state: Aliases) -> str:
    others = sorted(state.generations - {state.champion}, reverse=True)
    if not others:
        return "the registry holds no other generation"
    more = f" and {len(others) - 10} older" if len(others) > 10 else ""
    return f"the registry holds {', '.join(str(n) for n in others[:10])}{more}"
