"""The sections of flywheel.toml, one class each. Every field's description is what `flywheel init` writes beside it."""

import re
from datetime import UTC, timedelta
from typing import Annotated, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from flywheel.windows import EPOCH, Windows, format_duration, parse_duration

ROLES = (
    *("event_id", "ts", "label_ts", "label", "user", "item", "request", "position", "propensity"),
    *("late", "known_since"),
)
BY_THE_RANKER = ("generation", "arm", "explored", "state", "recipe", "features")  # what it logs with a row


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


Duration = Annotated[timedelta, BeforeValidator(_duration), PlainSerializer(format_duration, return_type=str)]


def _half_life(value: object) -> object:
    return None if value == "forever" else _duration(value)


HalfLife = Annotated[
    timedelta | None,
    BeforeValidator(_half_life),
    PlainSerializer(lambda h: "forever" if h is None else format_duration(h), return_type=str),
]


class Section(BaseModel):
    """One table of flywheel.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Product(Section):
    """What the wheel is for."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="names the MLflow experiment and model")


class SourceConfig(Section):
    """Where interactions come from."""

    url: str = Field(description="a file, a glob, anything fsspec reads, or a SQLAlchemy URL; relative to this file")
    table: str | None = Field(None, description="SQL only: the table to read")
    query: str | None = Field(None, description="SQL only: a query to read instead of a table")
    cursor: str | None = Field(
        None, description="SQL only: a column that only grows as rows arrive; without it, the timestamp"
    )

    @model_validator(mode="after")
    def _one_of_table_and_query(self) -> "SourceConfig":
        if self.is_sql and (self.table is None) == (self.query is None):
            raise ValueError("a SQL source needs either a table or a query")
        return self

    @property
    def is_sql(self) -> bool:
        """Whether the URL is SQLAlchemy's rather than fsspec's."""
        return bool(re.match(r"^(sqlite|postgresql|postgres|mysql|mariadb|oracle|mssql|duckdb)(\+\w+)?://", self.url))


class Contract(Section):
    """Which column plays which role. What is not named here is ignored, and said so."""

    timestamp: str = Field(description="when it happened")
    label: str = Field(description='how it was received: a column of 0/1 or numbers, or "rating >= 4"')
    kind: Literal["binary", "number"] = Field("binary", description="decides the objective and the metrics")
    user: str | None = Field(None, description="who it was shown to")
    item: str | None = Field(None, description="what was shown")
    request: str | None = Field(None, description="rows shown together, ranked against each other")
    event_id: str | None = Field(None, description="unique for good; without it, equal rows are one")
    label_time: str | None = Field(None, description="when the label became known; without it, at once")
    position: str | None = Field(None, description="the slot it was shown in")
    propensity: str | None = Field(None, description="the probability with which it was shown")
    numeric: tuple[str, ...] = Field((), description="context: numbers")
    categorical: tuple[str, ...] = Field((), description="context: names")
    lists: dict[str, str] = Field(
        {}, description='context: several names in one field, with what parts them: {genres = "|"}'
    )
    outcomes: tuple[str, ...] = Field((), description="known only afterwards; kept, never a feature")
    naive_timestamps: Literal["quarantine", "utc"] = Field(
        "quarantine", description="a time without a zone is refused, or read as UTC"
    )

    @model_validator(mode="after")
    def _names_are_free(self) -> "Contract":
        named = [*self.numeric, *self.categorical, *self.lists, *self.outcomes]
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ValueError(f"declared twice: {', '.join(twice)}")
        taken = sorted(set(named) & {*ROLES, "source", "row"})
        if taken:
            raise ValueError(f"context may not be called {', '.join(taken)}: Flywheel stores roles under these names")
        return self

    @property
    def context(self) -> tuple[str, ...]:
        """Every context column, numeric, categorical and list-valued."""
        return (*self.numeric, *self.categorical, *self.lists)


class Attributes(Section):
    """A table of attributes joined to each row as its window closes."""

    url: str = Field(description="a file; relative to this one")
    key: Literal["user", "item"] = Field(description="the role it joins by")
    column: str = Field(description="the column of the table that holds the key")
    numeric: tuple[str, ...] = Field((), description="its numbers")
    categorical: tuple[str, ...] = Field((), description="its names")
    lists: dict[str, str] = Field({}, description="several names in one field, with what parts them")


class WindowsConfig(Section):
    """How event time is cut and when a window may close."""

    every: Duration = Field(description="the length of a window")
    attribution: Duration = Field(timedelta(0), description="how long an outcome may take")
    lateness: Duration = Field(timedelta(0), description="how long an event may arrive after the fact")
    silence: Literal["unlabelled", 0] = Field("unlabelled", description="what no outcome means: nothing, or 0")
    origin: AwareDatetime = Field(EPOCH, description="an instant at which a window begins")

    @property
    def grid(self) -> Windows:
        """The grid itself."""
        return Windows(self.every, self.attribution, self.lateness, self.origin.astimezone(UTC))


class Counter(Section):
    """What is remembered per key: count, smoothed mean label, windows since first and last seen."""

    key: tuple[str, ...] = Field(
        min_length=1, description="columns whose values together are the key; one of them may be a list"
    )
    half_lives: tuple[HalfLife, ...] = Field(
        (None,), min_length=1, description='how fast it forgets; "forever" never does'
    )
    backoff: str | None = Field(
        None, description="the counter its mean leans on when it knows little; else the global one"
    )

    @property
    def name(self) -> str:
        """The counter's name: its key columns."""
        return "_x_".join(self.key)


