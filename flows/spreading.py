"""Where the work of windows and fits is done: here, or on the workers that `[compute]` names."""

import importlib.util
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import TYPE_CHECKING

from flywheel import exchange
from flywheel.data import dataset
from flywheel.errors import ConfigError
from flywheel.exchange import Exchange
from flywheel.fingerprint import atomic_write
from flywheel.learn import parted
from flywheel.learn.matrix import Cache
from flywheel.sections import Compute
from flywheel.workspace import Workspace

if TYPE_CHECKING:
    from flywheel.integrations.dask_cluster import Cluster

_CLUSTER: ContextVar["Callable[[], Cluster] | None"] = ContextVar("cluster", default=None)


@contextmanager
def spreading(ws: Workspace, compute: Compute | None = None) -> Iterator[None]:
    """Have what is done inside done where `compute` says, else the config; a cluster is there from the first work on.

    Raises:
        ConfigError: Dask is asked for and not installed.
    """
    compute = compute or ws.config.compute
    if compute.engine == "local":
        yield
        return
    if importlib.util.find_spec("distributed") is None:
        raise ConfigError(
            "Dask is not installed",
            where='[compute] engine = "dask"',
            next="pip install 'flywheel[dask]', or engine = \"local\"",
        )
    with exchange.through(_exchange(ws, compute.files)), ExitStack() as stack:

        @cache
        def opened() -> "Cluster":
            from flywheel.integrations import dask_cluster  # an extra

            return stack.enter_context(dask_cluster.cluster(compute))

        token = _CLUSTER.set(opened)
        try:
            yield
        finally:
            _CLUSTER.reset(token)


def cluster() -> "Cluster | None":
    """The workers that work is to be spread over; None where it is done here."""
    opened = _CLUSTER.get()
    return None if opened is None else opened()


def build(cache: Cache, windows: list[int], progress: Callable[[int], None] = lambda _: None) -> None:
    """Build the matrices of windows that are missing, and the counters, wherever that is to be done."""
    opened = _CLUSTER.get()
    if (ours := exchange.active()) is not None:
        dataset.send(ours.root / "data")
    spread = None if opened is None else lambda work, items: opened().spread(work, items)
    cache.build(windows, progress, None if spread is None else partial(parted.advance, spread))


def _exchange(ws: Workspace, files: str | None) -> Exchange | None:
    """Where the workspace's files are for its workers: anew once its past was rewritten, or its cache is gone."""
    if files is None:
        return None
    path, chain = ws.cache / "exchange.json", dataset.chain(ws.ledger())
    held = json.loads(path.read_text()) if path.exists() else {"token": secrets.token_hex(8), "address": dataset.START}
    if held["address"] not in (dataset.START, *chain.values()):
        held["token"] = secrets.token_hex(8)
    held["address"] = dataset.fingerprint(ws.ledger())
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda partial: partial.write_text(json.dumps(held)))
    return Exchange(ws.root, f"{files.rstrip('/')}/{ws.config.product.name}-{held['token']}")
