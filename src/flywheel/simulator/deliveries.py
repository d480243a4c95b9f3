"""How a log reaches those who want it: as a file a day or a week, and not always clean."""

from datetime import timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from flywheel.windows import Windows

_FAR_OFF = timedelta(days=20_000)
_DEAL = (
    "repeated",
    "contradicted",
    "naive",
    "far_off",
    "no_user",
    "no_label",
    "impossible_propensity",
    "odd_device",
)


def write_deliveries(
    folder: Path,
    events: pa.Table,
    *,
    every: timedelta = timedelta(days=7),
    form: Literal["parquet", "csv"] = "parquet",
) -> list[Path]:
    """Write `events-<start>.<form>` for each span of event time that has events; the paths, oldest first.

    Spans begin as the windows of `flywheel.windows` do, weeks on Mondays. Outcomes are those of the table, also
    where they became known after the end of the span. Equal tables give equal bytes.

    >>> from tempfile import mkdtemp
    >>> from flywheel.simulator.log import example, simulate
    >>> log = simulate(**example() | {"days": 8})
    >>> [path.name for path in write_deliveries(Path(mkdtemp()), log.events)]
    ['events-2026-01-05.parquet', 'events-2026-01-12.parquet']
    """
    grid = Windows(every)
    folder.mkdir(parents=True, exist_ok=True)
    seconds = events["ts"].cast(pa.int64()).to_numpy() // 1_000_000 - int(grid.origin.timestamp())
    span = seconds // int(every.total_seconds())
    paths = []
    for index in np.unique(span):
        path = folder / f"events-{grid.name(int(index))}.{form}"
        write_table(events.filter(pa.array(span == index)), path)
        paths.append(path)
    return paths


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table as CSV where the path ends so, else as Parquet."""
    if path.suffix == ".csv":
        csv.write_csv(table, path)
    else:
        pq.write_table(table, path, compression="zstd", compression_level=9)


def spoil_rows(events: pa.Table, seed: int) -> tuple[pa.Table, dict[str, int]]:
    """The same delivery with bad rows in it, and how many of each kind; no row is bad in two ways.

    One row in 200 of each kind, at least one: `repeated` as it is, `contradicted` (the same `event_id` again with
    the other label), `naive` (a time without a zone), `far_off` (a time 20,000 days on), `no_user`, `no_label`
    (NaN), `impossible_propensity` (1.7), `odd_device` (a name never seen). Second copies stand at the end; `ts` is
    text and `watched` a float, as the faults want it. `untouched` counts the rows with neither fault nor copy.

    >>> from flywheel.simulator.log import example, simulate
    >>> bad, done = spoil_rows(simulate(**example() | {"days": 2}).events, seed=1)
    >>> done["naive"] == sum(not ts.endswith("Z") for ts in bad["ts"].to_pylist())
    True

    Raises:
        ValueError: the delivery has fewer rows than there are kinds of faults.
    """
    if len(events) < len(_DEAL):
        raise ValueError(f"{len(events)} rows cannot hold {len(_DEAL)} kinds of faults")
    rng = np.random.default_rng([seed, *b"spoil"])
    each = max(1, len(events) // 200)
    rows = dict(zip(_DEAL, rng.permutation(len(events))[: each * len(_DEAL)].reshape(len(_DEAL), each), strict=True))
    table = _rowwise(events, {fault: _mask(len(events), chosen) for fault, chosen in rows.items()})
    again = table.take(pa.array(np.sort(rows["repeated"])))
    against = table.take(pa.array(np.sort(rows["contradicted"])))
    against = _replace(against, "watched", pc.subtract(1.0, against["watched"]))
    counts = dict.fromkeys(_DEAL, each)
    return pa.concat_tables([table, again, against]), counts | {"untouched": len(events) - each * len(_DEAL)}


def spoil(events: pa.Table, seed: int) -> tuple[pa.Table, dict[str, int]]:
    """`spoil_rows`, and the column `device` renamed `device_type`.

    Whoever needs `device` cannot read any row, so the other faults show only after it has been renamed back.

    >>> from flywheel.simulator.log import example, simulate
    >>> bad, done = spoil(simulate(**example() | {"days": 2}).events, seed=1)
    >>> "device" in bad.column_names, done["renamed_columns"]
    (False, 1)
    """
    table, counts = spoil_rows(events, seed)
    names = ["device_type" if name == "device" else name for name in table.column_names]
    return table.rename_columns(names), counts | {"renamed_columns": 1}


def _rowwise(events: pa.Table, where: dict[str, pa.Array]) -> pa.Table:
    ts = events["ts"]
    ts = pc.if_else(where["far_off"], pc.add(ts, pa.scalar(_FAR_OFF)), ts)
    text = pc.strftime(ts.cast(pa.timestamp("s", tz="UTC")), format="%Y-%m-%dT%H:%M:%S")
    text = pc.if_else(where["naive"], text, pc.binary_join_element_wise(text, "Z", ""))
    changes = {
        "ts": text,
        "user_id": pc.if_else(where["no_user"], pa.scalar(None, pa.string()), events["user_id"]),
        "watched": pc.if_else(where["no_label"], float("nan"), events["watched"].cast(pa.float64())),
        "propensity": pc.if_else(where["impossible_propensity"], 1.7, events["propensity"]),
        "device": pc.if_else(where["odd_device"], "fridge", events["device"]),
    }
    for name, column in changes.items():
        events = _replace(events, name, column)
    return events


def _replace(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def _mask(length: int, chosen: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> pa.Array:
    mask = np.zeros(length, bool)
    mask[chosen] = True
    return pa.array(mask)
