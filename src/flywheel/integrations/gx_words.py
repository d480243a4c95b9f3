"""Great Expectations' configurations as sentences that a person reads in a quarantine or an error."""

from typing import Any

_SPOKEN = ("column", "column_A", "column_B", "column_list", "mostly", "row_condition", "condition_parser")


def subject(kind: str, kwargs: dict[str, Any]) -> str:
    """What an expectation is about.

    >>> subject("expect_column_mean_to_be_between", {"column": "label"})
    'the mean of label'
    """
    what = kind.removeprefix("expect_").partition("_to_")[0]
    names = say(kwargs.get("column") or kwargs.get("column_A") or kwargs.get("column_list") or "")
    if what in ("column_values", "column", "column_pair_values_a"):
        return names
    if what.startswith("table_"):
        return f"the table's {_words(what.removeprefix('table_'))}"
    if what.startswith("column_") and "column" in kwargs:
        return f"the {_words(what.removeprefix('column_'))} of {names}"
    return f"{_words(what)} {names}".strip()


def demand(kind: str, kwargs: dict[str, Any]) -> str:
    """The whole expectation as one sentence without a full stop.

    >>> demand("expect_column_values_to_be_between", {"column": "weight", "min_value": 0, "max_value": 100})
    'weight must be between 0 and 100'
    >>> demand("expect_column_values_to_not_be_null", {"column": "user", "mostly": 0.95})
    'user must not be null in at least 95 % of rows'
    """
    sentence = f"{subject(kind, kwargs)} must {_predicate(kind, kwargs)}"
    mostly = kwargs.get("mostly", 1)
    share = f" in at least {say(100 * mostly)} % of rows" if isinstance(mostly, int | float) and mostly < 1 else ""
    where = f" where {say(kwargs['row_condition'])}" if kwargs.get("row_condition") else ""
    return sentence + share + where


def say(value: object) -> str:
    """A value as a person would write it; long lists are cut after eight.

    >>> say([0, 1.0, "x"]), say(0.1 + 0.2)
    ('0, 1, x', '0.3')
    """
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        shown = ", ".join(say(item) for item in value[:8])
        return shown + (f" and {len(value) - 8} more" if len(value) > 8 else "")
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else text[:117] + "..."


def _predicate(kind: str, kwargs: dict[str, Any]) -> str:
    predicate = kind.partition("_to_")[2] or kind
    if predicate == "be_between":
        return _between(kwargs)
    if predicate in ("be_in_set", "not_be_in_set"):
        return f"{_words(predicate.removesuffix('in_set'))}one of {say(kwargs.get('value_set') or ())}"
    if predicate == "be_greater_than_b":
        return f"be greater than {'or equal to ' if kwargs.get('or_equal') else ''}{say(kwargs.get('column_B'))}"
    rest = "; ".join(f"{name} {say(value)}" for name, value in kwargs.items() if name not in _SPOKEN)
    return _words(predicate) + (f" ({rest})" if rest else "")


def _between(kwargs: dict[str, Any]) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    strict_low, strict_high = kwargs.get("strict_min", False), kwargs.get("strict_max", False)
    if low is not None and high is not None and not (strict_low or strict_high):
        return f"be between {say(low)} and {say(high)}"
    parts = [] if low is None else [f"{'more than' if strict_low else 'at least'} {say(low)}"]
    parts += [] if high is None else [f"{'less than' if strict_high else 'at most'} {say(high)}"]
    return f"be {' and '.join(parts)}"


def _words(name: str) -> str:
    return name.replace("_", " ")
