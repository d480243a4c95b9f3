"""User, candidates, context and k in; a decision out: what to show, in which slots, with what probabilities.

The holdback is a sticky share of users, by a salted hash, whom the baseline serves for good. Everybody else is the
wheel's, and is served by the champion as soon as there is one.
"""

from collections.abc import Callable, Sequence

import xxhash

from flywheel.events import Candidate, Decision, Request, Shown
from flywheel.learn import features
from flywheel.learn.features import Floats, Matrix
from flywheel.sections import Serve
from flywheel.serve import exploration
from flywheel.serve.lookup import Lookup
from flywheel.serve.snapshot import Snapshot

Score = Callable[[Matrix], Floats]
WHEEL, HOLDBACK = "wheel", "holdback"


class Ranker:
    """Ranks by one snapshot, which never changes.

    Args:
        snapshot: the generation and the state it serves from.
        score: the champion's, or None while there is none; a score a row of a matrix with the snapshot's columns.
        baseline: generation 0's, for the same matrix.
        policy: the `[serve]` section.

    Raises:
        IntegrityError: the model has other columns than are made.
        ConfigError: the workspace's own functions cannot be read.
    """

    def __init__(self, snapshot: Snapshot, score: Score | None, baseline: Score, policy: Serve) -> None:
        self.snapshot, self.policy = snapshot, policy
        self._lookup = Lookup(snapshot)
        self._baseline, self._champion = baseline, score or baseline
        self._generation = snapshot.generation if score else 0

    def rank(self, request: Request, *, decision_id: str, now: int) -> Decision:
        """Decide what to show; `now` in microseconds since 1970 UTC. Of equal candidates the first counts.

        Raises:
            DataError: one of the workspace's own functions fails.
        """
        candidates = _distinct(request.candidates)
        matrix = self._lookup.matrix(request, candidates, decision_id, now)
        arm = self.arm(request.user)
        scores = (self._champion if arm == WHEEL else self._baseline)(matrix)
        worth = exploration.worth(scores, self.snapshot.config.contract.kind)
        slots = exploration.explore(decision_id, worth, request.k, self.policy)
        digests = features.digest(matrix[[slot.candidate for slot in slots]]).tolist()
        return Decision(
            id=decision_id,
            ts=now,
            user=request.user,
            generation=self._generation if arm == WHEEL else 0,
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
        """The arm of a user: the same in every process and generation."""
        share = xxhash.xxh3_64_intdigest(f"{self.policy.salt}\0{user}".encode()) / 2**64
        return HOLDBACK if share < self.policy.holdback else WHEEL


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    first: dict[str, Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.item, candidate)
    return list(first.values())
