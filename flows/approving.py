"""What a person says to a generation that waits, from a terminal or from Prefect's pages: taken down, and acted on."""

from datetime import datetime

from flows import asking, canary, deciding, inspect, moving
from flows.canary import Settled
from flows.lock import locked
from flywheel import trial
from flywheel.errors import RegistryError
from flywheel.records import Generation
from flywheel.trial import Answer
from flywheel.workspace import Workspace


def answer(
    ws: Workspace, number: int, *, approve: bool, who: str, why: str, as_of: datetime, wait: float = 0
) -> Settled | None:
    """Approve or refuse a generation that waits, or refuse one that serves as canary; what it came to.

    Raises:
        BusyError: another command holds the workspace for longer than `wait` seconds; nothing is taken down.
        RegistryError: the generation waits for no answer.
    """
    with locked(ws.cache, "approve", wait=wait):
        state, made = moving.aliases(ws), deciding.generation(ws, number)
        if number == state.canary != state.champion and not approve:
            return canary.end(ws, state, as_of, who, f"refused by {who}: {why}")
        if number != state.waiting or trial.read(made.tags).answer is not None:
            raise RegistryError(f"generation {number} waits for no answer", why=_instead(made), next="flywheel status")
        asking.record(ws, made, Answer(approve, who, as_of, why))
        return canary.settle(ws, as_of)


def waits(ws: Workspace, number: int) -> bool:
    """Whether a generation waits for an answer."""
    made = deciding.generation(ws, number)
    return moving.aliases(ws).waiting == number and trial.read(made.tags).answer is None


def findings(ws: Workspace, number: int) -> str:
    """What there is to know before one answers, as markdown."""
    made = deciding.generation(ws, number)
    rows = [
        (str(f["name"]), str(f["status"]), str(f["detail"]).replace("|", "\\|")) for f in inspect.findings(ws, made)
    ]
    against = f"generation {made.examined_against}" if made.examined_against else "the baseline"
    return "\n".join(
        [
            f"**Generation {number} passed the gate**: {made.reason}",
            "",
            f"Trained on {made.train_rows:,} rows, examined against {against} on {made.exam_rows:,}.",
            "",
            *("| finding | | what was found |", "|---|---|---|"),
            *(f"| {' | '.join(row)} |" for row in rows),
        ]
    )


def _instead(made: Generation) -> str:
    told = trial.read(made.tags)
    if told.answer is not None:
        return f"it was {trial.said(told.answer)}"
    if told.canary is not None:
        return f"it served as canary from {told.canary.since:%Y-%m-%d %H:%M}Z on"
    return f"it is {made.alias or 'none of those that serve or wait'}, and its verdict was {made.verdict}"
