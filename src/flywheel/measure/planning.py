"""How much to explore, so that the next turn can show a gain, and what that costs.

What a log shows of a challenger is limited by what it seldom showed. The difference that the doubly robust estimate
finds between challenger and champion has, per slot, about the variance

    σ² · Σ (t − l)² / l,

summed over candidates, by how much each is looked at under the challenger (t) and under the champion (l). σ² is what
the reward model leaves unexplained: the more exploration, the larger the smallest l. For one slot, a
champion that shows another than its best of K with probability ε, evenly, and a challenger that never does, the share
of rows that count is `even_share`; for the ranker's own exploration t and l are computed from score lists.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from flywheel.evidence import Exploration, Explored
from flywheel.measure import slots
from flywheel.measure.offpolicy import LEAST_EFFECTIVE, Floats
from flywheel.measure.slots import Lists
from flywheel.sections import Serve

POWER = 0.8
REACH = float(ndtri(0.975) + ndtri(POWER))  # standard errors at which a gain shows with that power
SHARES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
MOST = 400  # decisions: their mean is known well enough


@dataclass(frozen=True)
class Traffic:
    """What a turn brings: slots, slots that its exam holds, and the error of one of these.

    `sigma` is the standard deviation of what the reward model leaves unexplained of a slot's reward, counted so that
    slots of one user may be taken as independent.
    """

    rows: int
    exam_rows: int
    sigma: float


def even_share(disagreement: float, candidates: int, explore: float) -> float:
    """The share of rows that count where a share ε of decisions is drawn evenly among K, and the target never draws.

    `disagreement` is how often the target's best is another one.

    >>> round(even_share(0.3, 10, 0.1), 4), round(even_share(0.3, 3, 0.1), 4)
    (0.0325, 0.1026)
    """
    drawn = explore / candidates
    return 1 / ((1 - disagreement) / (1 - explore + drawn) + disagreement / drawn)


def unexplained(lists: Lists) -> float:
    """The standard deviation of what a reward model leaves of a slot's reward, were slots of one user independent."""
    known = lists.known
    left = np.where(known, lists.reward - slots.look_of(lists) * slots.quality_shown(lists), 0).sum(axis=1)
    totals = np.bincount(lists.users, left)
    return float(np.sqrt(totals @ totals / known.sum()))


def plan(lists: Lists, policy: Serve, traffic: Traffic, gain: float) -> Exploration:
    """The smallest share of exploration with which the next exam would show a gain in reward a slot.

    Args:
        lists: decisions as the champion (generation 0 of `worth`) and the challenger (`target`) would rank them.
        policy: how people are answered today.
        traffic: what a turn brings.
        gain: in reward a slot.
    """
    lists = lists.take(np.arange(len(lists.target)) < MOST) if len(lists.target) > MOST else lists
    shares = tuple(sorted({*SHARES, policy.explore} - {0.0}))
    table = tuple(explored(lists, policy, traffic, share) for share in shares)
    share = _enough(table, traffic, gain)
    soonest = min(table, key=lambda one: _turns(one, traffic, gain))
    current = next((one for one in table if one.share == policy.explore), None)
    turns = 1 if share is not None else _turns(soonest, traffic, gain)
    return Exploration(
        gain=gain,
        share=share,
        current=policy.explore,
        rows=traffic.exam_rows,
        disagreement=_disagreement(lists),
        candidates=float(lists.there.sum(axis=1).mean()),
        table=table,
        turns=turns,
        says=(_advice(gain, share, current, soonest, table, traffic),),
    )


def explored(lists: Lists, policy: Serve, traffic: Traffic, share: float) -> Explored:
    """What exploring so large a share would show of the challenger (`target`), and cost the champion (`worth[0]`)."""
    champion, challenger = (_look(lists, worth, policy, share) for worth in (lists.worth[0], lists.target))
    greedy = _look(lists, lists.worth[0], policy, 0.0)
    ours = np.maximum(champion, slots.NEVER)
    total = champion.sum()
    effective = float(total / (challenger**2 / ours).sum())
    spread = float(((challenger - champion) ** 2 / ours).sum() / total)
    detectable = REACH * traffic.sigma * (spread / traffic.exam_rows) ** 0.5
    cost = float(((greedy - champion) * lists.quality).sum() / (lists.shown >= 0).sum()) * traffic.rows
    return Explored(share, effective, detectable, cost)


def _look(lists: Lists, worth: Floats, policy: Serve, share: float) -> Floats:
    """How much each candidate is looked at by a share of exploration, shape (n, K)."""
    look = np.where(lists.shown >= 0, slots.look_of(lists), 0)
    return slots.looked_at(worth, lists.there, look, policy.model_copy(update={"explore": share}))


def _disagreement(lists: Lists) -> float:
    """The share of slots in which the best lists of both differ."""
    champion, challenger = (
        np.argsort(np.where(lists.there, -worth, np.inf), axis=1, kind="stable")[:, : lists.shown.shape[1]]
        for worth in (lists.worth[0], lists.target)
    )
    return float((champion != challenger)[lists.shown[:, : champion.shape[1]] >= 0].mean())


def _shows(one: Explored, traffic: Traffic, gain: float) -> bool:
    return one.detectable <= gain and one.effective * traffic.exam_rows >= LEAST_EFFECTIVE


def _turns(one: Explored, traffic: Traffic, gain: float) -> int:
    """How many turns' exams together would show the gain."""
    rows = max((one.detectable / gain) ** 2 * traffic.exam_rows, LEAST_EFFECTIVE / one.effective)
    return int(np.ceil(rows / traffic.exam_rows))


def _enough(table: tuple[Explored, ...], traffic: Traffic, gain: float) -> float | None:
    """The smallest share that shows the gain, between those of the table on a straight line of logarithms."""
    at = next((i for i, one in enumerate(table) if _shows(one, traffic, gain)), None)
    if not at:
        return None if at is None else table[0].share
    low, high = table[at - 1], table[at]
    if low.effective * traffic.exam_rows < LEAST_EFFECTIVE or low.detectable <= high.detectable:
        return high.share
    part = np.log(low.detectable / gain) / np.log(low.detectable / high.detectable)
    return round(float(np.exp((1 - part) * np.log(low.share) + part * np.log(high.share))), 3)


def _advice(
    gain: float,
    share: float | None,
    current: Explored | None,
    soonest: Explored,
    table: tuple[Explored, ...],
    traffic: Traffic,
) -> str:
    today = (
        f"today's {current.share:.1%} shows {current.detectable:.4f}"
        if current
        else "today nothing is explored, so nothing shows"
    )
    if share is None:
        turns = _turns(soonest, traffic, gain)
        slow = f", at today's {current.share:.1%} {_turns(current, traffic, gain):,}" if current else ""
        return (
            f"no exploration shows a gain of {gain:g} a slot on an exam of {traffic.exam_rows:,} rows: it takes "
            f"{turns:,} exams at {soonest.share:.0%}{slow}"
        )
    cost = float(np.interp(share, [one.share for one in table], [one.cost for one in table]))
    if current and _shows(current, traffic, gain):
        return f"{today}, so a gain of {gain:g} a slot shows by the next turn; {share:.1%} would do"
    return (
        f"explore {share:.1%}, and a gain of {gain:g} a slot shows by the next turn, at a cost of {cost:,.1f} in "
        f"reward a turn; {today}"
    )
