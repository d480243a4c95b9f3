"""User, candidates, context and k in; a decision out: what to show, in which slots, with what probabilities.

The holdback is a sticky share of users, by a salted hash, whom the baseline serves for good. Everybody else is the
wheel's, and is served by the champion as soon as there is one; but for a share of them, which a canary may serve for a
while. Who that is depends on its generation too: it is not always the same people who try what is new.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import xxhash

from flywheel.errors import DataError
from flywheel.events import Candidate, Decision, Request, Shown
from flywheel.learn import features
from flywheel.learn.features import Floats, Matrix
from flywheel.sections import Serve
from flywheel.serve import exploration
from flywheel.serve.lookup import Lookup
from flywheel.serve.snapshot import Snapshot

Score = Callable[[Matrix], Floats]
WHEEL, HOLDBACK, CANARY = "wheel", "holdback", "canary"


@dataclass(frozen=True, eq=False)
class Canary:
    """Who serves a share of the wheel's users in the champion's place; its ranker has no canary of its own."""

    ranker: "Ranker"
    share: float


class Ranker:
    """Ranks by one snapshot, which never changes.

    Args:
        snapshot: the generation and the state it serves from.
        score: the champion's, or None while there is none; a score a row of a matrix with the snapshot's columns.
        baseline: generation 0's, for the same matrix.
        policy: the `[serve]` section.
        canary: who serves a share of the wheel's users instead.

    Raises:
        IntegrityError: the model has other columns than are made.
        ConfigError: the workspace's own functions cannot be read.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        score: Score | None,
        baseline: Score,
        policy: Serve,
        canary: Canary | None = None,
    ) -> None:
        self.snapshot, self.policy, self.canary = snapshot, policy, canary
        self._lookup = Lookup(snapshot)
        self._baseline, self._champion = baseline, score or baseline
        self._generation = snapshot.generation if score else 0

    def rank(self, request: Request, *, decision_id: str, now: int) -> Decision:
        """Decide what to show; `now` in microseconds since 1970 UTC. Of equal candidates the first counts.

        Raises:
            DataError: one of the workspace's own functions fails.
        """
        arm = self.arm(request.user)
        if self.canary and arm == CANARY:
            try:
                return self.canary.ranker._decide(request, arm, decision_id=decision_id, now=now)
            except DataError:  # of functions of its own: whoever tries it is answered all the same
                arm = WHEEL
        return self._decide(request, arm, decision_id=decision_id, now=now)

    def _decide(self, request: Request, arm: str, *, decision_id: str, now: int) -> Decision:
        candidates = _distinct(request.candidates)
        matrix = self._lookup.matrix(request, candidates, decision_id, now)
        scores = (self._baseline if arm == HOLDBACK else self._champion)(matrix)
        worth = exploration.worth(scores, self.snapshot.config.contract.kind)
        slots = exploration.explore(decision_id, worth, request.k, self.policy)
        digests = features.digest(matrix[[slot.candidate for slot in slots]]).tolist()
        return Decision(
            id=decision_id,
            ts=now,
            user=request.user,
            generation=0 if arm == HOLDBACK else self._generation,
            arm=arm,
            state=self.snapshot.state,
            recipe=self.snapshot.recipe,
            context=request.context,
            shown=tuple(
                Shown(shown.item, slot.propensity, slot.explored, digest, shown.attributes)
                for slot, digest in zip(slots, digests, strict=True)
                for shown in (candidates[slot.candidate],)
            ),
            candidates=tuple(candidate.item for candidate in candidates),
        )

    def scores(self, request: Request) -> list[float]:
        """The champion's score of each candidate, in order; nothing is decided.

        Raises:
            DataError: one of the workspace's own functions fails.
        """
        scores: list[float] = self._champion(self._lookup.matrix(request, request.candidates, None, None)).tolist()
        return scores

    def arm(self, user: str) -> str:
        """The arm of a user: the same in every process, and for as long as the same canary serves."""
        if _hashed(self.policy.salt, user) < self.policy.holdback:
            return HOLDBACK
        tried = self.canary
        if tried and _hashed(f"{self.policy.salt}\0canary {tried.ranker.snapshot.generation}", user) < tried.share:
            return CANARY
        return WHEEL


def _hashed(salt: str, user: str) -> float:
    """Where a user falls in [0, 1)."""
    return xxhash.xxh3_64_intdigest(f"{salt}\0{user}".encode()) / 2**64


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    first: dict[str, Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.item, candidate)
    return list(first.values())
