"""The files of a workspace by way of object storage, for workers that do not see its folder.

Each worker has a folder of its own, in which a file has the path that it has in the workspace. It is brought there when
it is needed, and sent off when it is made. What a file was made from stands in its name, so none is ever another one,
and what is there is not brought again. The few whose names say less (ledger, suites, manifests) are brought and sent
anew, by whoever holds the workspace's lock or works for them.

Outside of `through` nothing here does anything: everybody sees the one folder.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from flywheel.errors import ConfigError, FlywheelError

AT_ONCE = 16  # transfers


@dataclass(frozen=True)
class Exchange:
    """A folder here, and its counterpart in object storage, such as s3://bucket/prefix."""

    root: Path
    url: str


_ACTIVE: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


@contextmanager
def through(exchange: Exchange | None) -> Iterator[None]:
    """Have files sent and brought by way of an exchange inside; None is the one folder that all see."""
    token = _ACTIVE.set(exchange)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def active() -> Exchange | None:
    """The exchange that files go through here."""
    return _ACTIVE.get()


def send(paths: Iterable[Path], *, anew: bool = False) -> None:
    """Send files off, `anew` whether or not they are there; one that is not here is left out.

    Raises:
        FlywheelError: the storage does not take them.
    """
    if (ours := _ACTIVE.get()) is None:
        return
    store, wanted = _store(ours.url), [path for path in paths if path.exists()]
    if not anew:
        there = {path for folder in {path.parent for path in wanted} for path in names(folder)}
        wanted = [path for path in wanted if path not in there]

    def one(path: Path) -> None:
        store.put_file(str(path), _there(ours, path))

    _each(ours, one, wanted)


def bring(paths: Iterable[Path], *, anew: bool = False) -> None:
    """Have files here, `anew` whether or not they are; one that is not there is left out.

    Raises:
        FlywheelError: the storage does not give them.
    """
    if (ours := _ACTIVE.get()) is None:
        return
    store = _store(ours.url)

    def one(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        try:
            store.get_file(_there(ours, path), str(partial))
            partial.replace(path)
        except FileNotFoundError:
            return
        finally:
            partial.unlink(missing_ok=True)

    _each(ours, one, [path for path in paths if anew or not path.exists()])


def send_all(folder: Path) -> None:
    """Make a folder there what it is here; files that end in .json are sent anew, as the last."""
    if _ACTIVE.get() is None:
        return
    here = sorted(folder.iterdir()) if folder.exists() else []
    send(path for path in here if path.suffix != ".json")
    send((path for path in here if path.suffix == ".json"), anew=True)
    _drop(set(names(folder)) - set(here))


def bring_all(folder: Path) -> None:
    """Make a folder here what it is there; files that end in .json are brought anew."""
    if _ACTIVE.get() is None:
        return
    there = set(names(folder))
    for path in {path for path in folder.glob("*") if path.is_file()} - there:
        path.unlink()
    bring(path for path in there if path.suffix != ".json")
    bring((path for path in there if path.suffix == ".json"), anew=True)


def names(folder: Path, prefix: str = "") -> list[Path]:
    """The files in a folder there, and in those within it, by the paths that they have here; a file is itself alone."""
    if (ours := _ACTIVE.get()) is None:
        return []
    base = f"{_base(ours)}/"
    with _answering(ours):
        found = _store(ours.url).find(_there(ours, folder), prefix=prefix)
    return [ours.root / name.removeprefix(base) for name in found]


def drop(path: Path) -> None:
    """Delete a file there, or all that is in a folder."""
    _drop(names(path))


def _drop(paths: Iterable[Path]) -> None:
    ours, gone = _ACTIVE.get(), list(paths)
    if ours is not None and gone:
        with _answering(ours):
            _store(ours.url).rm([_there(ours, path) for path in gone])


def _each(ours: Exchange, work: Callable[[Path], None], paths: list[Path]) -> None:
    with _answering(ours), ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(work, paths))


def _there(ours: Exchange, path: Path) -> str:
    return f"{_base(ours)}/{path.relative_to(ours.root).as_posix()}"


def _base(ours: Exchange) -> str:
    import fsspec  # here and not above: most commands have no exchange

    return str(fsspec.core.split_protocol(ours.url)[1])


@lru_cache(maxsize=1)
def _store(url: str) -> Any:
    """The storage; what it holds is asked anew each time, for others write there."""
    import fsspec

    try:
        return fsspec.filesystem(fsspec.core.split_protocol(url)[0], use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            "the workers' files cannot go there", where=f"[compute] files = {url!r}", why=str(error),
            next="pip install 'flywheel[s3]' here and on the workers"
        ) from None  # fmt: skip


@contextmanager
def _answering(ours: Exchange) -> Iterator[None]:
    try:
        yield
    except FlywheelError:
        raise
    except Exception as error:  # noqa: BLE001  each storage has errors of its own
        raise FlywheelError(
            "the storage of the workers' files does not answer as it should",
            where=f"[compute] files = {ours.url!r}",
            why=(str(error).splitlines() or [type(error).__name__])[0][:300],
            next="see that the bucket is there, with its credentials set here and on the workers; then the same again",
        ) from None
