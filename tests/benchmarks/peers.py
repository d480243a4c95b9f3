"""The same features by DuckDB, polars and pandas, written as somebody at home in each would write them.

All start from the same Arrow table in memory (`rows`) and end with the same 24 columns in memory, as float32. Each
counts per key and window, accumulates sums scaled by 2^(window / half-life) over the key's earlier windows, and joins
that back to the rows: one aggregation, one window function and one join a key. Means back off from user × genre to
user to all, and from item × device to item to all.
"""

import numpy as np
import pyarrow as pa

LIVES = (7, 28)
SMOOTHING = 10.0
PRIOR = 0.5
KEYS = {  # name → (columns, what its mean leans on), parents first
    "everything": ((), None),
    "user": (("user",), "everything"),
    "item": (("item",), "everything"),
    "user_x_genre": (("user", "genre"), "user"),
    "item_x_device": (("item", "device"), "item"),
}
NAMES = [
    f"{name}__{column}"
    for name in list(KEYS)[1:]
    for column in (*(f"{what}_{h}d" for h in LIVES for what in ("count", "mean")), "since_first", "since_last")
]


def rows(windows):
    """The windows as one table, as the peers want it: with the window's index `w` and the row's number `r`."""
    tables = [t.append_column("w", pa.array(np.full(len(t), w, dtype=np.int32))) for w, t in windows.items()]
    table = pa.concat_tables(tables).unify_dictionaries()
    return table.append_column("r", pa.array(np.arange(len(table), dtype=np.int32)))


def duckdb_query():
    """One statement: the counters as common table expressions, then the joins and the back-off."""
    states, columns, joins = [], [], []
    for name, (keys, parent) in KEYS.items():
        key = "".join(f"{k}, " for k in keys)
        partition = f"partition by {', '.join(keys)}" if keys else ""
        sums = ", ".join(f"sum({c} * pow(2, w / {h}.0)) over before as {c}{h}" for h in LIVES for c in "ns")
        states.append(f"""
            {name}_seen as (select {key} w, count(*) as n, sum(label) as s from events group by all),
            {name} as (
                select {key} w, {sums}, min(w) over before as first, max(w) over before as last from {name}_seen
                window before as ({partition} order by w rows between unbounded preceding and 1 preceding)
            )""")
        joins.append(f"left join {name} on {' and '.join(f'e.{k} = {name}.{k}' for k in (*keys, 'w'))}")
        for h in LIVES:
            prior = f"{parent}__mean_{h}" if parent else f"{PRIOR}"
            columns += [
                f"coalesce({name}.n{h} * fade{h}, 0) as {name}__count_{h}",
                f"(coalesce({name}.s{h} * fade{h}, 0) + {SMOOTHING} * {prior})"
                f" / ({name}__count_{h} + {SMOOTHING}) as {name}__mean_{h}",
            ]
        columns += [f"e.w - 1 - {name}.{end} as {name}__since_{end}" for end in ("first", "last")]
    fades = ", ".join(f"pow(2, -(w - 1) / {h}.0) as fade{h}" for h in LIVES)
    chosen = ", ".join(f"{name.removesuffix('d')}::float as {name}" for name in NAMES)
    return (
        f"with {','.join(states)}, joined as (select e.r, {', '.join(columns)} from (select *, {fades} from events) e "
        f"{' '.join(joins)}) select r, {chosen} from joined"
    )


def with_duckdb(table):
    """By DuckDB SQL, on two threads."""
    import duckdb

    connection = duckdb.connect(config={"threads": 2, "preserve_insertion_order": False})
    connection.register("events", table)
    return connection.sql(duckdb_query()).to_arrow_table()


def with_polars(table):
    """By polars, lazily, on two threads."""
    import polars as pl

    made = pl.from_arrow(table).lazy()
    before = pl.col("w") - 1
    for name, (keys, parent) in KEYS.items():
        seen = made.group_by(*keys, "w").agg(n=pl.len().cast(pl.Float64), s=pl.col("label").sum()).sort("w")
        sums = [(pl.col(c) * 2.0 ** (pl.col("w") / h)).cum_sum().shift(1) for h in LIVES for c in "ns"]
        known = [e.alias(f"{c}{h}") for e, (h, c) in zip(sums, [(h, c) for h in LIVES for c in "ns"], strict=True)]
        known += [pl.col("w").first().alias("first"), pl.col("w").shift(1).alias("last")]
        state = seen.select(*keys, "w", *((e.over(*keys, order_by="w") if keys else e) for e in known))
        made = made.join(state, on=[*keys, "w"], how="left")
        fades = {h: 2.0 ** (-before / h) for h in LIVES}
        made = made.with_columns(
            (pl.col(f"n{h}").fill_null(0) * fades[h]).alias(f"{name}__count_{h}d") for h in LIVES
        ).with_columns(
            *(
                (
                    (pl.col(f"s{h}").fill_null(0) * fades[h] + SMOOTHING * _prior(pl, parent, h))
                    / (pl.col(f"{name}__count_{h}d") + SMOOTHING)
                ).alias(f"{name}__mean_{h}d")
                for h in LIVES
            ),
            pl.when(pl.col("last").is_not_null()).then(before - pl.col("first")).alias(f"{name}__since_first"),
            (before - pl.col("last")).alias(f"{name}__since_last"),
        )
        made = made.drop(*(f"{c}{h}" for h in LIVES for c in "ns"), "first", "last")
    return made.select("r", *(pl.col(name).cast(pl.Float32) for name in NAMES)).collect().to_arrow()


def _prior(pl, parent, h):
    return pl.col(f"{parent}__mean_{h}d") if parent else pl.lit(PRIOR)


def with_pandas(table):
    """By pandas, on what one thread it has."""
    import pandas as pd

    made = table.to_pandas()
    before = made["w"].to_numpy() - 1
    for name, (keys, parent) in KEYS.items():
        seen = made.groupby([*keys, "w"], observed=True, sort=True)["label"].agg(n="size", s="sum").reset_index()
        scaled = pd.DataFrame({f"{c}{h}": seen[c] * 2.0 ** (seen["w"] / h) for h in LIVES for c in "ns"})
        by = [seen[k] for k in keys] if keys else np.zeros(len(seen))
        state = scaled.groupby(by, observed=True).cumsum() - scaled
        windows = seen["w"].groupby(by, observed=True)
        state["last"] = windows.shift(1)
        state["first"] = windows.transform("first").where(state["last"].notna())
        state[[*keys, "w"]] = seen[[*keys, "w"]]
        found = made[[*keys, "w"]].merge(state, on=[*keys, "w"], how="left")
        for h in LIVES:
            fade = 2.0 ** (-before / h)
            count = found[f"n{h}"].to_numpy() * fade
            prior = made[f"{parent}__mean_{h}d"] if parent else PRIOR
            made[f"{name}__mean_{h}d"] = (found[f"s{h}"].to_numpy() * fade + SMOOTHING * prior) / (count + SMOOTHING)
            made[f"{name}__count_{h}d"] = count
        made[f"{name}__since_first"] = before - found["first"].to_numpy()
        made[f"{name}__since_last"] = before - found["last"].to_numpy()
    return pa.Table.from_pandas(made[["r", *NAMES]].astype(np.float32).assign(r=made["r"]), preserve_index=False)


PEERS = {"duckdb": with_duckdb, "polars": with_polars, "pandas": with_pandas}
