"""The matrices of many windows in three steps, each of which may be done by any process that sees the files.

Per window, what its rows teach every key: a tally. Then one pass over the tallies, which are small: the fold, which
keeps for each window what its own keys were known as. Then, again per window, the lookup. Between the steps travel
windows and addresses; what is large is in files under `.flywheel/parted`, which are gone when the last step is done.
The arithmetic is that of `state.advance`, and so are the bits.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel import exchange
from flywheel.errors import ConfigError
from flywheel.learn import state
from flywheel.learn.block import Block, Counters, Spread, code, tallied
from flywheel.learn.coding import Coded, Places
from flywheel.learn.features import Matrix, Spec, States
from flywheel.learn.matrix import Cache
from flywheel.segments import Keys, Segments, load_all

Arrays = dict[str, npt.NDArray[Any]]
NO_CODES = np.empty(0, dtype=np.int32)


def tally(spec: Spec, table: pa.Table) -> Arrays:
    """What the rows of a window teach: per counter its keys, and which of them learn what; names as rows bring them."""
    columns, coded = code(spec, [table])
    made: Arrays = {}
    for i, (keys, (taught, counts, sums)) in enumerate(zip(coded, tallied(table, coded, 0), strict=True)):
        made |= {f"keys{i}": keys.hashes[keys.windows[0].distinct]}
        made |= {f"taught{i}": taught, f"counts{i}": counts, f"sums{i}": sums}
    for name, (_, in_order) in state.appearing(spec, columns, 0, table).items():
        made[f"names {name}"] = in_order()
    return made


def fold(
    store: Segments, spec: Spec, tallies: Mapping[int, Arrays], asked: Mapping[int, Sequence[int]]
) -> Iterator[tuple[int, int, Arrays]]:
    """Fold consecutive windows that are newer than the store, and give out what the keys of others were known as.

    Args:
        store: the counters so far; they are moved once the iterator is exhausted.
        spec: what to count.
        tallies: of consecutive windows, as for `state.advance`.
        asked: window → the states that its rows were served from.

    Yields:
        Window, state, and what `look` needs of it.
    """
    order = sorted(tallies)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        coded = list(pool.map(partial(_together, tallies, order), range(len(spec.counters))))
        appearing = [{n: _names(tallies[w][f"names {n}"]) for n in spec.config.categorical} for w in order]
        numbers = state.vocabularies(spec, store, order, appearing)
        block = Block(spec, store, order, [], state.dense(store, spec, order, coded, pool.map), {}, numbers)

        def move(window: int) -> None:
            held, position = tallies[window], window - order[0]
            list(
                pool.map(
                    lambda i: block.counters[i].fold(
                        position, window, (held[f"taught{i}"], held[f"counts{i}"], held[f"sums{i}"])
                    ),
                    range(len(block.counters)),
                )
            )

        def give(window: int, at: int) -> Iterator[tuple[int, int, Arrays]]:
            places = [c.coded.windows[window - order[0]].distinct for c in block.counters]
            made: Arrays = {}
            for i, found in enumerate(pool.map(lambda i: block.entries(i, places[i], at), range(len(places)))):
                made[f"entries{i}"], made[f"known{i}"] = found
            for name, numbered in numbers.items():
                made[f"names {name}"] = np.fromiter(numbered, np.uint64, len(numbered))
                made[f"numbers {name}"] = np.array(list(numbered.values()), np.int64).reshape(-1, 2)
            yield window, at, made

        yield from state.walk(block, asked, fold=move, look=give)


def _together(tallies: Mapping[int, Arrays], order: Sequence[int], counter: int) -> Coded:
    """The keys of all windows as codes, in the order in which each window's tally has them."""
    keys = [tallies[w][f"keys{counter}"] for w in order]
    hashes, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    codes = np.split(inverse.astype(np.int32), np.cumsum([len(k) for k in keys])[:-1])
    return Coded(hashes, [Places(window, NO_CODES) for window in codes])


def _names(hashes: Keys) -> state.Appearing:
    return hashes, lambda: hashes


def look(spec: Spec, window: int, table: pa.Table, states: int | States, held: Mapping[int, Arrays]) -> Matrix:
    """The matrix of a window's rows, from what its keys were known as at each state that they were served from."""
    columns, coded = code(spec, [table])
    out: Matrix | None = None
    for at in np.unique(states).tolist():
        known = held[at]
        counters = [_counters(spec, i, at, keys, known) for i, keys in enumerate(coded)]
        numbers = {
            name: dict(zip(known[f"names {name}"].tolist(), known[f"numbers {name}"].tolist(), strict=True))
            for name in spec.config.categorical
        }
        block = Block(spec, None, [window], [table], counters, columns, numbers)
        made = block.matrix(window, at, map)
        if out is None:
            out = made
        else:
            out[states == at] = made[states == at]
    assert out is not None
    return out


