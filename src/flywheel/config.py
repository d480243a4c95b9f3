"""`flywheel.toml` as frozen values: file < environment (`FLYWHEEL_…`) < argument.

Unknown keys are refused with the nearest known one.
"""

import difflib
import hashlib
import os
import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from flywheel.errors import ConfigError
from flywheel.schedule import Schedule
from flywheel.sections import (
    BY_THE_RANKER,
    Attributes,
    Compute,
    Contract,
    Exam,
    Features,
    Gate,
    Inbox,
    Product,
    Registry,
    Section,
    Serve,
    SourceConfig,
    Train,
    WindowsConfig,
)
from flywheel.watched import Monitor, masked

FILE = "flywheel.toml"
AFTER_THE_EXAM = {"canary", "canary_margin", "canary_timeout", "approval", "approval_timeout"}
LOGGED = ("user", "item", "request", "event_id", "label_time", "position", "propensity")  # of what was served


class Config(Section):
    """The whole of flywheel.toml."""

    product: Product
    source: SourceConfig | None = Field(None, description="what to read; not needed by whoever serves")
    inbox: Inbox | None = Field(None, description="where to log, if not in inbox/inbox.db")
    registry: Registry | None = Field(None, description="where to keep generations, if not under mlruns/")
    contract: Contract
    attributes: tuple[Attributes, ...] = ()
    windows: WindowsConfig
    features: Features = Features()
    train: Train = Train()
    exam: Exam = Exam()
    gate: Gate = Gate()
    serve: Serve | None = Field(None, description="how to answer people; without it nobody is served")
    schedule: Schedule = Schedule()
    monitor: Monitor = Monitor()
    compute: Compute = Compute()
    commit_data: bool = Field(False, description="commit data.dvc to git after every turn that closed a window")
    max_quarantined: float = Field(
        0.2, gt=0, le=1, description="share of a window's rows that may be quarantined before it is blocked"
    )

    @model_validator(mode="after")
    def _counters_use_known_columns(self) -> "Config":
        known = {"user", "item", *self.context}
        for counter in self.features.counters:
            unknown = sorted(set(counter.key) - known)
            if unknown:
                raise ValueError(
                    f"counter {counter.name} uses {', '.join(unknown)}; known are {', '.join(sorted(known))}"
                )
            if sum(column in self.lists for column in counter.key) > 1:
                raise ValueError(f"counter {counter.name} has more than one list-valued column")
        return self

    @model_validator(mode="after")
    def _rows_come_from_somewhere(self) -> "Config":
        if self.source is None and self.serve is None:
            raise ValueError("a wheel needs rows: add a [source] to read, or [serve] to answer people")
        if self.serve is None:
            return self
        missing = [role for role in LOGGED if getattr(self.contract, role) is None]
        if missing:
            raise ValueError(f"whoever serves logs what was shown: name columns for {', '.join(missing)} in [contract]")
        taken = sorted({*BY_THE_RANKER} & {*self.contract.context, *self.contract.outcomes})
        if taken:
            raise ValueError(f"context may not be called {', '.join(taken)}: the ranker logs under these names")
        if self.attributes:
            raise ValueError("[[attributes]] are not looked up while people wait: send them with the candidates")
        return self

    @model_validator(mode="after")
    def _a_canary_serves(self) -> "Config":
        if self.gate.canary and self.serve is None:
            raise ValueError(
                "a canary answers people first, and without [serve] nobody is answered: remove gate.canary"
            )
        return self

    @property
    def numeric(self) -> tuple[str, ...]:
        """Numeric context, of rows and of attribute tables."""
        return (*self.contract.numeric, *(c for table in self.attributes for c in table.numeric))

    @property
    def categorical(self) -> tuple[str, ...]:
        """Categorical context, of rows and of attribute tables."""
        return (*self.contract.categorical, *(c for table in self.attributes for c in table.categorical))

    @property
    def lists(self) -> dict[str, str]:
        """List-valued context with its separators, of rows and of attribute tables."""
        return self.contract.lists | {k: v for table in self.attributes for k, v in table.lists.items()}

    @property
    def context(self) -> tuple[str, ...]:
        """Every context column, of rows and of attribute tables."""
        return (*self.numeric, *self.categorical, *self.lists)

    @property
    def inbox_url(self) -> str | None:
        """Where decisions and outcomes arrive; None for the workspace's own inbox/inbox.db."""
        return self.inbox.url if self.inbox else None

    @property
    def metric(self) -> str:
        """The metric that decides."""
        return self.gate.metric or ("auc" if self.contract.kind == "binary" else "rmse")

    @property
    def told(self) -> "Config":
        """The same for everybody to read: without the passwords in its URLs, and with what tells people cut short."""
        values = self.model_dump()
        for section in ("source", "inbox", "registry"):
            if values[section]:
                values[section]["url"] = re.sub(r"(://[^:/@]*):.*@", r"\1@", values[section]["url"])
        values["monitor"]["notify"] = tuple(map(masked, self.monitor.notify))
        return Config.model_validate(values)

    def fingerprint(self, *sections: str) -> str:
        """A short hash of the named sections: equal configs, equal hash.

        If none is named, of all but schedule, monitor, the workers and what comes after the exam: none of them changes
        what is decided in it.
        """
        left_out: dict[str, Any] = {"schedule": True, "monitor": True, "compute": True, "gate": AFTER_THE_EXAM}
        chosen = self.model_dump_json(include=set(sections) if sections else None, exclude=left_out, exclude_none=True)
        return hashlib.sha256(chosen.encode()).hexdigest()[:12]


