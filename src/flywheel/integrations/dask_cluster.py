"""Work spread over the workers of a Dask cluster, which is handed references and hands back as little.

Where workers do not see the workspace's folder, a path in it travels as one in the folder of whoever gets it.
"""

import hashlib
import io
import logging
import math
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn

import cloudpickle  # type: ignore[import-untyped]
import dask
from dask.utils import funcname
from distributed import Client, Future, LocalCluster, get_worker, wait
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker
from xgboost.core import XGBoostError
from xgboost.dask import CommunicatorContext
from xgboost.tracker import RabitTracker

from flywheel import exchange
from flywheel.errors import ConfigError, FlywheelError
from flywheel.exchange import Exchange
from flywheel.sections import Compute

PATIENCE = 60  # seconds that a cluster may take to have its workers
TRIES = 3  # of a fit that loses a worker: it begins again, for it is either whole or not at all


@dataclass(frozen=True)
class Cluster:
    """The workers that a turn's work is spread over; so many of them fit a model together."""

    client: Client
    parts: int

    def spread(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Have each item worked at by some worker; what comes of them, in their order.

        Work that loses its worker is done again by another, so it must be such as can be done again.
        """
        futures = self.client.map(_sent(work), list(items), key=funcname(work), pure=False)
        try:
            for future in futures:
                yield _received(future.result())
        except (KilledWorker, CommClosedError, CancelledError) as error:
            _gone(error)
        finally:
            self.client.cancel(futures)

    def together(self, work: Callable[[Any, int], Any], items: Sequence[Any]) -> Any:
        """Have all items worked at at once, each by a worker of its own, joined by XGBoost's collective.

        `work` is given an item and how many threads it may have. What comes of it is the same for all, and returned
        once. Where a worker is lost all begin again.
        """
        for left in reversed(range(TRIES)):
            workers = self._ready(len(items))
            where = self.client.run_on_scheduler(_track, len(items), _host(self.client))
            futures = [
                self.client.submit(_joined, _sent(work), item, rank, where, workers=[worker], pure=False)
                for rank, (worker, item) in enumerate(zip(workers, items, strict=True))
            ]
            try:
                self._done(futures, workers)
                return _received(futures[0].result())
            except (KilledWorker, CommClosedError, CancelledError, XGBoostError) as error:
                self._give_up(futures, workers)
                if not left:
                    _gone(error)
        raise AssertionError("unreachable")

    def _ready(self, most: int) -> list[str]:
        """The addresses of so many workers, once they are there."""
        try:
            self.client.wait_for_workers(most, timeout=PATIENCE)
        except TimeoutError as error:
            raise FlywheelError(
                f"a fit in {most} parts needs as many workers, and there are {len(self._workers())}",
                where=self.client.scheduler.address,
                why=str(error),
                next="start more workers, or lower workers in [compute]",
            ) from None
        return sorted(self._workers())[:most]

    def _done(self, futures: list[Future], workers: Sequence[str]) -> None:
        """Return once all are done; raise what one of them raised, or that a worker is gone."""
        while not all(future.done() for future in futures):
            with suppress(TimeoutError):
                wait(futures, timeout=1)
            for future in futures:
                if future.done():
                    future.result()
            if lost := set(workers) - self._workers():
                raise CancelledError(f"{', '.join(sorted(lost))} is gone")

    def _give_up(self, futures: list[Future], workers: Sequence[str]) -> None:
        """End the parts that wait for one that will not come: nothing but their process's end can."""
        self.client.cancel(futures, force=True)
        left = sorted(set(workers) & self._workers())
        if left:
            self.client.restart_workers(left, timeout=PATIENCE, raise_for_error=False)

    def _workers(self) -> set[str]:
        return set(self.client.scheduler_info(n_workers=-1)["workers"])


@dataclass(frozen=True)
class _Sent:
    """Work for a worker that has a folder of its own."""

    url: str
    packed: bytes

    def __call__(self, *given: Any) -> bytes:
        folder = Path(get_worker().local_directory) / hashlib.sha256(self.url.encode()).hexdigest()[:16]
        with exchange.through(Exchange(folder, self.url)):
            return _pack(pickle.loads(self.packed)(*given), folder)


def _sent(work: Callable[..., Any]) -> Callable[..., Any]:
    ours = exchange.active()
    return work if ours is None else _Sent(ours.url, _pack(work, ours.root))


def _received(made: Any) -> Any:
    return made if exchange.active() is None else pickle.loads(made)


class _Packing(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles a path in a folder as one in whichever folder its reader has."""

    def __init__(self, stream: io.BytesIO, folder: Path) -> None:
        super().__init__(stream)
        self.folder = folder

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Path) and value.is_relative_to(self.folder):
            return _within, (value.relative_to(self.folder).as_posix(),)
        return super().reducer_override(value)


def _pack(value: Any, folder: Path) -> bytes:
    stream = io.BytesIO()
    _Packing(stream, folder).dump(value)
    return stream.getvalue()


def _within(name: str) -> Path:
    ours = exchange.active()
    assert ours is not None
    return ours.root / name


def _track(parts: int, host: str) -> dict[str, Any]:
    """Start what the parts of one work find each other by, where the scheduler is; how to reach it."""
    tracker = RabitTracker(parts, host, sortby="task")
    tracker.start()

    def stay() -> None:
        with suppress(XGBoostError):  # the parts tell what went wrong
            tracker.wait_for()

    Thread(target=stay, daemon=True).start()
    return dict(tracker.worker_args())


def _joined(work: Callable[[Any, int], Any], item: Any, rank: int, where: dict[str, Any]) -> Any:
    """One part of what is worked at together; only the first hands anything back."""
    joined = CommunicatorContext(**where)
    joined.args["DMLC_TASK_ID"] = f"{rank:06}"  # ranks, and with them the model, hang on no worker's address
    with joined:
        made = work(item, get_worker().state.nthreads)
    return made if rank == 0 else None


def _host(client: Client) -> str:
    return str(client.scheduler.address).partition("://")[2].rpartition(":")[0].strip("[]")


def _gone(error: BaseException) -> NoReturn:
    why = (str(error).splitlines() or [type(error).__name__])[0][:200]
    raise FlywheelError(
        "the cluster could not do its work", why=why, next="flywheel turn; what is finished is taken up"
    ) from None


@contextmanager
def cluster(compute: Compute) -> Iterator[Cluster]:
    """The cluster at `compute.address`, or processes of this machine that end with the context.

    Raises:
        ConfigError: there is no scheduler at the address.
    """
    logging.getLogger("distributed").setLevel(logging.ERROR)  # what matters is raised
    # A cluster of processes gives up a worker that is away 15 s after it was lost, be it by then lost once more. On a
    # busy machine, where a worker imports for longer, such clusters shrink. How long to wait is said by PATIENCE.
    ours = {"distributed.logging.distributed": "error", "distributed.deploy.lost-worker-timeout": "24h"}
    with ExitStack() as stack, dask.config.set(ours):
        address: str | LocalCluster | None = compute.address
        if address is None:
            threads = max(1, math.floor((os.cpu_count() or 1) / compute.workers))
            address = stack.enter_context(
                LocalCluster(
                    n_workers=compute.workers,
                    threads_per_worker=threads,
                    memory_limit=0,  # what is large is in files
                    dashboard_address=None,
                )
            )
        try:
            client = stack.enter_context(Client(address, timeout=PATIENCE))
        except (OSError, TimeoutError, ValueError) as error:
            raise ConfigError(
                "the Dask scheduler does not answer",
                where=f"[compute] address = {compute.address!r}",
                why=(str(error).splitlines() or [type(error).__name__])[0],
                next="dask scheduler, or remove the address to have a cluster of this machine's processes",
            ) from None
        yield Cluster(client, compute.workers)
