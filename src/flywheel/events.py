"""What passes between a product, the ranker and the inbox, as values that decode strictly from JSON.

An event is one logged fact: a decision (something was shown) or an outcome (how it was received).
"""

import msgspec

Value = str | float | list[str] | None
Context = dict[str, Value]


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """An item that may be shown, with the context columns that differ from item to item."""

    item: str
    attributes: Context = {}


class Request(msgspec.Struct, frozen=True):
    """Whoever asks for a ranked list: for whom, of what, in which context, and how many of them."""

    user: str
    candidates: tuple[Candidate, ...]
    context: Context = {}
    k: int = 10


class Shown(msgspec.Struct, frozen=True, gc=False):
    """One slot of an answer, the best first.

    `propensity` is the probability that this item stood in this slot, given the slots above it; `explored`, that it
    was not the best of what remained; `features`, the XXH3 hash of the float32 features it was scored by.
    """

    item: str
    propensity: float
    explored: bool
    features: int
    attributes: Context = {}


class Decision(msgspec.Struct, frozen=True):
    """What was shown to whom, and all it takes to know why.

    `ts` is in microseconds since 1970 UTC. `generation` is 0 for the baseline. `arm` is wheel, holdback or canary.
    `state` is the window that features were looked up as of, `schema.NOTHING` before there was one, and `recipe` the
    fingerprint of how they are made. The random numbers of a decision are seeded by its id.
    """

    id: str
    ts: int
    user: str
    generation: int
    arm: str
    state: int
    recipe: str
    context: Context
    shown: tuple[Shown, ...]
    candidates: tuple[str, ...]


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How one item of a decision was received; `ts` in microseconds since 1970 UTC."""

    event_id: str
    decision_id: str
    item: str
    value: float
    ts: int


class Row(msgspec.Struct, frozen=True, gc=False):
    """A ready row, imported: its event id, its time in microseconds since 1970 UTC, and itself as one JSON object."""

    event_id: str
    ts: int
    body: bytes
