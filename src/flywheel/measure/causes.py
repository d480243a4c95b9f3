"""Why one generation is better than another: Shapley values over what differs between them.

The causes are an exam on a later time, rows up to a later time ("fresher"), more rows, and another recipe. A cell is
the set of causes that are as in the newer generation; its value is the quality of a model trained and examined so. A
cause's part is what it adds to a cell, averaged over every order in which causes can come. A model is never examined
on a time before its data ends, so fresher data cannot come before the newer exam: such orders are left out (Shapley
values under precedence: Faigle and Kern 1992). The parts sum to the value of all causes less that of none.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations

import numpy as np
from numpy.typing import ArrayLike

from flywheel.measure.contrasts import Key, Weights

EXAM, FRESHER, MORE, RECIPE = "exam", "fresher data", "more data", "recipe"
Cell = frozenset[str]


def orders(causes: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Every order in which causes can come.

    >>> sorted(orders([EXAM, FRESHER]))
    [('exam', 'fresher data')]
    """
    for order in permutations(causes):
        if not {EXAM, FRESHER} <= set(order) or order.index(EXAM) < order.index(FRESHER):
            yield order


def cells(causes: Sequence[str]) -> list[Cell]:
    """Every cell that some order passes, from none of the causes to all of them.

    >>> [sorted(cell) for cell in cells([EXAM, FRESHER])]
    [[], ['exam'], ['exam', 'fresher data']]
    """
    found = {frozenset(order[:k]) for order in orders(causes) for k in range(len(order) + 1)}
    return sorted(found, key=lambda cell: (len(cell), sorted(cell)))


def parts(causes: Sequence[str]) -> dict[str, dict[Cell, float]]:
    """For each cause the weights of the cells in its part.

    >>> parts([EXAM])
    {'exam': {frozenset({'exam'}): 1.0, frozenset(): -1.0}}
    """
    every = list(orders(causes))
    found: dict[str, dict[Cell, float]] = {cause: {} for cause in causes}
    for order in every:
        for place, cause in enumerate(order):
            for cell, sign in ((frozenset(order[: place + 1]), 1), (frozenset(order[:place]), -1)):
                found[cause][cell] = found[cause].get(cell, 0.0) + sign / len(every)
    return found


def interactions(causes: Sequence[str]) -> dict[tuple[str, str], dict[Cell, float]]:
    """For each pair of causes what both add beyond each alone, averaged over the cells in which that can be seen."""
    known = set(cells(causes))
    found = {}
    for one, other in combinations(causes, 2):
        signs = [(frozenset({one, other}), 1), (frozenset({one}), -1), (frozenset({other}), -1), (frozenset(), 1)]
        without = [cell for cell in known if not cell & {one, other} and all(cell | pair in known for pair, _ in signs)]
        weights: dict[Cell, float] = {}
        for cell in without:
            for pair, sign in signs:
                weights[cell | pair] = weights.get(cell | pair, 0.0) + sign / len(without)
        if weights:
            found[one, other] = weights
    return found


def mixed(weights: Mapping[Cell, float], values: Mapping[Cell, Weights]) -> dict[Key, float]:
    """A weighted sum of cells as one of results, where each cell's value is itself a weighted sum of results."""
    total: dict[Key, float] = {}
    for cell, weight in weights.items():
        for key, share in values[cell].items():
            total[key] = total.get(key, 0.0) + weight * share
    return total


def extrapolated(sizes: ArrayLike, target: float) -> list[float]:
    """The weights by which what was seen at some sizes says what to expect at another: a line over the logarithm.

    >>> [round(w, 2) for w in extrapolated([1, 2, 4], 8)]
    [-0.67, 0.33, 1.33]
    """
    x = np.log(np.asarray(sizes, dtype=np.float64))
    off = x - x.mean()
    if not off.any():  # one size tells nothing of a trend
        return [1 / len(x)] * len(x)
    return [float(w) for w in 1 / len(x) + (np.log(target) - x.mean()) * off / (off @ off)]
