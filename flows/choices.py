"""Decisions of the past with all that was chosen among: scored again by any generation, as of the state they had."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from flows import deciding, serving
from flows.learning import Scorer
from flywheel.data import dataset
from flywheel.events import Candidate, Context, Decision, Request
from flywheel.integrations import mlflow_registry
from flywheel.learn.features import Floats, Matrix
from flywheel.learn.matrix import Recipe
from flywheel.learn.train import Columns
from flywheel.measure.slots import Flags, Lists
from flywheel.schema import NOTHING
from flywheel.serve import exploration
from flywheel.serve.lookup import Lookup
from flywheel.sources.inbox_database import reading
from flywheel.sources.inbox_reading import made
from flywheel.workspace import Workspace

MOST = 400_000  # candidates: looking them up takes about ten seconds


@dataclass(frozen=True, eq=False)
class Choices:
    """Decisions whose outcomes are settled, with their candidates as they may be scored.

    `rewards` are the labels of a decision by item; `attributes` what an item was last shown with; `of` how many
    decisions there were, of which these are a sample. Candidates with attributes that were never shown are left out,
    for nobody knows these; `never_shown` is their share.
    """

    ws: Workspace
    decisions: tuple[Decision, ...]
    rewards: Mapping[str, Mapping[str, float]]
    attributes: Mapping[str, Context]
    of: int
    never_shown: float

    @cached_property
    def there(self) -> Flags:
        """Which candidates there are, shape (decisions, the most candidates)."""
        counts = np.array([len(decision.candidates) for decision in self.decisions])
        return np.arange(counts.max(initial=0)) < counts[:, None]

    @cached_property
    def shown(self) -> npt.NDArray[np.int64]:
        """Which candidate stood in each slot, shape (decisions, slots); -1 where there was no such slot."""
        slots = max((len(decision.shown) for decision in self.decisions), default=0)
        out = np.full((len(self.decisions), slots), -1)
        for line, decision in enumerate(self.decisions):
            out[line, : len(decision.shown)] = [decision.candidates.index(slot.item) for slot in decision.shown]
        return out

    @cached_property
    def reward(self) -> Floats:
        """What came of each slot, shape (decisions, slots); NaN where nobody knows."""
        out = np.full(self.shown.shape, np.nan)
        for line, decision in enumerate(self.decisions):
            known = self.rewards[decision.id]
            out[line, : len(decision.shown)] = [known.get(slot.item, np.nan) for slot in decision.shown]
        return out

    @cached_property
    def logged(self) -> Floats:
        """The probability that was logged with each slot, shape (decisions, slots)."""
        out = np.full(self.shown.shape, np.nan)
        for line, decision in enumerate(self.decisions):
            out[line, : len(decision.shown)] = [slot.propensity for slot in decision.shown]
        return out

    def worth(self, scores: Floats) -> Floats:
        """What the ranker compares, of scores of shape (decisions, candidates); nothing is worth 0 where none is."""
        out = np.zeros(scores.shape)
        out[self.there] = exploration.worth(scores[self.there], self.ws.config.contract.kind)
        return out

    def scores(self, scorer: Scorer) -> Floats:
        """How a generation scores candidates, shape (decisions, candidates); NaN where the state is kept no more."""
        matrix, found = self._looked_up(scorer.recipe)
        out = np.full(self.there.shape, np.nan)
        out[found[:, None] & self.there] = scorer.scores(matrix, self.ws.config.contract.kind)
        return out

    def lists(self, scorers: Sequence[Scorer], by: npt.NDArray[np.int64]) -> tuple[Lists, Flags]:
        """The decisions as lists, and which of them all these scorers can score.

        The last scorer is the one to be valued; `by` says which of the others decided.
        """
        scores = np.stack([self.scores(scorer) for scorer in scorers])
        worth = np.stack([self.worth(np.nan_to_num(one)) for one in scores])
        users = pd.factorize(np.array([decision.user for decision in self.decisions], dtype=object))[0]
        lists = Lists(
            worth=worth[:-1],
            target=worth[-1],
            quality=np.nan_to_num(scores[-1]),
            there=self.there,
            shown=self.shown,
            reward=self.reward,
            generations=by,
            users=users.astype(np.int64),
        )
        return lists, np.asarray(np.isfinite(np.where(self.there, scores, 0)).all(axis=(0, 2)))

    def _looked_up(self, recipe: Recipe) -> tuple[Matrix, Flags]:
        """The features of all candidates as of the state of each decision, by a recipe; and of which decisions."""
        self.ws.matrices(recipe).build([])  # where the cache is gone, or of another version
        states: dict[int, Lookup | None] = {}
        parts: list[Matrix] = []
        found = np.zeros(len(self.decisions), dtype=bool)
        for line, decision in enumerate(self.decisions):
            if decision.state not in states:
                states[decision.state] = _lookup(self.ws, recipe, decision.state)
            lookup = states[decision.state]
            if lookup is not None:
                found[line] = True
                parts.append(lookup.matrix(*self._asked(decision), decision.id, decision.ts))
        return np.vstack(parts) if parts else np.empty((0, len(recipe.names)), np.float32), found

    def _asked(self, decision: Decision) -> tuple[Request, tuple[Candidate, ...]]:
        here = {slot.item: slot.attributes for slot in decision.shown}
        candidates = tuple(
            Candidate(item, here.get(item) or self.attributes.get(item, {})) for item in decision.candidates
        )
        return Request(decision.user, candidates, decision.context, len(decision.shown)), candidates


def choices(ws: Workspace, windows: Sequence[str]) -> Choices:
    """The decisions of closed windows, by name, whose rows are known; of very many an even sample."""
    rewards: dict[str, dict[str, float]] = {}
    for name in windows:
        table = dataset.read_window(ws.data, name, ["request", "item", "label", "late"])
        for request, item, label, late in zip(*(column.to_pylist() for column in table.columns), strict=True):
            if label is not None and not late:
                rewards.setdefault(request, {})[item] = label
    found = [decision for decision in _made(ws, windows) if decision.id in rewards]
    step = max(1, -(-sum(len(decision.candidates) for decision in found) // MOST))
    kept = tuple(found[::step])
    attributes = _attributes(ws, kept)
    known = tuple(_known(decision, attributes) for decision in kept) if any(attributes.values()) else kept
    asked, left = (sum(len(decision.candidates) for decision in those) for those in (kept, known))
    return Choices(ws, known, rewards, attributes, len(found), 1 - left / max(asked, 1))


def scorer(ws: Workspace, number: int) -> Scorer:
    """A generation as it scores candidates; 0 is the baseline.

    Raises:
        RegistryError: there is none of that number.
    """
    if number == 0:
        return Scorer(0, ws.recipe)
    told = deciding.generation(ws, number)
    parts = mlflow_registry.load(deciding.open_store(ws), number).parts
    columns = Columns(parts.features, parts.types, dict(parts.vocabulary))
    return Scorer(number, deciding.recipe_of(ws, told), columns, parts.model)


def _made(ws: Workspace, windows: Sequence[str]) -> list[Decision]:
    grid, inbox = ws.config.windows.grid, serving.inbox(ws)
    spans = [(grid.start(w), grid.end(w)) for w in map(grid.parse, windows)]
    try:
        with reading(inbox.engine) as connection:
            return [
                decision
                for start, end in spans
                for decision in made(connection, *(round(at.timestamp()) * 1_000_000 for at in (start, end)))
            ]
    finally:
        inbox.close()


def _lookup(ws: Workspace, recipe: Recipe, state: int) -> Lookup | None:
    """What a ranker with this recipe looked up as of a state; None where that state is kept no more."""
    try:
        known = None if state == NOTHING else ws.matrices(recipe).known(state)
    except LookupError:
        return None
    return Lookup(serving.without_model(recipe, known))


def _known(decision: Decision, attributes: Mapping[str, Context]) -> Decision:
    told = {name: getattr(decision, name) for name in decision.__struct_fields__}
    return Decision(**{**told, "candidates": tuple(item for item in decision.candidates if item in attributes)})


def _attributes(ws: Workspace, decisions: Sequence[Decision]) -> dict[str, Context]:
    """What each item was last shown with, in these decisions or else in any closed window before."""
    found: dict[str, Context] = {}
    for decision in decisions:
        found.update((slot.item, slot.attributes) for slot in decision.shown)
    names = sorted({name for attributes in found.values() for name in attributes})
    missing = {item for decision in decisions for item in decision.candidates} - found.keys()
    for line in reversed(ws.ledger()):
        if not (names and missing):
            break
        rows = dataset.read_window(ws.data, line.window, ["item", *names]).to_pylist()
        for row in reversed(rows):
            if row["item"] in missing:
                found[row["item"]] = {name: row[name] for name in names if row[name] is not None}
                missing.discard(row["item"])
    return found
