"""What people call such columns, and what to say when a name is wrong or two are right."""

import difflib
import re
from collections.abc import Iterable

from flywheel.errors import ConfigError
from flywheel.infer.columns import Column

Columns = dict[str, Column]
_ID = r"(_?(id|key|uuid|guid|hash|no|number|code))"
_PEOPLE = (
    "user|customer|student|visitor|member|account|subscriber|client|person|patient|player|learner|reader|viewer"
    "|listener|shopper|buyer|reviewer"
)
_THINGS = (
    "item|product|movie|film|article|sku|song|track|video|book|ad|offer|asin|listing|content|page|post|course"
    "|document|doc|episode|show|game|recipe|assessment|creative|banner|restaurant"
)
_HAPPENINGS = "event|created|occurred|interaction|decision|shown|served|request|start"
_DEEDS = (
    "click|clicked|watched|played|bought|purchased|converted|conversion|liked|opened|accepted|returned|passed"
    "|churned|engaged|completed|success"
)
# Each role's patterns from the most telling on: the first that any free column matches whole decides.
TIMESTAMP = (rf"ts|time|timestamp|datetime|date|at|when|({_HAPPENINGS})_?(at|ts|time|timestamp|date|datetime)",)
LABEL = (r"label|y|target", rf"((is|was|has|did)_)?({_DEEDS}|rating|stars|score|outcome|reward|response)")
USER = (r"user|user_?id|uid", rf"({_PEOPLE}){_ID}", rf"{_PEOPLE}|username")
ITEM = (r"item|item_?id|iid|sku", rf"({_THINGS}){_ID}", _THINGS)
EVENT_ID = (
    r"event_?(id|uuid|key)",
    r"id|uuid|guid|(message|msg|row|interaction|decision|record|log|delivery)_?(id|uuid|key)",
)
REQUEST = (
    r"request_?(id|uuid|key)",
    r"(session|impression|list|query|search|slate|shelf|ranking|visit|page_?view)_?(id|uuid|key)",
)
POSITION = (r"position|pos|rank|slot|display_position",)
PROPENSITY = (r"propensity|propensity_score|pscore|prob|probability|p",)
TIME = r"(^|_)(ts|at|time|timestamp|datetime|date)$"
# Anywhere in a name, before a word for time.
LABEL_TIME = (
    rf"(^|_)({_DEEDS}|label|labelled|labeled|outcome|known|feedback|response|responded|reward|result|rated|graded"
    r"|finished|ended|end|resolved|settled|paid)_(ts|at|time|timestamp|date|datetime)$"
)


def plain(name: str) -> str:
    """A column's name in lower case with underscores, however it was written.

    >>> plain("userId"), plain("Event Time")
    ('user_id', 'event_time')
    """
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")


def is_time(column: Column) -> bool:
    """Whether a column holds times; numbers are taken for times since 1970 only if they are called so."""
    named = re.search(rf"{TIME}|{LABEL_TIME}", plain(column.name)) is not None
    return column.holds_times and (named or not column.is_numeric)


def called(columns: Iterable[Column], patterns: tuple[str, ...]) -> list[Column]:
    """The columns that match the first pattern that any of them matches."""
    found = list(columns)
    each = ([c for c in found if re.fullmatch(pattern, plain(c.name))] for pattern in patterns)
    return next((chosen for chosen in each if chosen), [])


def existing(columns: Columns, name: str, flag: str) -> Column:
    """The column that an argument names.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    if name in columns:
        return columns[name]
    near = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
    raise ConfigError(
        f"there is no column {name!r}",
        where=f"--{flag} {name}",
        why=f"the columns are {listed(columns)}",
        next=f"--{flag} {near[0] if near else 'COLUMN'}",
    )


def several(columns: list[Column], flag: str, why: str) -> ConfigError:
    """The error for a role that more than one column could play."""
    names = f"{', '.join(c.name for c in columns[:-1])} and {columns[-1].name}"
    what = f"{names} could {'both' if len(columns) == 2 else 'all'} be the {flag.replace('-', ' ')}"
    return ConfigError(what, why=why, next=" or ".join(f"--{flag} {c.name}" for c in columns[:3]))


def listed(columns: Columns) -> str:
    """The columns' names, at most twelve of them."""
    names = list(columns)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
