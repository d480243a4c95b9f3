"""Places at which a test may kill the process, to show that a rerun ends where an undisturbed run does."""

import os

BACKFILL = ("redo:before", "redo:mid", "redo:after", "swap:before", "swap:mid", "swap:after")  # a turn has none of them
NAMES = (
    "take:before",
    "take:mid",
    "take:after",
    "close:before",
    "close:mid",
    "close:after",
    "version:before",
    "version:after",
    "features:mid",
    "features:after",
    "fit:mid",
    "fit:after",
    "record:before",
    "record:mid",
    "register:before",
    "record:after",
    "promote:before",
    "promote:mid",
    "promote:after",
    *BACKFILL,
)


def failpoint(name: str) -> None:
    """Die here, as `kill -9` would have it, if `FLYWHEEL_FAILPOINT` names this place."""
    assert name in NAMES
    if os.environ.get("FLYWHEEL_FAILPOINT") == name:
        os._exit(137)