def _counters(spec: Spec, i: int, at: int, coded: Coded, held: Arrays) -> Counters:
    entries, known = held[f"entries{i}"], held[f"known{i}"]
    span = int((at - entries["last"])[known].max(initial=0))
    return Counters(coded, spec.decay(i, span), entries, known, np.zeros(len(entries), dtype=bool))


@dataclass(frozen=True)
class Part:
    """What a step needs to know of a cache wherever it is done: all but the addresses of the windows."""

    cache: Cache
    recipe: str

    @classmethod
    def of(cls, cache: Cache) -> "Part":
        """The part of a cache that travels."""
        return cls(replace(cache, chain={}), cache.recipe.fingerprint)

    def open(self, chain: dict[int, str]) -> Cache:
        """The cache of some windows.

        Raises:
            ConfigError: the code here makes other columns than the code that asks for them.
        """
        cache = replace(self.cache, chain=chain)
        if cache.recipe.fingerprint != self.recipe:
            why = f"it makes columns by recipe {cache.recipe.fingerprint}, and {self.recipe} is asked for"
            raise ConfigError("a worker runs another version of Flywheel", why=why, next="install the same on all")
        return cache

    def file(self, cache: Cache, window: int, what: object) -> Path:
        """Where one step leaves something of a window for the next."""
        return cache.folder / "parted" / f"{cache.stem(window)}.{what}.npz"


@dataclass(frozen=True)
class Asked:
    """A window, the address of the dataset up to it, and the states that its rows were served from, if it is asked for.

    Before it was tallied the states are not known yet.
    """

    window: int
    address: str
    wanted: bool
    rows: int = 0
    states: tuple[int, ...] = ()


def advance(
    spread: Spread, cache: Cache, missing: Sequence[int], progress: Callable[[int], None], *, fresh: bool
) -> None:
    """Do what `Cache.advance` does, step by step, each for all windows wherever `spread` has it done."""
    if fresh:
        cache.forget()
    store, part = cache.store(), Part.of(cache)
    if not cache.todo(store, missing):
        return
    _clean(cache)
    exchange.send_all(cache.counters)
    wanted = [Asked(w, cache.chain[w], w in missing) for w in cache.todo(store, missing)]
    asked = {one.window: one for one in spread(partial(_tally, part), wanted)}
    keep = cache.kept({w: min(one.states) for w, one in asked.items() if one.states}) if fresh else 0
    for run in cache.runs(store, missing, lambda window: asked[window].rows):
        newest = cache.store().newest
        before = {} if newest is None else {newest: cache.chain[newest]}
        list(spread(partial(_fold, part, keep), [(before, [asked[w] for w in run])]))
        exchange.bring_all(cache.counters)
        for rows in spread(partial(_look, part), [asked[w] for w in run if asked[w].wanted]):
            progress(rows)
    _clean(cache)


def _clean(cache: Cache) -> None:
    """Remove what the steps left for each other."""
    shutil.rmtree(cache.folder / "parted", ignore_errors=True)
    exchange.drop(cache.folder / "parted")


def _tally(part: Part, one: Asked) -> Asked:
    cache = part.open({one.window: one.address})
    table = cache.read(one.window, state.key_columns(cache.recipe.spec))
    _keep(part.file(cache, one.window, "tally"), tally(cache.recipe.spec, table))
    states = np.unique(cache.served_from(one.window)).tolist() if one.wanted else ()
    return replace(one, rows=table.num_rows, states=tuple(states))


def _fold(part: Part, keep: int, run: tuple[dict[int, str], list[Asked]]) -> None:
    before, windows = run
    cache = part.open(before | {one.window: one.address for one in windows})
    exchange.bring_all(cache.counters)
    tallies = {one.window: _kept(part.file(cache, one.window, "tally")) for one in windows}
    asked = {one.window: one.states for one in windows if one.wanted}
    for window, at, made in fold(cache.store(keep), cache.recipe.spec, tallies, asked):
        _keep(part.file(cache, window, at), made)
    exchange.send_all(cache.counters)


def _look(part: Part, one: Asked) -> int:
    cache = part.open({one.window: one.address})
    table, states = cache.read(one.window, cache.columns(asked=True)), cache.served_from(one.window)
    held = {at: _kept(part.file(cache, one.window, at)) for at in one.states}
    cache.write(one.window, look(cache.recipe.spec, one.window, table, states, held), table)
    return len(table)


def _keep(path: Path, arrays: Arrays) -> None:
    """Leave arrays for the next step; whoever does the same at the same time leaves the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_file = path.with_suffix(f".{secrets.token_hex(4)}.partial")
    with partial_file.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
    partial_file.replace(path)
    exchange.send([path], anew=True)


def _kept(path: Path) -> Arrays:
    exchange.bring([path])
    return load_all(path)
