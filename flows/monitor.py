"""Whether the champion is still worth its place; where it does harm, the one before it serves again.

Everything is done under the workspace's lock: what is judged is what is taken back. First the harm is written on the
generation's run, then the champion moves, then it is seen that its successor can be served; the next look sees in the
inbox who answered since. Killed anywhere and run again, it ends the same.
"""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from prefect import flow

from flows import deciding, evidence, measuring, moving, publishing, serving, watching
from flows.failpoints import failpoint
from flows.journal import tell
from flows.lock import locked
from flows.notices import notify
from flywheel.integrations import mlflow_tracking
from flywheel.learn.promote import Aliases
from flywheel.measure import watch
from flywheel.records import Move
from flywheel.sources import inbox_reading
from flywheel.sources.inbox_database import reading
from flywheel.watched import HARM, TakenBack, Watched
from flywheel.workspace import Workspace

ANSWERS = 100  # of the newest, by which it is seen who answers


@flow(name="monitor", flow_run_name="monitor as of {as_of}", log_prints=False)
def monitor(workspace: Path, as_of: datetime, wait: float = 0) -> Watched:
    """Look at the champion once; take it back where the policy says so, keep what was seen, and tell who is to know.

    It waits so many seconds for whoever holds the workspace.
    """
    ws = Workspace.open(workspace)
    with locked(ws.cache, "monitor", wait=wait):
        known = evidence.kept(ws, Watched)
        back = _taken_back(ws, known, moving.finish_taking_back(ws))
        found, action = look(ws, as_of, back)
        if action.back:
            found = _take_back(ws, found, action.why)
        evidence.keep(ws, found)
        tell("watched", generation=found.champion, reason="; ".join(found.says))
    if _urgent(found, known) and (known is None or known.says != found.says):
        notify(ws, found.says[0], "\n".join(found.says))
        measuring.show(ws)  # the page says it first, and no turn may come before somebody opens it
    return found


def _urgent(found: Watched, known: Watched | None) -> bool:
    """Whether there is harm, or a champion was taken back since the last look, or its successor does not serve."""
    back, before = found.taken_back, known.taken_back if known else None
    new = back is not None and (before is None or before.when != back.when)
    return found.harm or new or (back is not None and back.served is False)


def look(ws: Workspace, as_of: datetime, back: TakenBack | None) -> tuple[Watched, watch.Action]:
    """What is seen as of an instant, and what follows from it."""
    state, lines = moving.aliases(ws), watching.due(ws, as_of)
    made = deciding.generation(ws, state.champion) if state.champion else None
    rows = watching.served(ws, lines, state.champion, state.previous)
    signals = watching.signals(ws, lines, rows, made, as_of)
    action = watch.policy(
        signals,
        champion=state.champion,
        previous=state.previous,
        harmed=bool(state.previous) and HARM in deciding.generation(ws, state.previous).tags,
        rollback=ws.config.monitor.rollback,
    )
    windows = list(rows.now["window"]) if len(rows.now) else [""]
    says = [f"generation {state.champion} does harm. {action.why}"] if action.why else []
    says += [f"{one.name}: {one.says}" for one in signals if one.status == "off"]
    says += [_served(back)] if back else []
    shown = says or [f"{_named(state.champion)}: no harm is shown"]
    own = int(rows.now["own"].sum()) if len(rows.now) else 0
    seen = Watched(as_of, state.champion, state.previous, windows[0], windows[-1], own, signals, back, tuple(shown))
    return seen, action


def _take_back(ws: Workspace, seen: Watched, why: str) -> Watched:
    """Write the harm down, go back, and see that what serves next can be served."""
    mlflow_tracking.say(deciding.open_store(ws), deciding.generation(ws, seen.champion), HARM, why)
    failpoint("harm:after")
    move = moving.take_back(ws, Aliases(champion=seen.champion, previous=seen.previous), why)
    back = _taken_back(ws, None, move)
    assert back is not None
    said = f"generation {move.before} was taken back: {why}"
    return replace(seen, taken_back=back, says=(said, *seen.says[1:], _served(back)))


def _taken_back(ws: Workspace, known: Watched | None, move: Move | None) -> TakenBack | None:
    """What became of the monitor's newest move, if that is the newest of all, by who has answered since."""
    if move is None:
        return None
    back = known.taken_back if known else None
    if back is None or back.when != move.when:
        serving.ranker_of(publishing.current(ws), serving.policy(ws.config))  # as a server does, golden rows and all
        lines = ws.ledger()
        return TakenBack(move.before, move.after, move.when, move.why, lines[-1].window, _asked(ws))
    where = serving.inbox(ws)
    with reading(where.engine) as connection:
        newest = inbox_reading.newest_decisions(connection, back.decisions, ANSWERS)
    where.close()
    wheel = [one.generation == move.after for one in newest if one.arm == "wheel"]
    if not wheel:
        return back
    proof = f"it gave {sum(wheel):,} of the newest {len(wheel):,} answers since"
    return replace(back, served=wheel[0], proof=proof)


def _asked(ws: Workspace) -> int:
    where = serving.inbox(ws)
    with reading(where.engine) as connection:
        count = inbox_reading.newest(connection)
    where.close()
    return count


def _served(back: TakenBack) -> str:
    after = _named(back.after)
    if back.served is None:
        return f"{after} is back in place of generation {back.before}, and was loaded as servers do: {back.proof}"
    return f"{after} {'serves' if back.served else 'does not serve'} in place of generation {back.before}: {back.proof}"


def _named(generation: int) -> str:
    return f"generation {generation}" if generation else "the baseline"
