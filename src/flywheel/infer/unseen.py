"""A config for a product that has no log yet: it serves from its first minute, and its answers become its rows."""

from collections.abc import Sequence
from typing import Any

from flywheel.config import Config, parse

ROLES = {
    "timestamp": "ts",
    "label": "label",
    "user": "user",
    "item": "item",
    "request": "request",
    "event_id": "event_id",
    "label_time": "label_ts",
    "position": "position",
    "propensity": "propensity",
}


def unseen(
    *, name: str, numeric: Sequence[str] = (), categorical: Sequence[str] = (), lists: Sequence[str] = ()
) -> Config:
    """Daily windows, a day to answer in, silence read as 0, and counters for users, items and every name.

    Raises:
        ConfigError: a name is given twice, or is that of a role.
    """
    half_lives = ["7d", "forever"]
    crossed = [{"key": [role, column], "backoff": role} for column in lists for role in ("user",)]
    crossed += [{"key": [role, column], "backoff": role} for column in categorical for role in ("user", "item")]
    keys: list[dict[str, Any]] = [{"key": ["user"]}, {"key": ["item"]}, *crossed]
    keys += [{"key": [column]} for column in (*lists, *categorical)]
    return parse(
        {
            "product": {"name": name},
            "contract": ROLES
            | {"numeric": tuple(numeric), "categorical": tuple(categorical), "lists": dict.fromkeys(lists, "|")},
            "windows": {"every": "1d", "attribution": "1d", "silence": 0},
            "features": {"counters": [key | {"half_lives": half_lives} for key in keys]},
            "exam": {"windows": 2, "rows": 2000},
            "serve": {},
        },
        where="what flywheel init proposes",
    )
