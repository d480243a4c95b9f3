import math
from collections import Counter
from itertools import pairwise, permutations

import numpy as np
import pytest
from scipy.stats import chisquare

from flywheel.events import Decision, Shown
from flywheel.sections import Serve
from flywheel.serve.exploration import explore, replay, worth

POLICY = Serve(explore=0.4, top=2, temperature=0.5, floor=0.2)
CASES = [  # worth, policy
    ([0.3, 0.1, 0.2, -0.4], POLICY),
    ([0.0, 0.0, 0.0, 0.0], POLICY),
    ([0.2, 0.2, 0.1, 0.1], POLICY),
    ([0.5, 0.1, 0.1, 0.1], POLICY),
    ([0.5, 0.1, 0.1, 0.1], Serve(explore=1.0, top=3, temperature=0.05, floor=1.0)),
    ([900.0, -900.0, 0.0, -900.0], Serve(explore=0.5, top=3, temperature=1e-3, floor=0.1)),
    ([1.0, 2.0, 2.0, 3.0], Serve(explore=0.0)),
]


def distribution(values: list[float], policy: Serve) -> dict[tuple[int, ...], float]:
    """The probability of every full list, by the definition: over every order of equals and every branch."""
    orders = {}
    for order in permutations(range(len(values))):  # an even one for those that are equal
        if all(values[a] >= values[b] for a, b in pairwise(order)):
            orders[order] = 1.0
    found: Counter[tuple[int, ...]] = Counter()

    def go_on(rest: tuple[int, ...], shown: tuple[int, ...], chance: float) -> None:
        if not rest:
            found[shown] += chance
            return
        last = values[rest[min(policy.top, len(rest)) - 1]]
        among = [i for i in rest if values[i] >= last]
        top = max(values[i] for i in among)
        weights = {i: math.exp((values[i] - top) / policy.temperature) for i in among}
        for i in rest:
            drawn = weights.get(i, 0.0) / sum(weights.values())
            branches = [
                (1 - policy.explore) * (i == rest[0]),
                policy.explore * (1 - policy.floor) * drawn,
                policy.explore * policy.floor / len(rest),
            ]
            go_on(tuple(j for j in rest if j != i), (*shown, i), chance * sum(branches))

    for order in orders:
        go_on(order, (), 1 / len(orders))
    return found


@pytest.mark.parametrize(("values", "policy"), CASES)
def test_propensities_are_the_exact_probabilities_given_the_slots_above(values, policy):
    truth = distribution(values, policy)
    assert math.isclose(sum(truth.values()), 1)

    def of(prefix):
        return sum(chance for shown, chance in truth.items() if shown[: len(prefix)] == prefix)

    seen = set()
    for n in range(400):
        above = ()
        for slot in explore(str(n), values, len(values), policy):
            shown = (*above, slot.candidate)
            assert math.isclose(slot.propensity, of(shown) / of(above), rel_tol=1e-9)
            rest = [values[i] for i in range(len(values)) if i not in above]
            assert slot.explored == (values[slot.candidate] < max(rest))
            seen.add((above, shown, slot.propensity))
            above = shown
    sums = Counter()
    for above, _, propensity in seen:
        sums[above] += propensity
    complete = [above for above in sums if len({s for a, s, _ in seen if a == above}) == len(values) - len(above)]
    assert all(math.isclose(sums[above], 1, rel_tol=1e-9) for above in complete)
    assert complete


@pytest.mark.parametrize(("values", "policy"), CASES[:5])
def test_lists_come_as_often_as_they_should(values, policy):
    truth = distribution(values, policy)
    drawn = 6000
    counts = Counter(tuple(slot.candidate for slot in explore(f"d{n}", values, 4, policy)) for n in range(drawn))
    assert set(counts) <= {shown for shown, chance in truth.items() if chance > 0}
    expected = {shown: drawn * chance for shown, chance in truth.items() if chance > 0}
    rare = {shown for shown, n in expected.items() if n < 5}
    pooled = [[sum(of[s] for s in rare)] if rare else [] for of in (counts, expected)]
    common = [s for s in expected if s not in rare]
    assert chisquare([counts[s] for s in common] + pooled[0], [expected[s] for s in common] + pooled[1]).pvalue > 1e-3


def test_equals_are_shown_evenly_and_their_propensity_says_so():
    exploit = Serve(explore=0.0)
    first = Counter()
    for n in range(3000):
        slots = explore(f"d{n}", [0.5] * 6, 6, exploit)
        np.testing.assert_allclose([s.propensity for s in slots], [1 / left for left in range(6, 0, -1)])
        assert not any(s.explored for s in slots)
        first[slots[0].candidate] += 1
    assert chisquare(list(first.values())).pvalue > 1e-3


def test_whoever_explores_may_show_anything_anywhere():
    for n in range(50):
        slots = explore(str(n), [float(i) for i in range(40)], 40, Serve(explore=0.05, floor=0.1))
        assert min(s.propensity for s in slots) >= 0.05 * 0.1 / 40
        assert sorted(s.candidate for s in slots) == list(range(40))


def test_without_exploration_the_best_come_first():
    slots = explore("d", [0.1, 0.9, -3.0, 0.5], 3, Serve(explore=0.0))
    assert [s.candidate for s in slots] == [1, 3, 0]
    assert [s.propensity for s in slots] == [1.0, 1.0, 1.0]


def test_a_longer_list_begins_with_the_shorter_one():
    values = list(np.random.default_rng(0).normal(size=30))
    assert explore("d", values, 30, POLICY)[:5] == explore("d", values, 5, POLICY)
    assert explore("d", values, 99, POLICY) == explore("d", values, 30, POLICY)
    assert explore("d", [], 5, POLICY) == []


def test_a_decision_can_be_replayed():
    scores = np.random.default_rng(0).uniform(size=30)
    slots = explore("d7", worth(scores, "binary"), 10, POLICY)
    shown = tuple(Shown(f"i{s.candidate}", s.propensity, s.explored, 0) for s in slots)
    decision = Decision("d7", 0, "u", 1, "wheel", 0, "r", {}, shown, tuple(f"i{n}" for n in range(30)))
    assert replay(decision, scores, "binary", POLICY) == tuple((s.item, s.propensity, s.explored) for s in shown)
    assert replay(decision, scores[::-1], "binary", POLICY) != tuple((s.item, s.propensity, s.explored) for s in shown)


def test_worth_is_in_log_odds_of_a_probability_and_in_its_own_unit_of_a_number():
    np.testing.assert_allclose(worth(np.array([0.2, 0.5, 0.8]), "binary"), [-math.log(4), 0, math.log(4)])
    assert np.isfinite(worth(np.array([0.0, 1.0]), "binary")).all()
    assert worth(np.array([-3.5, 7.0]), "number") == [-3.5, 7.0]


def test_the_numbers_of_a_decision_never_change():
    """What was logged can be replayed by later versions of this code only if they fill the slots as this one did."""
    policy = Serve(explore=0.5, top=2, temperature=0.3, floor=0.2)
    made = [explore(f"decision-{n}", [0.1, 0.2, 0.2, 0.4], 4, policy) for n in range(4)]
    assert [[s.candidate for s in slots] for slots in made] == [[3, 0, 2, 1], [3, 1, 2, 0], [3, 1, 0, 2], [2, 3, 1, 0]]
