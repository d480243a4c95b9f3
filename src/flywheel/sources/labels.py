"""What the contract calls the label: a column, or a comparison such as `rating >= 4`."""

import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flywheel.errors import ConfigError
from flywheel.sources.columns import Parsed, flags, numbers, text

_RULE = re.compile(r"""^\s*(?P<column>.+?)\s*(?P<sign>>=|<=|==|!=|>|<)\s*(?P<value>"[^"]*"|'[^']*'|[^"'\s]+)\s*$""")
_COMPARE = {
    ">=": pc.greater_equal,
    "<=": pc.less_equal,
    "==": pc.equal,
    "!=": pc.not_equal,
    ">": pc.greater,
    "<": pc.less,
}


@dataclass(frozen=True)
class LabelRule:
    """The column that the label comes from, and what it is compared with; a `sign` of "" takes it as it is."""

    column: str
    sign: str = ""
    value: float | str = 0.0

    def parse(self, column: pa.Array) -> Parsed:
        """The label as float64; null is silence."""
        if not self.sign:
            return numbers(column, self.column, booleans=True)
        texts = isinstance(self.value, str)
        parsed = Parsed(text(column)) if texts else numbers(column, self.column, booleans=True)
        compared = _COMPARE[self.sign](parsed.values, pa.scalar(self.value))
        return Parsed(compared.cast(pa.int8()).cast(pa.float64()), parsed.faults)


def label_rule(label: str, columns: Collection[str] = ()) -> LabelRule:
    """Read the contract's label; a column of that very name wins over a comparison.

    >>> label_rule("rating >= 4")
    LabelRule(column='rating', sign='>=', value=4.0)
    >>> label_rule("state == 'sold'").value
    'sold'

    Raises:
        ConfigError: a text is compared by order, or the right-hand side is neither number nor quoted.
    """
    match = _RULE.match(label)
    if label in columns or match is None:
        return LabelRule(label)
    column, sign, value = match["column"], match["sign"], match["value"]
    if value[0] in "\"'":
        if sign not in ("==", "!="):
            raise ConfigError(
                f"contract.label {label!r} cannot be read",
                why="a text is only compared by == or !=",
                next="edit flywheel.toml",
            )
        return LabelRule(column, sign, value[1:-1])
    try:
        return LabelRule(column, sign, float(value))
    except ValueError:
        why = f"{value} is no number; a text needs quotes: {column} {sign} '{value}'"
        raise ConfigError(f"contract.label {label!r} cannot be read", why=why, next="edit flywheel.toml") from None


def not_binary(values: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which labels are neither 0 nor 1."""
    return ~flags(pc.or_(pc.equal(values, 0), pc.equal(values, 1))) & flags(values.is_valid())