class Features(Section):
    """What the model sees."""

    smoothing: float = Field(10.0, gt=0, description="rows of the mean it leans on that a mean starts with")
    max_categories: int = Field(500, gt=1, description="names kept per categorical column, first come first kept")
    counters: tuple[Counter, ...] = Field((), description="what is remembered, and by which key")

    @model_validator(mode="after")
    def _backoff_is_known(self) -> "Features":
        before: dict[str, Counter] = {}
        for counter in self.counters:
            if counter.name in before:
                raise ValueError(f"two counters have the key {counter.name}")
            if counter.backoff is not None and counter.backoff not in before:
                raise ValueError(
                    f"counter {counter.name} backs off to {counter.backoff}, which is not a counter before it"
                )
            if counter.backoff is not None and not set(before[counter.backoff].key) < set(counter.key):
                raise ValueError(
                    f"counter {counter.name} backs off to {counter.backoff}, whose key is no part of its own"
                )
            before[counter.name] = counter
        return self


class Train(Section):
    """How a generation is fitted."""

    rounds: int = Field(300, gt=0, description="trees at most")
    early_stopping: int = Field(
        50, ge=0, description="stop after so many trees without gain on the tail; 0 never stops"
    )
    tail: float = Field(0.1, gt=0, lt=0.5, description="share of the newest training rows that decides when to stop")
    seed: int = Field(0, description="same rows and same seed make the same model")
    newest: Duration | None = Field(
        None, gt=timedelta(0), description="learn only from rows so new, counted back from the exam; else from all"
    )
    min_rows: int = Field(200, gt=0, description="fewer rows are not trained on")
    min_per_class: int = Field(20, gt=0, description="fewer rows of either class are not trained on")
    params: dict[str, float | int | str] = Field(
        {
            "max_depth": 5,
            "eta": 0.1,
            "min_child_weight": 20,
            "reg_lambda": 10,
            "subsample": 0.8,
            "colsample_bytree": 0.5,
        },
        description="XGBoost's own",
    )


class Exam(Section):
    """What challenger and champion are examined on: the newest closed windows."""

    windows: int = Field(1, gt=0, description="at least so many windows")
    rows: int = Field(2000, gt=0, description="and as many more as it takes to hold so many rows")


class Gate(Section):
    """What a challenger must show."""

    metric: Literal["auc", "log_loss", "average_precision", "ndcg", "rmse", "mae"] | None = Field(
        None, description="the metric that decides; without it, auc for binary and rmse for number"
    )
    margin: float = Field(0.002, ge=0, description="a loss this small counts as none")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the interval of the difference")
    superiority: float = Field(0.8, ge=0.5, lt=1, description="probability of being better that it takes")
    min_rows: int = Field(500, gt=0, description="exam rows below which nothing is decided")
    min_users: int = Field(
        50, gt=0, description="exam users below which nothing is decided; only where there are users"
    )
    slice_margin: float = Field(0.02, ge=0, description="a loss this small within a slice counts as none")
    slice_min_rows: int = Field(300, gt=0, description="slices smaller than this are shown, and decide nothing alone")
    exam_uses: int = Field(20, gt=0, description="decisions by other settings on one exam, after which it is used up")
    max_calibration_error: float = Field(0.05, gt=0, description="expected calibration error, binary only")
    canary: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="share of the wheel's users whom a challenger that passed serves first; 0 is none",
    )
    canary_margin: float = Field(
        0.05, gt=0, lt=1, description="a canary may earn this share less than the champion, and counts as no worse"
    )
    canary_timeout: Duration = Field(
        timedelta(days=28), description="a canary that has not shown it by then is refused"
    )
    approval: Literal["none", "person"] = Field(
        "none", description="whether a person is asked once a challenger passed"
    )
    approval_timeout: Duration = Field(timedelta(days=1), description="a person who says nothing for so long refuses")


class Serve(Section):
    """How people are answered; a workspace with this section serves. Which values are good depends on the traffic."""

    explore: float = Field(0.1, ge=0, le=1, description="share of slots that are drawn rather than given to the best")
    top: int = Field(10, gt=0, description="a draw is among the best so many of what remains, the better the likelier")
    temperature: float = Field(
        0.5, gt=0, description="of that draw, in log-odds or the label's own unit; the higher, the more even"
    )
    floor: float = Field(0.1, gt=0, le=1, description="share of draws that are even among all that remains")
    holdback: float = Field(0.05, ge=0, le=0.5, description="share of users whom the baseline serves for good")
    salt: str = Field("flywheel", description="with which users are hashed; another salt is another holdback")
    max_candidates: int = Field(1000, gt=0, description="candidates that one request may bring")


class Inbox(Section):
    """Where decisions and outcomes arrive, if not in inbox/inbox.db."""

    url: str = Field(description="a SQLAlchemy URL such as postgresql://…")


class Registry(Section):
    """Where generations are kept, if not under mlruns/."""

    url: str = Field(description="MLflow's database, a SQLAlchemy URL such as postgresql://…")
    artifacts: str | None = Field(
        None, description="where models and plots go, such as s3://bucket/product; without it, mlruns/artifacts"
    )


class Compute(Section):
    """Where windows are made, features built and models fitted; anything but "local" needs the extra `dask`."""

    engine: Literal["local", "dask"] = Field("local", description="in this process, or on the workers of a cluster")
    address: str | None = Field(
        None, description="of a Dask scheduler, such as tcp://…:8786; without it, a cluster of processes of our own"
    )
    workers: int = Field(2, gt=0, description="processes of that cluster; at an address, so many fit a model together")
    files: str | None = Field(
        None, description="such as s3://bucket/prefix: how files reach workers that do not see the workspace's folder"
    )
