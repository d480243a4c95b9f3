"""The columns of events, rows and quarantined rows, as Arrow schemas derived from the contract.

Roles are stored under fixed names (`event_id, ts, label_ts, label, user, item, request, position, propensity,
late`), context and outcomes under their own.
"""

import pyarrow as pa

from flywheel.config import Config

TIME = pa.timestamp("us", tz="UTC")
NAME = pa.dictionary(pa.int32(), pa.string())
REJECTED = pa.schema(
    [
        pa.field("event_id", pa.string()),
        pa.field("ts", TIME),
        pa.field("source", pa.string(), nullable=False),  # the delivery it came in
        pa.field("row", pa.int64(), nullable=False),  # its number there, from 1; the header does not count
        pa.field("reasons", pa.list_(pa.string()), nullable=False),
        pa.field("raw", pa.string(), nullable=False),  # the row as it came, as one JSON object
    ]
)


SERVED = (  # what the ranker logs with what it showed; null in rows that came from elsewhere
    pa.field("generation", pa.int32()),
    pa.field("arm", NAME),
    pa.field("explored", pa.bool_()),
    pa.field("state", pa.int32()),  # the window that features were looked up as of; NOTHING before there was one
    pa.field("recipe", NAME),  # the recipe's fingerprint
    pa.field("features", pa.uint64()),  # the hash of the features as they were served
)
NOTHING = -(2**31)
KNOWN_SINCE = pa.field("known_since", pa.int32())  # of a row that a backfill gave back: the window that collected it


def event_schema(config: Config) -> pa.Schema:
    """What an event looks like once it is inside: typed, UTC, roles under their own names.

    `source` and `row` say where it came from; they end with the closing of its window.
    """
    contract = config.contract
    fields = [pa.field("event_id", pa.string(), nullable=False), pa.field("ts", TIME, nullable=False)]
    fields += [pa.field("label_ts", TIME), pa.field("label", pa.float64())]
    fields += [pa.field(role, NAME) for role in ("user", "item", "request") if getattr(contract, role)]
    fields += [pa.field("position", pa.int32())] if contract.position else []
    fields += [pa.field("propensity", pa.float64())] if contract.propensity else []
    fields += _context(contract.numeric, contract.categorical, tuple(contract.lists))
    fields += [pa.field(name, pa.string()) for name in contract.outcomes]
    fields += SERVED if config.serve else ()
    fields += [pa.field("source", NAME, nullable=False), pa.field("row", pa.int64(), nullable=False)]
    return pa.schema(fields)


def row_schema(config: Config) -> pa.Schema:
    """What a row of a closed window looks like: an event, its attributes, and whether it came late."""
    fields = [field for field in event_schema(config) if field.name not in ("source", "row")]
    for table in config.attributes:
        fields += _context(table.numeric, table.categorical, tuple(table.lists))
    return pa.schema([*fields, pa.field("late", pa.bool_(), nullable=False)])


def _context(numeric: tuple[str, ...], categorical: tuple[str, ...], lists: tuple[str, ...]) -> list[pa.Field]:
    return (
        [pa.field(name, pa.float64()) for name in numeric]
        + [pa.field(name, NAME) for name in categorical]
        + [pa.field(name, pa.list_(pa.string())) for name in lists]
    )
