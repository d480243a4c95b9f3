"""The files a new workspace begins with. The comments of flywheel.toml are the descriptions of its fields."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import tomlkit
from pydantic.fields import FieldInfo

from flywheel.config import FILE, Config
from flywheel.errors import ConfigError
from flywheel.fingerprint import atomic_write
from flywheel.sections import Attributes, Counter, Section
from flywheel.windows import format_duration

IGNORED = ("/inbox/", "/.flywheel/", "/mlruns/")
WIDTH = 110
INDENT = 40  # where comments begin at the latest, unless a value reaches further
HEADER = """\
# What this wheel turns on. A line that begins with "# name =" shows a default: uncomment it to change it.
# FLYWHEEL_SECTION__KEY in the environment wins over a key in here. Durations are 90s, 15m, 6h, 28d or 2w.
"""
ALWAYS = {  # written out even where they are the defaults: what people look for first
    "Contract": ("kind", "numeric", "categorical", "outcomes", "naive_timestamps"),
    "WindowsConfig": ("attribution", "lateness", "silence"),
    "Exam": ("windows", "rows"),
}
SQL_ONLY = ("table", "query", "cursor")


def write_workspace(root: Path, config: Config, suites: Mapping[str, Mapping[str, Any]]) -> tuple[Path, ...]:
    """Write a workspace's files; flywheel.toml comes last, so that a workspace that was cut short is none.

    Args:
        root: the folder; made if it is not there.
        config: what flywheel.toml shall say.
        suites: by name, what `expectations/<name>.json` shall hold.

    Returns:
        The files written, in order.

    Raises:
        ConfigError: the folder is a workspace already; nothing is changed.
    """
    _refuse_twice(root)
    written = [write_ignored(root)]
    for name, suite in suites.items():
        text = json.dumps(suite, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        written.append(_write(root / "expectations" / f"{name}.json", text))
    return (*written, write_config(root, config))


def write_config(root: Path, config: Config) -> Path:
    """Write `root/flywheel.toml` with its comments; reading it back gives the same config.

    Raises:
        ConfigError: there is one already.
    """
    _refuse_twice(root)
    return _write(root / FILE, render(config))


def write_ignored(root: Path) -> Path:
    """Have git ignore what is not to be versioned; lines that are already there stay."""
    path = root / ".gitignore"
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return _write(path, "\n".join([*before, *(line for line in IGNORED if line not in before)]) + "\n")


def render(config: Config) -> str:
    """The text of flywheel.toml."""
    blocks = [HEADER + "\n" + "\n".join(_lines(_plain_fields(config), config))]
    for name in Config.model_fields:
        value = getattr(config, name)
        if isinstance(value, Section):
            blocks.append("\n".join([f"# {_says(type(value))}", f"[{name}]", *_lines(_shown(value), value)]))
        elif name == "attributes" and config.serve is None:
            blocks += [_attributes(table) for table in value] or [_attributes_example()]
    return "\n\n".join(blocks) + "\n"


def _refuse_twice(root: Path) -> None:
    if (root / FILE).exists():
        why = "init never writes over one"
        raise ConfigError(f"{root} is a workspace already", where=str(root / FILE), why=why, next=f"edit {FILE}")


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def _plain_fields(config: Config) -> list[str]:
    """The keys that stand before the first table."""
    return [name for name in Config.model_fields if isinstance(getattr(config, name), int | float | str)]


def _shown(section: Section) -> list[str]:
    names = list(type(section).model_fields)
    return [name for name in names if name not in SQL_ONLY or getattr(section, "is_sql", True)]


def _says(section: type[Section]) -> str:
    return (section.__doc__ or "").strip()


def _lines(names: Sequence[str], section: Section) -> list[str]:
    """One line a key, with its description behind it, or before it where there is no room."""
    always = ALWAYS.get(type(section).__name__, ())
    pairs = []
    for name in names:
        field, value = type(section).model_fields[name], getattr(section, name)
        live = field.is_required() or name in always or value != field.default
        pairs.append((_assign(name, value, field, live=live), field.description or ""))
    column = max([len(text) for text, _ in pairs if len(text) < INDENT], default=0) + 2
    return [line for text, says in pairs for line in _comment(text, says, column)]


def _comment(text: str, says: str, column: int) -> list[str]:
    if text.startswith("counters = "):
        return [*_counter_words(), text]
    beside = f"{text.ljust(column - 2)}  # {says}"
    if not says:
        return [text]
    return [beside] if "\n" not in text and len(beside) <= WIDTH else [f"# {says}", text]


def _assign(name: str, value: object, field: FieldInfo, *, live: bool) -> str:
    text = f"{name} = {_toml(_example(field) if value is None else value)}"
    if isinstance(value, tuple) and value and (name == "counters" or len(text) > WIDTH):
        text = f"{name} = [\n" + "".join(f"  {_toml(part)},\n" for part in value) + "]"
    return text if live else "# " + text


def _example(field: FieldInfo) -> object:
    """What may stand for a key that has no default: the first of its choices."""
    choices = [arg for part in get_args(field.annotation) if get_origin(part) is Literal for arg in get_args(part)]
    return choices[0] if choices else "..."


def _counter_words() -> list[str]:
    """What the keys of a counter mean."""
    words = [f"#   {name}: {field.description}" for name, field in Counter.model_fields.items()]
    return [f"# {_says(Counter)}", *words]


def _attributes(table: Attributes) -> str:
    return "\n".join([f"# {_says(Attributes)}", "[[attributes]]", *_lines(list(Attributes.model_fields), table)])


def _attributes_example() -> str:
    names = [name for name, field in Attributes.model_fields.items() if field.is_required() or name == "categorical"]
    example = Attributes(url="items.csv", key="item", column="item_id", categorical=("genre",))
    lines = ["[[attributes]]", *_lines(names, example)]
    return "\n".join([f"# {_says(Attributes)}", *(f"# {line}" for line in lines)])


def _toml(value: object) -> str:
    """A value on one line of TOML; no value at all means forever, as in half_lives."""
    if isinstance(value, Section):
        return _toml({name: part for name in type(value).model_fields if (part := getattr(value, name)) is not None})
    if isinstance(value, dict):
        return "{" + ", ".join(f"{tomlkit.key(name).as_string()} = {_toml(part)}" for name, part in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(part) for part in value) + "]"
    if value is None or isinstance(value, timedelta):
        return _toml("forever" if value is None else format_duration(value))
    return str(tomlkit.item(value).as_string())
