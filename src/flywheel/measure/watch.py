"""Whether the champion is still worth its place, by the rows that it served.

What each comparison can tell:

- *Against the holdback.* Who is held back is drawn by lot, and both are served at the same time; so the difference in
  reward per row is the champion's doing. Two things it is not: users whom bad lists drive away are seen no more, so
  those who remain flatter either arm a little; and what arms share (popularity, the catalogue) leaks.
- *Against its predecessor.* They served at different times, to which seasons do what they like. So each is compared
  with the holdback of its own time, by how much more it gives as a share (a lead): a season that multiplies everybody's
  reward cancels, and so does a lost part of all outcomes. What is judged is the difference of the two leads. Users who
  were there in both times are one cluster.
- *What the exam promised.* An exam's AUC promises nothing of rows that the champion has chosen itself: on a list of
  what it likes there is little left to tell apart, however good it is. What carries over from one choice of rows to
  another is calibration: rows scored .3 are to be rewarded in 3 of 10 cases, whoever chose them; the gate let the
  champion pass with an error of `max_calibration_error` at most. So the mean score is compared with the mean reward of
  what was shown. A shortfall may be the season's as well, and the predecessor might fall as short: it asks for a turn
  and takes nothing back. Exams of numbers promise no such mean.

All are looked at again and again, so all are confidence sequences (`measure/sequences.py`), tightest at BEST_AT users
of the smaller arm. The two that may take a champion back share an error of ALPHA over its whole life. Before anything
is judged from the arms, new users must fall into them as they are hashed: those who were there before may have left one
arm rather than the other, which is an effect and no fault.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from flywheel.evidence import Estimate
from flywheel.measure import sequences
from flywheel.measure.sequences import FEWEST, Sequence
from flywheel.records import Outcomes
from flywheel.watched import PROMISE, Signal, Standing

ALPHA = 0.05  # that a champion which does no harm is ever said to do some
BEST_AT = 200  # users of the smaller arm
STRONG = 3.0  # standard errors from 0, for a mean that is divided by
HOLDBACK, PREDECESSOR, ARMS, FRESH, JOINED = (
    "against the holdback",
    "against its predecessor",
    "arms",
    "windows",
    "outcomes",
)

Floats = npt.NDArray[np.float64]


class Action(NamedTuple):
    """What follows: whether to go back to `previous`, and why, or why not; nothing to say where nothing is wrong."""

    back: bool
    why: str


def arms(rows: pd.DataFrame, share: float) -> Signal:
    """Whether new users fall into the arms as they are hashed.

    Args:
        rows: of all arms: `user`, `arm` and `new` (it is the user's first time).
        share: of users that are to be held back.
    """
    new = rows[rows["new"]].drop_duplicates("user")
    held = int((new["arm"] == "holdback").sum())
    if not 0 < share < 1:
        return Signal(ARMS, "not enough evidence", None, len(new), "nobody is held back: nothing is drawn by lot")
    ratio = sequences.sample_ratio(held, len(new), share)
    found = f"{held:,} of {len(new):,} new users are held back, where {share:.1%} should be"
    if ratio.off():
        return Signal(ARMS, "off", None, len(new), f"{found}: nothing is judged from the arms; see who is not logged")
    return Signal(ARMS, "well", None, len(new), found)


def against_holdback(now: pd.DataFrame, margin: float) -> Signal:
    """The champion's reward per row less the holdback's.

    Args:
        now: rows since the champion began to serve: `user`, `label`, `arm`, and whether the champion served it (`own`).
        margin: a share of the holdback's reward; a loss as small counts as none.
    """
    ours, theirs = (sequences.per_user(part["user"], part["label"]) for part in _parted(now))
    look = sequences.difference((ours[0], theirs[0]), (ours[1], theirs[1]), best_at=BEST_AT, alpha=ALPHA / 2)
    if not math.isfinite(look.high):
        return _few(HOLDBACK, len(ours[1]), len(theirs[1]))
    level = float(theirs[0].sum() / theirs[1].sum())
    words = (
        f"{level + look.estimate:.4f} a row against {level:.4f} in the holdback ({look.low:+.4f} to {look.high:+.4f})"
    )
    return _signal(HOLDBACK, look, -margin * abs(level), words)


def against_predecessor(now: pd.DataFrame, before: pd.DataFrame, margin: float) -> Signal:
    """The champion's lead over the holdback less its predecessor's, each as a share of the holdback of its own time."""
    users = [len(np.unique(part["user"])) for rows in (now, before) for part in _parted(rows)]
    if min(users) < FEWEST:
        return _few(PREDECESSOR, min(users[::2]), min(users[1::2]))
    codes, known = pd.factorize(np.concatenate([now["user"], before["user"]]))
    one, other = _lead(now, codes[: len(now)], len(known)), _lead(before, codes[len(now) :], len(known))
    if one is None or other is None:
        words = "a holdback whose reward is too near to 0 to be divided by"
        return Signal(PREDECESSOR, "not enough evidence", None, min(users), words)
    (ours, moved), (theirs, moved_then) = one, other
    influence = moved - moved_then
    se = math.sqrt(float(influence @ influence))
    look = sequences.around(ours - theirs, se, min(users), best_at=BEST_AT, alpha=ALPHA / 2)
    words = (
        f"{ours:+.1%} on the holdback of its time, its predecessor {theirs:+.1%} on that of its own "
        f"({look.low:+.1%} to {look.high:+.1%} apart)"
    )
    return _signal(PREDECESSOR, look, -margin, words)


def promise(rows: pd.DataFrame, tolerance: float) -> Signal:
    """The mean reward of what the champion showed less its mean score of it; `rows` have `user, label, score`."""
    rewards, n = sequences.per_user(rows["user"], rows["label"] - rows["score"])
    look = sequences.mean(rewards, n, best_at=BEST_AT, alpha=ALPHA)
    if not math.isfinite(look.high):
        words = f"{len(n):,} users; it takes {FEWEST}"
        return Signal(PROMISE, "not enough evidence", None, len(n), words)
    foretold = float(rows["score"].mean())
    words = f"{foretold + look.estimate:.4f} a row, foretold {foretold:.4f} ({look.low:+.4f} to {look.high:+.4f})"
    short: Standing = "off" if look.high < -tolerance else "well"
    return Signal(PROMISE, short, _estimate(look), len(n), words)


def freshness(newest: str, behind: int) -> Signal:
    """Whether windows close when they may; `behind` are due after the `newest` and not closed."""
    found = f"{behind:,} windows after {newest} may be closed and are not"
    return Signal(FRESH, "off" if behind > 1 else "well", None, behind, found)


def joined(outcomes: Iterable[Outcomes], most: float) -> Signal:
    """Whether outcomes reach the rows that they are of; a share of more than `most` that do not is not well."""
    counts = list(outcomes)
    once, reached = sum(o.collected - o.duplicate for o in counts), sum(o.joined for o in counts)
    if once < FEWEST:
        return Signal(JOINED, "not enough evidence", None, once, f"{once:,} outcomes; it takes {FEWEST}")
    found = f"{reached:,} of {once:,} outcomes reached a row in time"
    return Signal(JOINED, "off" if once - reached > most * once else "well", None, once, found)


def policy(signals: tuple[Signal, ...], *, champion: int, previous: int, harmed: bool, rollback: bool) -> Action:
    """Whether to go back, and why; or why not, though harm is shown.

    Args:
        signals: what was found.
        champion: who serves.
        previous: where a rollback would go; 0 is the baseline.
        harmed: whether `previous` was itself shown to do harm.
        rollback: whether the config lets the monitor go back.
    """
    harm = [signal for signal in signals if signal.status == "harm"]
    if not harm:
        return Action(False, "")
    why = "; ".join(f"{signal.name}: {signal.says}" for signal in harm)
    better = next((s.estimate for s in signals if s.name == PREDECESSOR and s.estimate is not None), None)
    if not rollback:
        return Action(False, f"{why}. [monitor] rollback is off: flywheel rollback --why REASON")
    if previous == champion:
        return Action(False, f"{why}. There is nothing before it to go back to: flywheel promote N --why REASON")
    if harmed:
        return Action(
            False, f"{why}. Generation {previous}, before it, did harm as well: flywheel promote N --why REASON"
        )
    if previous and better is not None and better.low > 0:
        worse = f"Generation {previous}, before it, was worse still"
        return Action(False, f"{why}. {worse}: flywheel promote N --why REASON")
    return Action(True, why)


def _parted(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return rows[rows["own"]], rows[rows["arm"] == "holdback"]


def _lead(rows: pd.DataFrame, codes: npt.NDArray[np.int64], users: int) -> tuple[float, Floats] | None:
    """By which share the wheel gives more than the holdback, and how much each user moves it."""
    labels = rows["label"].to_numpy(np.float64)
    (ours, our_influence), (theirs, their_influence) = (
        _mean(codes[side], labels[side], users) for side in (rows["own"].to_numpy(), rows["arm"] == "holdback")
    )
    if not theirs > STRONG * math.sqrt(float(their_influence @ their_influence)):
        return None
    return ours / theirs - 1, our_influence / theirs - ours / theirs**2 * their_influence


def _mean(codes: npt.NDArray[np.int64], labels: Floats, users: int) -> tuple[float, Floats]:
    rewards, rows = np.bincount(codes, labels, users), np.bincount(codes, minlength=users)
    value = float(rewards.sum() / rows.sum())
    return value, (rewards - value * rows) / rows.sum()


def _few(name: str, wheel: int, held: int) -> Signal:
    words = f"{wheel:,} users with the wheel and {held:,} in the holdback; it takes {FEWEST} of each"
    return Signal(name, "not enough evidence", None, min(wheel, held), words)


def _signal(name: str, look: Sequence, bound: float, words: str) -> Signal:
    return Signal(name, "harm" if look.high < bound else "well", _estimate(look), look.users, words)


def _estimate(look: Sequence) -> Estimate:
    return Estimate(look.estimate, look.low, look.high)