def load(root: Path) -> Config:
    """Read `root/flywheel.toml` under the environment.

    Raises:
        ConfigError: the file is absent, is no TOML, or has an unknown key or a value of the wrong kind.
    """
    path = root / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{root} is not a workspace: it has no {FILE}", next=f"flywheel init {root} --from FILE"
        ) from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{FILE} is not valid TOML", where=str(path), why=str(error)) from None
    return parse(_overlay(values, os.environ), where=str(path))


def laid_over(config: Config) -> Config:
    """The config under the environment, as it is for whoever loads it once it is written.

    Raises:
        ConfigError: the environment has a value of the wrong kind.
    """
    return parse(_overlay(config.model_dump(mode="json", exclude_none=True), os.environ))


def parse(values: dict[str, Any], *, where: str = FILE) -> Config:
    """Check raw values against the contract of flywheel.toml.

    Raises:
        ConfigError: names the key, and for an unknown one the nearest that is known.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # the cause of a key that is missing
        key = ".".join(str(part) for part in first["loc"]) or "flywheel.toml"
        if first["type"] == "extra_forbidden":
            why = f"the nearest known key is {_nearest(first['loc'])}"
            raise ConfigError(f"unknown key {key}", where=where, why=why, next=f"edit {FILE}") from None
        why = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{key} cannot be read", where=where, why=why, next=f"edit {FILE}") from None


def _overlay(values: dict[str, Any], environment: "os._Environ[str] | dict[str, str]") -> dict[str, Any]:
    """Lay `FLYWHEEL_SECTION__KEY=value` over the file's values; a value is read as TOML, else as text."""
    for name, text in environment.items():
        section, _, key = name.removeprefix("FLYWHEEL_").lower().partition("__")
        if not name.startswith("FLYWHEEL_") or section not in Config.model_fields or not key:
            continue
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        values = values | {section: values.get(section, {}) | {key: value}}
    return values


def _nearest(location: tuple[int | str, ...]) -> str:
    model: Any = Config
    for part in location[:-1]:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            model = next((a for a in getattr(annotation, "__args__", ()) if isinstance(a, type)), annotation)
    matches = difflib.get_close_matches(str(location[-1]), model.model_fields, n=1, cutoff=0)
    return ".".join([*(str(part) for part in location[:-1]), *matches])


def read_time(text: str) -> datetime:
    """Read an instant such as `2014-12-02` or `2014-12-02T03:00Z`; without a zone it is UTC.

    Raises:
        ConfigError: it is no ISO 8601 time.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a time", why="write it as 2014-12-02 or 2014-12-02T03:00Z") from None
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
