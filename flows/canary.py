"""What a challenger that passed the gate still goes through, where the policy asks for more: a person, then a canary.

First a person may be asked, for whether real people shall meet it at all is theirs to say; then it may serve a share of
the wheel's users, and windows that close show whether it is no worse for them. Only then the champion alias moves. The
registry's aliases say who waits and who serves, and tags on its run what came of it; `settle` brings it as far as
evidence and answers reach, and whoever holds the workspace calls it. One serves at a time and one waits: a newer one
that passed replaces the one that waits, not the one that serves, else a nightly turn would let none come to an end.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import pandas as pd

from flows import asking, deciding, moving
from flows.failpoints import failpoint
from flows.journal import tell
from flywheel import trial
from flywheel.data import dataset
from flywheel.integrations import mlflow_tracking
from flywheel.learn import promote
from flywheel.learn.promote import Aliases
from flywheel.measure import canary
from flywheel.measure.canary import Seen
from flywheel.records import Generation
from flywheel.trial import Canary
from flywheel.windows import format_duration
from flywheel.workspace import Workspace

COLUMNS = ("user", "label", "late", "arm", "generation", "ts")


@dataclass(frozen=True)
class Settled:
    """How far a generation that passed has come, and why."""

    status: Literal["waiting", "canary", "promoted", "refused"]
    generation: int
    reason: str


def settle(ws: Workspace, as_of: datetime) -> Settled | None:
    """Bring whoever passed, and is not champion yet, as far as evidence and answers reach; called under the lock.

    What it came to; None where nobody waits and no canary serves. It may be killed anywhere, and called again.
    """
    came, state = None, moving.aliases(ws)
    if state.waiting and state.waiting in (state.canary, state.champion):  # of a run that was killed as it let it on
        moving.let_wait(ws, 0)
        state = replace(state, waiting=0)
    if state.canary:
        came, state = _judged(ws, state, as_of), moving.aliases(ws)
    if state.waiting and not state.canary:
        came = _admitted(ws, state, as_of) or came
    if came is not None:
        tell(came.status, generation=came.generation, reason=came.reason)
    return came


def end(ws: Workspace, state: Aliases, as_of: datetime, who: str, why: str) -> Settled:
    """Have the canary serve no more; its verdict stays, and the champion too."""
    moving.carry_out(ws, state, (promote.AliasMove("canary", 0),), "canary", who=who, why=why, when=as_of)
    return Settled("refused", state.canary, why)


def measured(ws: Workspace, made: Generation, since: datetime) -> Seen:
    """What came of a canary and of its champion in closed windows, since the first that the canary answered."""
    lines = [line for line in ws.ledger() if line.end > since]
    frames = [dataset.read_window(ws.data, line.window, COLUMNS).to_pandas() for line in lines]
    rows = pd.concat([frame[~frame["late"]] for frame in frames], ignore_index=True) if frames else _no_rows()
    tried = (rows["arm"] == "canary") & (rows["generation"] == made.generation)
    champion = (rows["arm"] == "wheel") & (rows["generation"] == made.examined_against)
    kept = (tried | champion) & (rows["ts"] >= rows.loc[tried, "ts"].min())
    return canary.seen(
        rows.loc[kept, "user"].astype(object).to_numpy(),
        rows.loc[kept, "label"].to_numpy(dtype=float, na_value=float("nan")),
        tried[kept].to_numpy(dtype=bool),
    )


def _judged(ws: Workspace, state: Aliases, as_of: datetime) -> Settled | None:
    """What follows from what the canary has shown by now."""
    made = deciding.generation(ws, state.canary)
    told = trial.read(made.tags).canary
    if state.canary == state.champion:  # made so by a run that was killed, or by a person
        moving.carry_out(ws, state, promote.ended(state), "canary", who="flywheel", why="is champion", when=as_of)
        return None
    if told is None or made.examined_against != state.champion:
        return end(ws, state, as_of, "flywheel", "the champion was moved from the one that it was examined against")
    policy = ws.config.gate
    if told.step == "wait":
        seen = measured(ws, made, told.since)
        found = canary.judge(seen, share=told.share, margin=policy.canary_margin, confidence=policy.confidence)
        timed_out = as_of - told.since >= policy.canary_timeout
        told = replace(told, finding=found, step=canary.step(found, timed_out=timed_out))
        mlflow_tracking.say(deciding.open_store(ws), made, trial.CANARY, trial.written(told))
        failpoint("judge:after")
    assert told.finding is not None
    if told.step == "wait":
        return Settled("canary", made.generation, told.finding.detail)
    if told.step == "promote":
        moving.promote_passed(ws, made, told.finding.detail)
        return Settled("promoted", made.generation, told.finding.detail)
    unsure = told.finding.status != "fail"
    late = f"not enough evidence within {format_duration(policy.canary_timeout)}: " if unsure else ""
    return end(ws, state, as_of, "flywheel", f"{late}{told.finding.detail}")


def _admitted(ws: Workspace, state: Aliases, as_of: datetime) -> Settled | None:
    """What follows for whoever waits: a question, a canary, or to be champion."""
    made = deciding.generation(ws, state.waiting)
    if made.examined_against != state.champion:
        moving.let_wait(ws, 0)
        return None
    answer, waits = asking.heard(ws, made, as_of)
    if answer is None and waits:
        return Settled("waiting", made.generation, f"{made.reason}; {waits}")
    if answer is not None and not answer.approve:
        moving.let_wait(ws, 0)
        return Settled("refused", made.generation, f"by {answer.who}: {answer.why}")
    share = ws.config.gate.canary
    if not share:
        moving.promote_passed(ws, made, f"approved by {answer.who}: {answer.why}" if answer else made.reason)
        return Settled("promoted", made.generation, made.reason)
    begun = Canary(as_of, share)
    mlflow_tracking.say(deciding.open_store(ws), made, trial.CANARY, trial.written(begun))
    why = f"serves {share:.0%} of the wheel's users before it may be champion"
    moving.carry_out(ws, state, promote.canary(state), "canary", who="flywheel", why=why, when=as_of)
    return Settled("canary", made.generation, f"{made.reason}; it {why}")


def _no_rows() -> pd.DataFrame:
    return pd.DataFrame({name: [] for name in COLUMNS})
