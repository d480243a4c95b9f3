"""What a split difference says, in sentences for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flywheel.evidence import Estimate, Part, Why
from flywheel.measure.causes import EXAM, FRESHER, MORE, RECIPE

if TYPE_CHECKING:
    from flows.attributing import Side
    from flywheel.records import Generation

FAR = 4  # times the rows at hand, from where on an extrapolation is a scenario


def says(found: Why, older: Side, newer: Side, sizes: int, seeds: int) -> tuple[str, ...]:
    """What came of it, what each part means, and what was assumed."""
    names = [part.name for part in found.parts]
    told = [_total(found), _recorded(found, older.made, newer.made, seeds)]
    told += [_part(part, older, newer) for part in found.parts]
    told += [f"{part.name.capitalize()}: together {_by(part.effect)} beyond each alone." for part in found.interactions]
    if EXAM in names and FRESHER in names:
        told.append(
            "No model is examined on a time before its data ends, so what fresher data brings is seen on the newer "
            "exam alone. Counters are as they were when each row was shown: that those of the newer exam know more is "
            "part of the exam's effect."
        )
    if MORE in names:
        told.append(_extrapolated(older.rows, newer.rows, sizes))
    if older.rows != older.made.train_rows or newer.rows != newer.made.train_rows:
        told.append("Their rows are not those of then: windows were closed anew since, and today's were used.")
    return tuple(told)


def _total(found: Why) -> str:
    low, high = found.total.low, found.total.high
    surely = "" if low > 0 or high < 0 else ", which may be chance"
    how = "better" if found.total.value >= 0 else "worse"
    span = sorted((abs(low), abs(high))) if low * high > 0 else [low, high]
    return (
        f"In its own exam generation {found.b} is {how} than generation {found.a} in its, by "
        f"{abs(found.total.value):.4f} {found.metric} ({span[0]:.4f} to {span[1]:.4f}){surely}."
    )


def _recorded(found: Why, older: Generation, newer: Generation, seeds: int) -> str:
    recorded = {made.generation: made.metrics.get(found.metric) for made in (older, newer)}
    a, b = ("none" if recorded[n] is None else f"{recorded[n]:.4f}" for n in (found.a, found.b))
    return f"Their runs recorded {a} and {b}, with one seed each; here each kind of model is the mean of {seeds}."


def _part(part: Part, older: Side, newer: Side) -> str:
    meaning = {
        EXAM: (
            f"what a model that stays as it is gains or loses from the exam from {older.exam[0]} to that from "
            f"{newer.exam[0]}: how hard it is, and the model's own aging"
        ),
        FRESHER: f"as many rows, up to {newer.train[-1]} rather than {older.train[-1]}",
        MORE: f"{newer.rows:,} rows rather than {older.rows:,}",
        RECIPE: f"the columns and training of generation {newer.made.generation} rather than {older.made.generation}",
    }[part.name]
    unclear = " It may be none." if part.effect.low <= 0 <= part.effect.high else ""
    return f"{part.name.capitalize()}: {_by(part.effect)}. That is {meaning}.{unclear}"


def _by(effect: Estimate) -> str:
    return f"{effect.value:+.4f} ({effect.low:+.4f} to {effect.high:+.4f})"


def _extrapolated(old: int, new: int, sizes: int) -> str:
    far = f", and at {new / old:.1f} times the rows it is a scenario" if new > FAR * old else ""
    seen = f"{sizes} numbers of rows" if sizes > 1 else "one number of rows"
    return (
        f"{new:,} rows that end where the older ones do never existed. What they would have come to is extrapolated "
        f"from {seen}{far}: it moves between more and fresher data, not their sum."
    )
