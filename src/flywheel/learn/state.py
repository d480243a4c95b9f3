"""Counters carried through the windows: one pass folds them and looks features up as of the right window.

A block is any run of consecutive windows: one, when a turn closes one more; all of history, when it is built for
the first time. Within a block keys have dense codes and counters live in plain arrays; between blocks they live in
`Segments`. Both give the same bits, for the arithmetic per key is the same.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from flywheel.learn import coding, features
from flywheel.learn.block import Block, Counters, Spread, Vocabularies, code, some_row
from flywheel.learn.coding import Coded, Codes, Places
from flywheel.learn.features import Matrix, Spec, States
from flywheel.segments import Entries, Keys, Segments

VOCABULARY = "vocabulary"
THREAD_ROWS = 50_000  # of a window; in a smaller one threads wait for each other longer than they help
Appearing = tuple[Keys, Callable[[], Keys]]
Made = Any  # of what `walk` is told to look up


def key_columns(spec: Spec) -> list[str]:
    """The columns of a window that folding and looking up need, label and lateness included."""
    keys = dict.fromkeys(c for counter in spec.counters for c in counter.key)
    return list(dict.fromkeys([*keys, *spec.config.numeric, *spec.config.categorical, "label", "late"]))


def advance(
    store: Segments, spec: Spec, windows: Mapping[int, pa.Table], asked: Mapping[int, int | States]
) -> Iterator[tuple[int, Matrix]]:
    """Fold every window newer than the store, and look up the features of the windows asked for.

    Args:
        store: the counters so far; they are moved to the newest of `windows` once the iterator is exhausted.
        spec: what to count.
        windows: consecutive windows by index, from `store.newest + 1` or, where older ones are asked for, before.
        asked: window → the state window that its rows were served from, one for all or one each, as `served_from` says.

    Yields:
        Window and matrix, float32 of shape (rows, len(spec.names)), in the order in which the last state is reached.
    """
    order = sorted(windows)
    tables = [windows[w] for w in order]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        columns, coded = code(spec, tables, pool.map)
        numbers = vocabularies(spec, store, order, [appearing(spec, columns, i, t) for i, t in enumerate(tables)])
        counters = dense(store, spec, order, coded, pool.map)
        block = Block(spec, store, order, tables, counters, columns, numbers)
        yield from walk(
            block,
            {window: np.unique(states).tolist() for window, states in asked.items()},
            fold=lambda at: block.fold(at, _spread(pool, windows[at])),
            look=lambda window, at: block.part(window, at, asked[window], _spread(pool, windows[window])),
        )


def walk(
    block: Block,
    asked: Mapping[int, Sequence[int]],
    *,
    fold: Callable[[int], None],
    look: Callable[[int, int], Iterable[Made]],
) -> Iterator[Made]:
    """Have the counters of a block folded window by window, and then keep them in its store.

    Args:
        block: the windows with their counters.
        asked: window → the states that its rows were served from.
        fold: moves the counters past a window.
        look: is given a window and a state, in the order of states, while the counters are as of that state.

    Yields:
        What `look` made.
    """
    store, order = block.store, block.order
    assert store is not None
    start = order[0] - 1 if store.newest is None else store.newest
    waiting = sorted((int(at), window) for window, states in asked.items() for at in states)
    snapshots: list[tuple[int, dict[str, Entries]]] = []
    for at in range(start, order[-1] + 1):
        if at > start:
            fold(at)
            if at >= order[-1] - store.keep:
                snapshots.append((at, {features.table(i): c.snapshot() for i, c in enumerate(block.counters)}))
        while waiting and waiting[0][0] <= at:
            known, window = waiting.pop(0)
            yield from look(window, known)
    if snapshots:
        store.put(snapshots, {VOCABULARY: block.vocabularies, "first": store.notes.get("first", order[0])})


def _spread(pool: ThreadPoolExecutor, window: pa.Table) -> Spread:
    """In threads, where a window is large enough for them."""
    return pool.map if len(window) >= THREAD_ROWS else map


def dense(store: Segments, spec: Spec, order: list[int], coded: list[Coded], spread: Spread) -> list[Counters]:
    """The counters of a block's keys, as the store has them."""
    span = order[-1] - int(store.notes.get("first", order[0])) + 1
    return list(spread(lambda i: _dense(store, spec, i, coded[i], span), range(len(coded))))


def _dense(store: Segments, spec: Spec, counter: int, coded: Coded, span: int) -> Counters:
    """The counters of a block's keys as the store has them."""
    if store.newest is None:
        entries = np.zeros(len(coded.hashes), dtype=store.tables[features.table(counter)])
        known = np.zeros(len(entries), dtype=bool)
    else:
        known, entries = store.get(features.table(counter), coded.hashes, store.newest)
    entries["key"] = coded.hashes
    return Counters(coded, spec.decay(counter, span), entries, known, np.zeros(len(entries), dtype=bool))


def appearing(spec: Spec, columns: Mapping[str, Coded], position: int, table: pa.Table) -> dict[str, Appearing]:
    """Per categorical column the names of a window that were known at its close, as hashes, in no order.

    And what puts them into the order in which rows bring them.
    """
    then = coding.known(table)

    def find(coded: Coded) -> Appearing:
        places = coded.windows[position] if then is None else coding.those(coded.windows[position], then)
        return coded.hashes[places.distinct], lambda: coded.hashes[_in_order_of_appearance(places)]

    return {name: find(columns[name]) for name in spec.config.categorical}


def vocabularies(
    spec: Spec, store: Segments, order: list[int], windows: Sequence[Mapping[str, Appearing]]
) -> Vocabularies:
    """Number the names of each categorical column in the order in which windows bring them, first come first kept.

    Returns:
        Per column: name's hash → (number, window that brought it).
    """
    limit = spec.config.features.max_categories
    found: Vocabularies = {}
    for name in spec.config.categorical:
        stored = store.notes.get(VOCABULARY, {}).get(name, {})
        numbers = {int(key): (int(number), int(window)) for key, (number, window) in stored.items()}
        for window, columns in zip(order, windows, strict=True):
            held, in_order = columns[name]
            if len(numbers) < limit and not np.isin(held, np.array(list(numbers), dtype=np.uint64)).all():
                for key in map(int, in_order()):
                    if key not in numbers and len(numbers) < limit:
                        numbers[key] = (len(numbers), window)
        found[name] = numbers
    return found


def _in_order_of_appearance(places: Places) -> Codes:
    first = some_row(places, slice(None, None, -1))
    return places.distinct[np.argsort(first)]
