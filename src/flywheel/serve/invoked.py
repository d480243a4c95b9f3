"""Rows as clients of MLflow's scoring server send them: four forms of a table, read as requests for scores."""

from typing import Any

import msgspec

from flywheel.config import Config
from flywheel.events import Candidate, Request
from flywheel.serve.refusals import Refusal, unreadable
from flywheel.serve.wire import Column, Id, columns


class Split(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A table as pandas' `to_dict(orient="split")` gives it; its index says nothing here."""

    columns: list[str]
    data: list[list[Column]]
    index: list[Column] = []


class Table(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Rows under the contract's names, in exactly one of four forms; columns that it does not name are ignored."""

    dataframe_split: Split | None = None
    dataframe_records: list[dict[str, Column]] | None = None
    instances: list[dict[str, Column]] | None = None
    inputs: dict[str, list[Column]] | None = None


class Invoked:
    """Reads `POST /invocations` by a config's contract."""

    def __init__(self, config: Config) -> None:
        user, item = config.contract.user, config.contract.item
        fields: list[Any] = [("user", Id, msgspec.field(name=user)), ("item", Id, msgspec.field(name=item))]
        self._names = (str(user), str(item))
        self._rows = list[msgspec.defstruct("Row", [*fields, *columns(config)])]  # type: ignore[misc]
        self._table = msgspec.json.Decoder(Table)

    def requests(self, body: bytes) -> tuple[int, list[tuple[list[int], Request]]]:
        """How many rows there are; and one request per user, with the places of its candidates among them.

        Raises:
            Refusal: 400 malformed, 422 not such a table or not what the contract says.
        """
        try:
            records = _records(self._table.decode(body))
            rows = msgspec.to_builtins(msgspec.convert(records, self._rows))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise unreadable(error, body, Table.__struct_fields__) from None
        user, item = self._names
        groups: dict[str, tuple[list[int], list[Candidate]]] = {}
        for place, row in enumerate(rows):
            places, candidates = groups.setdefault(row.pop(user), ([], []))
            places.append(place)
            candidates.append(Candidate(row.pop(item), row))
        return len(rows), [(places, Request(who, tuple(found))) for who, (places, found) in groups.items()]


def _records(table: Table) -> list[dict[str, Any]]:
    given = [form for form in Table.__struct_fields__ if getattr(table, form) is not None]
    if len(given) != 1:
        raise Refusal(
            422, f"a table comes in one of {', '.join(Table.__struct_fields__)}", why=f"{len(given)} are there"
        )
    if (split := table.dataframe_split) is not None:
        if any(len(row) != len(split.columns) for row in split.data):
            raise Refusal(422, "a row has not as many values as there are columns", where="/dataframe_split/data")
        return [dict(zip(split.columns, row, strict=True)) for row in split.data]
    if table.inputs is not None:
        if len({len(values) for values in table.inputs.values()}) > 1:
            raise Refusal(422, "the columns are not equally long", where="/inputs")
        return [dict(zip(table.inputs, values, strict=True)) for values in zip(*table.inputs.values(), strict=True)]
    return table.dataframe_records or table.instances or []
