"""What is left when the roles are given out: context, what is known only afterwards, what is of no use."""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flywheel.infer.columns import MAX_NAMES, Column
from flywheel.infer.label import Label
from flywheel.infer.names import Columns, existing, is_time, plain
from flywheel.infer.roles import Found, Given, Role, find_roles
from flywheel.sections import ROLES

RESERVED = {*ROLES, "source", "row"}  # fixed names of schema.event_schema
TOO_GOOD = 0.98  # an AUC that a column known beforehand does not reach alone
AFTERWARDS = (
    r"(^|_)(outcome|result|results|final|feedback|refund|refunded)(_|$)|_(after|afterwards)$"
    r"|(^|_)(watch|watched|play|played|listen|listened|view|viewed|dwell|read)"
    r"_(time|duration|minutes|seconds|secs|ms|pct|percent|share|ratio)$"
    r"|(^|_)(minutes|seconds|time|duration|percent|pct|share)_(watched|played|listened|viewed|read|spent)$"
    r"|(^|_)dwell(_|$)|^(completion|watchtime)$"
)
MAYBE_AFTERWARDS = r"(^|_)(score|grade|mark|rating|stars|reward|revenue|amount|duration|completion_rate)$"


@dataclass(frozen=True)
class Reading:
    """A sample as it is understood: who plays which role, the label, and what the other columns are."""

    found: Found
    label: Label
    rest: tuple[tuple[Column, Role], ...]

    def get(self, role: str) -> Column | None:
        """The column that plays a role, if one does."""
        return self.found[role][0] if role in self.found else None

    def of(self, role: str) -> list[tuple[Column, Role]]:
        """The other columns that are `context`, `outcome` or `left out`."""
        return [(column, taken) for column, taken in self.rest if taken.role == role]


def read(columns: Columns, given: Given) -> Reading:
    """Understand every column.

    Raises:
        ConfigError: as `find_roles`.
    """
    declared = tuple(existing(columns, name, "outcome").name for name in given.get("outcomes", ()))
    found, label = find_roles(columns, given)
    playing = {column.name for column, _ in found.values()}
    item = found["item"][0] if "item" in found else None
    others = [column for column in columns.values() if column.name not in playing]
    return Reading(found, label, tuple((column, sort_out(column, label, item, declared)) for column in others))


def sort_out(column: Column, label: Label, item: Column | None, declared: tuple[str, ...]) -> Role:
    """The role of a column that plays none of the contract's: `context`, `outcome` or `left out`, and why."""
    name = column.name
    if name in RESERVED:
        return Role(name, "left out", "", "Flywheel stores another thing under this name; rename it to use it")
    if name in declared:
        return Role(name, "outcome", "text", "you said so")
    useless = _useless(column)
    if useless:
        return Role(name, "left out", "", useless)
    suspicion = _suspicion(column, label, item)
    if suspicion:
        return Role(name, "outcome", "text", suspicion)
    return _context(column)


def _useless(column: Column) -> str:
    if column.filled.empty:
        return "empty"
    if column.distinct == 1 and len(column.filled) == len(column.texts):
        return f"always {column.filled.iloc[0][:40]!r}"
    if is_time(column):
        return "a time; features come from the timestamp's own history"
    return ""


def _context(column: Column) -> Role:
    name, identity = column.name, re.search(r"(^|_)(id|uuid|key|code|hash|zip|postcode)$", plain(column.name))
    if column.is_numeric and not identity:
        return Role(name, "context", "number", "numbers")
    sign = column.separator
    if sign is not None:
        count = column.parts(sign).nunique()
        if count <= MAX_NAMES:
            how = "lists" if column.is_list else f"often several, parted by {sign!r}"
            return Role(name, "context", f"list {sign}", f"{count} names, {how}")
    share = column.distinct / len(column.filled)
    if (column.distinct <= MAX_NAMES and share <= 0.9) or share <= 0.5:
        many = f"; the first {MAX_NAMES} are kept" if column.distinct > MAX_NAMES else ""
        return Role(name, "context", "name", f"{column.distinct} names that come back{many}")
    return Role(name, "left out", "", f"nearly every value is another: {column.distinct} in {len(column.filled)} rows")


def _suspicion(column: Column, label: Label, item: Column | None) -> str:
    """Why a column can only be known afterwards, or nothing."""
    name = plain(column.name)
    if re.search(AFTERWARDS, name):
        return "by its name known only afterwards"
    alone, how = predicts(column, label)
    if alone > TOO_GOOD:
        return f"{how} alone tells the label ({_measure(label)} {alone:.2f}): likely known only afterwards"
    if re.search(MAYBE_AFTERWARDS, name) and alone > 0.9:
        return f"by its name and what it tells ({_measure(label)} {alone:.2f}) known only afterwards"
    if re.search(r"(^|_)duration$", name) and not _belongs_to(column, item):
        return "how long it lasted, which is known only afterwards"
    return ""


def _measure(label: Label) -> str:
    return "AUC" if label.kind == "binary" else "rank correlation"


def predicts(column: Column, label: Label) -> tuple[float, str]:
    """How well a column alone tells the label, and what of it does: AUC, or rank correlation for numbers.

    Names are told apart by their mean label, where they have ten rows each on average; 0 where there is too
    little to say.
    """
    best = [(_strength(column.texts.notna().astype("float64"), label), "whether it is there")]
    if column.is_numeric:
        best.append((_strength(column.numbers, label), "it"))
    elif column.distinct * 10 <= len(column.filled):
        means = label.values.groupby(column.texts).mean()
        best.append((_strength(column.texts.map(means).astype("float64"), label), "it"))
    return max(best)


def _strength(values: "pd.Series[float]", label: Label) -> float:
    known = values.notna() & label.values.notna()
    x, y = values[known].rank().to_numpy(), label.values[known].to_numpy()
    if len(x) < 40 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    if label.kind == "number":
        return float(abs(np.corrcoef(x, pd.Series(y).rank().to_numpy())[0, 1]))
    ones, zeros = int(y.sum()), int((1 - y).sum())
    if min(ones, zeros) < 20:
        return 0.0
    auc = (x[y == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros)
    return float(max(auc, 1 - auc))


def _belongs_to(column: Column, item: Column | None) -> bool:
    return item is not None and not varies_within(column, item)


def varies_within(column: Column, key: Column, share: float = 0.1) -> bool:
    """Whether at least this share of the keys with several rows have more than one value."""
    values = column.texts.groupby(key.texts).agg(["size", "nunique"])
    several = values[values["size"] > 1]
    return len(several) > 0 and float((several["nunique"] > 1).mean()) >= share
