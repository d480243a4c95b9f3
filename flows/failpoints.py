"""Places at which a test may kill or halt the process, to show that a rerun ends where an undisturbed run does."""

import os
import signal

TURN = (
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
)
BACKFILL = ("redo:before", "redo:mid", "redo:after", "swap:before", "swap:mid", "swap:after")  # a turn has none of them
TRIAL = (  # of a generation that waits or serves as canary: a turn by the gate alone has none of them
    "wait:before",
    "wait:after",
    "ask:after",
    "answer:after",
    "canary:before",
    "canary:mid",
    "canary:after",
    "judge:after",
)
HARM = ("harm:after",)  # of a champion that is taken back
NAMES = (*TURN, *BACKFILL, *TRIAL, *HARM)


def failpoint(name: str) -> None:
    """Die here, as `kill -9` would have it, if `FLYWHEEL_FAILPOINT` names this place; `<name> halt` stops it.

    It stops once, and goes on when it gets SIGCONT.
    """
    assert name in NAMES
    place, _, halt = os.environ.get("FLYWHEEL_FAILPOINT", "").partition(" ")
    if place == name and halt:
        del os.environ["FLYWHEEL_FAILPOINT"]
        os.kill(os.getpid(), signal.SIGSTOP)
    elif place == name:
        os._exit(137)
