"""First expectation suites, read off a sample: few, true, and meant to be edited by hand.

Only what no honest row can break quarantines rows. What merely has not been seen yet warns.
"""

from typing import Any

import numpy as np
import pandas as pd

from flywheel.config import Config

FINITE = 1e30  # far beyond any measure, and within single precision, which is what the model computes in
_ENOUGH = 50  # values below which a range says little
_EDIT = "Profiled from a sample; edit it by hand."


def profile_suites(frame: pd.DataFrame, config: Config) -> dict[str, dict[str, Any]]:
    """Suites for a workspace by file name, from a sample of its events (`schema.event_schema`).

    `events.json` judges rows one by one; `rows.json` a window as a whole; `features.json` is empty, to be filled
    once the features are known.
    """
    return {
        "events.json": _suite("events", [*_roles(frame, config), *_numbers(frame, config)]),
        "rows.json": _suite("rows", [*_label_rate(frame, config), *_null_shares(frame, config)]),
        "features.json": _suite("features", []),
    }


def _suite(name: str, expectations: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "expectations": expectations, "meta": {"notes": _EDIT}}


def _expect(kind: str, why: str, *, severity: str = "critical", **kwargs: object) -> dict[str, Any]:
    return {"type": f"expect_{kind}", "kwargs": kwargs, "severity": severity, "meta": {"notes": why}}


def _roles(frame: pd.DataFrame, config: Config) -> list[dict[str, Any]]:
    not_null, between = "column_values_to_not_be_null", "column_values_to_be_between"
    expected = [
        _expect(not_null, "Rows are told apart by it.", column="event_id"),
        _expect(not_null, "A row without a time belongs to no window.", column="ts"),
    ]
    expected += [
        _expect(not_null, f"Every row of the sample had its {role}.", column=role)
        for role in ("user", "item")
        if getattr(config.contract, role) and _present(frame, role).all() and len(frame)
    ]
    if config.contract.kind == "binary":
        why = "The contract says binary; a row without a label may pass."
        expected.append(_expect("column_values_to_be_in_set", why, column="label", value_set=[0, 1]))
    if config.contract.position:
        expected.append(_expect(between, "Slots are counted from 0 or 1.", column="position", min_value=0))
    if config.contract.propensity:
        why = "It is a probability, and what was shown had one above 0."
        bounds: dict[str, Any] = {"min_value": 0, "max_value": 1, "strict_min": True}
        expected.append(_expect(between, why, column="propensity", **bounds))
    return expected


def _numbers(frame: pd.DataFrame, config: Config) -> list[dict[str, Any]]:
    label = () if config.contract.kind == "binary" else ("label",)
    expected = []
    for column in (*label, *config.contract.numeric):
        why = "No honest number is larger; keeps infinities out of training."
        bounds: dict[str, Any] = {"min_value": -FINITE, "max_value": FINITE}
        expected.append(_expect("column_values_to_be_between", why, column=column, **bounds))
        expected += _seen_range(frame, column)
    return expected


def _seen_range(frame: pd.DataFrame, column: str) -> list[dict[str, Any]]:
    """Once the span of the sample on either side of it, as a warning; nothing where the sample says little."""
    values = _finite(frame, column)
    if len(values) < _ENOUGH or values.min() == values.max():
        return []
    low, high = float(values.min()), float(values.max())
    why = (
        f"The sample has {low:g} to {high:g}; this is its span more on either side. "
        "Only warns: set the severity to critical to quarantine rows outside."
    )
    bounds: dict[str, Any] = {"min_value": _round(2 * low - high), "max_value": _round(2 * high - low)}
    return [_expect("column_values_to_be_between", why, severity="warning", column=column, **bounds)]


def _label_rate(frame: pd.DataFrame, config: Config) -> list[dict[str, Any]]:
    labels = _finite(frame, "label")
    if len(labels) < _ENOUGH or labels.min() == labels.max():
        return []
    mean, deviation = float(labels.mean()), float(labels.std())
    binary = config.contract.kind == "binary"
    low, high = (mean / 3, 1 - (1 - mean) / 3) if binary else (mean - 2 * deviation, mean + 2 * deviation)
    why = f"The sample's mean is {mean:.3g}; a window far from it is worth a look."
    bounds: dict[str, Any] = {"min_value": _round(low), "max_value": _round(high)}
    return [_expect("column_mean_to_be_between", why, severity="warning", column="label", **bounds)]


def _null_shares(frame: pd.DataFrame, config: Config) -> list[dict[str, Any]]:
    contract = config.contract
    roles = [role for role in ("user", "item", "request") if getattr(contract, role)]
    expected = []
    for column in (*roles, *contract.context):
        present = float(_present(frame, column).mean()) if len(frame) else 0.0
        if present == 1 and column not in ("user", "item"):
            why = "The sample had none missing; when half of them are, the source has changed."
            expected.append(_expect("column_values_to_not_be_null", why, column=column, mostly=0.5))
        elif present < 1 and (floor := round(present - 0.05 - (1 - present), 2)) >= 0.05:
            why = f"{1 - present:.1%} were missing in the sample; twice as many are worth a look."
            kwargs: dict[str, Any] = {"column": column, "mostly": floor}
            expected.append(_expect("column_values_to_not_be_null", why, severity="warning", **kwargs))
    return expected


def _present(frame: pd.DataFrame, column: str) -> "pd.Series[bool]":
    return frame[column].notna() if column in frame else pd.Series(False, index=frame.index)


def _finite(frame: pd.DataFrame, column: str) -> "pd.Series[float]":
    if column not in frame:
        return pd.Series(dtype=float)
    values = frame[column].astype(float)
    return values[np.isfinite(values)]


def _round(value: float) -> float:
    return float(f"{value:.3g}")
