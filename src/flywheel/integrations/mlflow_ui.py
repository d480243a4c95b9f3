"""MLflow's own pages, opened where quality stands against data.

MLflow opens an experiment in its layout for language models, on a list without metrics. A shared view, which MLflow
keeps as a tag of the experiment, opens it on the chart instead.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from flywheel.errors import RegistryError
from flywheel.integrations.mlflow_store import Store, address

VIEW = "quality-against-data"
_COLUMNS = ("metrics.`train_rows`", "tags.`verdict`", "tags.`reason`")


@dataclass(frozen=True)
class Ui:
    """A running server, and the links worth opening."""

    url: str
    chart: str
    table: str
    curve: str | None


@contextmanager
def serve(store: Store, *, metric: str = "auc", port: int = 0, patience: float = 90.0) -> Iterator[Ui]:
    """Run `mlflow server` on the loopback address until the block ends.

    Args:
        store: whose generations to show.
        metric: the one to chart.
        port: 0 takes a free one.
        patience: seconds it may take to answer.

    Raises:
        RegistryError: it does not start, or not in time.
    """
    share(store, metric)
    port = _claim(port)
    log = store.root / ".flywheel" / "mlflow-ui.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as out:
        child = subprocess.Popen(
            _command(address(store.root, store.registry), port),
            stdout=out,
            stderr=out,
            env=_environment(),
            cwd=store.root,
        )
        try:
            _await(child, port, log, patience)
            yield links(store, f"http://127.0.0.1:{port}")
        finally:
            _stop(child)


def links(store: Store, url: str) -> Ui:
    """The links that land on the chart, on the list of generations, and on the learning curve."""
    base = f"{url}/#/experiments/{store.experiment}"
    view = f"{base}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"
    with store.answering():
        found = store.client.search_runs([store.experiment], "tags.kind = 'learning-curve'", max_results=1)
    curve = f"{base}/runs/{found[0].info.run_id}/model-metrics?workflowType=machine_learning" if found else None
    return Ui(url, f"{view}&compareRunsMode=CHART", f"{view}&compareRunsMode=TABLE", curve)


def share(store: Store, metric: str) -> None:
    """Keep the view that the links open as a tag of the experiment."""
    name = f"Quality ({metric}) against data"
    value = {"name": name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(_state(metric))}
    tags = {f"mlflow.sharedViewState.{VIEW}": json.dumps(value), "mlflow.experiment.primaryMetric.name": metric}
    with store.answering():
        for key, text in tags.items():
            store.client.set_experiment_tag(store.experiment, key, text)


def _state(metric: str) -> dict[str, Any]:
    section = {"uuid": "flywheel", "name": "Quality against data", "display": True}
    section |= {"isReordered": False, "deleted": False, "isGenerated": False, "columns": 1, "cardHeight": 460}
    return {
        "searchFilter": "attributes.status = 'FINISHED'",
        "orderByKey": "metrics.`train_rows`",
        "orderByAsc": True,
        "selectedColumns": [f"metrics.`{metric}`", *_COLUMNS],
        "runsHiddenMode": "SHOW_ALL",
        "compareRunSections": [section],
        "compareRunCharts": [_line(metric), _line(f"baseline_{metric}"), _line("delta")],
    }


def _line(metric: str) -> dict[str, Any]:
    return {
        "type": "LINE",
        "uuid": f"flywheel-{metric}",
        "metricSectionId": "flywheel",
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "displayName": f"{metric} by number of training rows",
        "xAxisKey": "step",
        "useGlobalXaxisKey": False,
        "displayPoints": True,
        "lineSmoothness": 0,
        "useGlobalLineSmoothing": False,
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "selectedXAxisMetricKey": "",
        "range": {},
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
    }


def _command(url: str, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
        *("--backend-store-uri", url, "--host", "127.0.0.1", "--port", str(port)),
    ]


def _environment() -> dict[str, str]:
    return os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def _claim(port: int) -> int:
    # on a taken port, whoever holds it would answer for us
    with socket.socket() as claim:
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            claim.bind(("127.0.0.1", port))
        except OSError as error:
            raise RegistryError(
                f"port {port} on 127.0.0.1 cannot be used", why=str(error), next="flywheel ui --port 0"
            ) from None
        return int(claim.getsockname()[1])


def _await(child: "subprocess.Popen[bytes]", port: int, log: Path, patience: float) -> None:
    opener = build_opener(ProxyHandler({}))
    until = time.monotonic() + patience
    while child.poll() is None and time.monotonic() < until:
        with suppress(URLError, OSError), opener.open(f"http://127.0.0.1:{port}/health", timeout=5):
            return
        time.sleep(0.2)
    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    raise RegistryError(
        "mlflow server does not answer", where=str(log), why=lines[-1][:200], next="flywheel ui --port PORT"
    )


def _stop(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
