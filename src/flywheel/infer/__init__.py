"""A sample becomes a proposed contract, with the reason for each column; nothing is read or written here."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Unpack

import pandas as pd
import pyarrow as pa

from flywheel.config import Config, parse
from flywheel.infer import settings
from flywheel.infer.columns import columns_of
from flywheel.infer.context import Reading, read
from flywheel.infer.remarks import History, remarks
from flywheel.infer.roles import Given, Role
from flywheel.sources.sample import sees_whole_range, total_rows

__all__ = ["Given", "Proposal", "Role", "describe", "infer"]
TYPES = {"timestamp": "time", "label_time": "time", "position": "number", "propensity": "number"}


@dataclass(frozen=True)
class Proposal:
    """A config, what each column of the sample was taken for, five rows as understood, and what to know."""

    config: Config
    mapping: tuple[Role, ...]
    examples: tuple[dict[str, str], ...]
    warnings: tuple[str, ...]


def infer(sample: pa.Table, *, name: str, url: str, **given: Unpack[Given]) -> Proposal:
    """Propose the contract of a source from a sample of its raw columns.

    Args:
        sample: rows as `sources.sample.read_sample` gives them.
        name: the product's name.
        url: the source's address as flywheel.toml shall hold it.
        given: what the caller knows; `label` may be a comparison such as `rating >= 4`.

    Raises:
        ConfigError: it cannot tell, or a given column does not exist or cannot play its role; says which, and
            what to write.
    """
    reading = read(columns_of(sample), given)
    history = _history(sample, reading)
    source = {"url": url, "table": given.get("table"), "query": given.get("query")}
    config = parse(
        {
            "product": {"name": name},
            "source": {key: value for key, value in source.items() if value is not None},
            "contract": _contract(reading),
            **_settings(reading, history),
        },
        where="what flywheel init proposes",
    )
    return Proposal(config, _mapping(reading), _examples(reading), remarks(reading, config, history))


def describe(proposal: Proposal) -> str:
    """The mapping, the five rows and the warnings, as plain text."""
    widths = [max(len(role[k]) for role in proposal.mapping) for k in range(3)]
    lines = ["  ".join([*(role[k].ljust(widths[k]) for k in range(3)), role.why]) for role in proposal.mapping]
    for number, example in enumerate(proposal.examples, start=1):
        lines.append(f"row {number}: " + ", ".join(f"{key} {value}" for key, value in example.items()))
    return "\n".join(lines + [f"note: {warning}" for warning in proposal.warnings])


def _history(sample: pa.Table, reading: Reading) -> History:
    """How long and how large the whole is. A few times far off the others, as of 1970, do not stretch it."""
    timestamp, label_time = reading.found["timestamp"][0], reading.get("label_time")
    times = timestamp.times.dropna()
    seconds = (times - times.min()).dt.total_seconds()
    span = timedelta(seconds=float(seconds.quantile(0.999) - seconds.quantile(0.001)))
    rows, seen = total_rows(sample), sees_whole_range(sample)
    lags = label_time.times - timestamp.times if label_time else None
    return History(rows, span if seen else span * (rows / sample.num_rows), seen, lags)


def _settings(reading: Reading, history: History) -> dict[str, Any]:
    every = settings.propose_every(reading.found["timestamp"][0].times, history.span)
    attribution, silence = settings.propose_attribution(history.lags), settings.propose_silence(reading.label)
    return {
        "windows": {"every": every, "attribution": attribution, "silence": silence},
        "features": {"counters": settings.propose_counters(reading, every)},
        "exam": settings.propose_exam(history.rows, history.span, every),
    }


def _contract(reading: Reading) -> dict[str, Any]:
    context = [role for _, role in reading.of("context")]
    naive = any(column.is_naive for role, (column, _) in reading.found.items() if TYPES.get(role) == "time")
    return {role: column.name for role, (column, _) in reading.found.items()} | {
        "label": reading.label.text,
        "kind": reading.label.kind,
        "numeric": tuple(r.column for r in context if r.type == "number"),
        "categorical": tuple(r.column for r in context if r.type == "name"),
        "lists": {r.column: r.type[-1] for r in context if r.type.startswith("list")},
        "outcomes": tuple(role.column for _, role in reading.of("outcome")),
        "naive_timestamps": "utc" if naive else "quarantine",
    }


def _mapping(reading: Reading) -> tuple[Role, ...]:
    """One line a column: roles, then context, then outcomes, then what is left out."""
    types = TYPES | {"label": "0/1" if reading.label.kind == "binary" else "number"}
    played = [
        Role(column.name, role.replace("_", " "), types.get(role, "name"), why)
        for role, (column, why) in reading.found.items()
    ]
    others = [role for kind in ("context", "outcome", "left out") for _, role in reading.of(kind)]
    return (*played, *others)


def _examples(reading: Reading) -> tuple[dict[str, str], ...]:
    """Five rows from all over the sample, roles first, as they would be inside."""
    shown: dict[str, pd.Series[Any]] = {}
    for role, (column, _) in reading.found.items():
        is_time = TYPES.get(role) == "time"
        shown[role] = column.times.dt.strftime("%Y-%m-%dT%H:%M:%SZ") if is_time else column.texts
    shown["label"] = reading.label.values
    for column, taken in reading.of("context"):
        is_list = taken.type.startswith("list")
        shown[column.name] = column.texts.str.split(taken.type[-1], regex=False) if is_list else column.texts
    frame = pd.DataFrame(shown)
    picked = frame.iloc[[k * (len(frame) - 1) // 4 for k in range(5)]] if len(frame) > 5 else frame
    return tuple({str(key): _show(value) for key, value in row.items()} for row in picked.to_dict("records"))


def _show(value: object) -> str:
    if isinstance(value, list):
        return " + ".join(part.strip() for part in value)
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:g}"
    return "" if value is None or value is pd.NaT else str(value)
