"""What a generation would have earned in the place of those that served, from the decisions of its exam."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from flows import choices as chosen
from flows import deciding, evidence, serving
from flows.choices import Choices
from flows.learning import Scorer, exam_rows, names
from flywheel.errors import ConfigError, DataError
from flywheel.evidence import Estimate, OffPolicy
from flywheel.learn.features import Floats
from flywheel.learn.plan import plan
from flywheel.measure import offpolicy, slots
from flywheel.measure.slots import Flags, Lists
from flywheel.records import Finding
from flywheel.workspace import Workspace

SAME = 0.05  # by which share a probability may differ from the logged one: a few candidates are left out
NO_CANDIDATES = (
    "an imported log says with which probability each row was shown, and not what else might have been: what another "
    "policy would have shown is not known"
)


def value(ws: Workspace, number: int) -> OffPolicy:
    """The value of a generation from the newest exam, whose rows it was not fitted on; kept as evidence.

    Raises:
        RegistryError: there is no such generation.
        ConfigError: nothing says with which probability anything was shown.
        DataError: the newest exam has windows that the generation was fitted on, or no decision.
    """
    made = deciding.generation(ws, number)
    windows = plan(ws.ledger(), ws.config, datetime.now(UTC)).exam
    grid = ws.config.windows.grid
    if grid.closes_at(grid.parse(made.trained_windows[1])) > grid.start(grid.parse(windows[0])):
        why = f"it was fitted on windows up to {made.trained_windows[1]}, and the newest exam begins with {windows[0]}"
        raise DataError(f"generation {number} cannot be valued", why=why, next="flywheel turn, and then again")
    found = of(ws, chosen.scorer(ws, number), windows, f"generation {number}")
    evidence.keep(ws, found)
    return found


def finding(ws: Workspace, challenger: Scorer, windows: Sequence[str]) -> Finding | None:
    """What the gate is told of a challenger's value in its exam; None where no propensities are logged."""
    if ws.config.serve is None and ws.config.contract.propensity is None:
        return None
    try:
        return offpolicy.finding(of(ws, challenger, windows, "the challenger"), ws.config.gate)
    except DataError as error:
        detail = f"{offpolicy.OFF_POLICY}: {error.what}"
        return Finding(offpolicy.OFF_POLICY, "not enough evidence", np.nan, np.nan, 0, detail)


def of(ws: Workspace, scorer: Scorer, windows: Sequence[str], policy: str) -> OffPolicy:
    """What a model would have earned in closed windows that it was not fitted on.

    It would have been served as the log was: by the same exploration, from the same states.

    Raises:
        ConfigError: nothing says with which probability anything was shown.
        DataError: no decision of these windows can be told again.
    """
    if ws.config.serve is None:
        return _imported(ws, windows, policy)
    choices = chosen.choices(ws, windows)
    if not choices.decisions:
        raise DataError("no decision of these windows is kept", where=f"windows {windows[0]} to {windows[-1]}")
    lists, generations, told = replayed(ws, choices, scorer)
    if not lists.known.any():
        raise DataError("no decision of these windows can be told again", why=told[0], next="flywheel turn")
    found = offpolicy.value(slots.log_of(lists, ws.config.serve), policy)
    shares = np.bincount(lists.generations, minlength=len(generations)) / len(lists.generations)
    mixed = ", ".join(f"{_named(g)} {share:.0%}" for g, share in zip(generations, shares, strict=True) if share)
    says = (
        *found.says,
        f"from {lists.known.sum():,} slots of {len(lists.users):,} decisions in {_span(windows)}, logged by {mixed}",
        *told,
        "an item is taken to earn in each slot in proportion to how much is seen there, whatever stands beside it",
    )
    return replace(found, says=says)


def replayed(ws: Workspace, choices: Choices, scorer: Scorer) -> tuple[Lists, list[int], tuple[str, ...]]:
    """Decisions whose logged probabilities come out again when they are made again; who logged them; what to know."""
    how = serving.policy(ws.config)
    by = np.array([decision.generation for decision in choices.decisions])
    generations = sorted(set(by.tolist()))
    scorers = [*(chosen.scorer(ws, generation) for generation in generations), scorer]
    lists, kept = choices.lists(scorers, np.searchsorted(generations, by))
    same = np.zeros(len(by), dtype=bool)
    for n in range(len(generations)):
        theirs = lists.generations == n
        part = lists.take(theirs)
        same[theirs] = _same(slots.followed(part.worth[n], part.there, part.shown, how), choices.logged[theirs])
    return lists.take(kept & same), generations, tuple(_told(choices, kept, same))


def _same(told: Floats, logged: Floats) -> Flags:
    return np.asarray((np.isnan(logged) | (np.abs(told - logged) <= SAME * logged)).all(axis=1))


def _told(choices: Choices, kept: Flags, same: Flags) -> list[str]:
    """What was left out, and what was taken for something that it may not have been."""
    out = []
    if len(choices.decisions) < choices.of:
        out.append(f"an even sample of {len(choices.decisions):,} of {choices.of:,} decisions")
    if not kept.all():
        out.append(f"left out: {(~kept).mean():.1%} of decisions, whose state is kept no more")
    if not same[kept].all():
        why = f"whose logged probabilities do not come out again, within {SAME:.0%}, when they are made again"
        out.append(f"left out: {(~same[kept]).mean():.1%} of decisions, {why}")
    if any(choices.attributes.values()):
        never = f"; {choices.never_shown:.1%} never were, and are left out" if choices.never_shown else ""
        out.append(f"attributes of candidates that were not shown are those with which they last were{never}")
    return out


def _imported(ws: Workspace, windows: Sequence[str], policy: str) -> OffPolicy:
    if ws.config.contract.propensity is None:
        raise ConfigError(
            "nothing says with which probability anything was shown",
            why="flywheel.toml has neither [serve] nor contract.propensity",
            next="let Flywheel answer people (flywheel init --serve), and explore",
        )
    frame = pd.concat([exam_rows(ws, name) for name in windows], ignore_index=True)
    users = names(frame, "user")
    codes = np.arange(len(frame)) if users is None else pd.factorize(users, use_na_sentinel=False)[0].astype(np.int64)
    logged = offpolicy.interval(frame["label"].to_numpy(), codes)
    return OffPolicy(
        policy=policy,
        rows=len(frame),
        logged=logged,
        values=(),
        gain=None,
        model_alone=0.0,
        effective=0.0,
        largest_weight=0.0,
        unsupported=1.0,
        mean_weight=Estimate(0.0, 0.0, 0.0),
        refused=NO_CANDIDATES,
        says=(f"nobody can tell what {policy} would have earned: {NO_CANDIDATES}",),
    )


def _named(generation: int) -> str:
    return f"generation {generation}" if generation else "the baseline"


def _span(windows: Sequence[str]) -> str:
    return f"window {windows[0]}" if len(windows) == 1 else f"windows {windows[0]} to {windows[-1]}"
