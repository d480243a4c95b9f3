"""What a person sees in MLflow's own pages, in a real browser."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flywheel.integrations import mlflow_ui
from flywheel.integrations.mlflow_ui import Ui
from tests import chromium
from tests.integration.mlflow_world import QUIET, generation, world

pytestmark = [
    *QUIET,
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(chromium.PATH is None, reason="chromium is not installed"),
]
COUNT = 12  # more than the ten runs that MLflow charts by itself
ROWS = [10_000 * number for number in range(1, COUNT + 1)]
AUC = [generation(number).metrics["auc"] for number in range(1, COUNT + 1)]


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    with mlflow_ui.serve(world(tmp_path_factory.mktemp("workspace"), COUNT)) as running:
        yield running


@pytest.fixture
def page(tmp_path: Path) -> Iterator[chromium.Page]:
    with chromium.browser(tmp_path / "profile") as tab:
        yield tab


def plots(page: chromium.Page) -> dict[str, list[dict[str, Any]]]:
    """The lines and points of every chart on the page, by the metric that it shows."""
    page.wait("document.querySelectorAll('.js-plotly-plot .main-svg').length")
    found = page.ask(
        """JSON.stringify([...document.querySelectorAll('.js-plotly-plot')].map(plot => ({
            axis: plot.layout.xaxis.title.text,
            metric: plot.data[0].metricKey,
            lines: plot.data.map(d => ({name: d.name, x: Array.from(d.x ?? []), y: Array.from(d.y ?? [])})),
        })))"""
    )
    charts = json.loads(found)
    assert {chart["axis"] for chart in charts} == {"Step"}
    return {chart["metric"]: chart["lines"] for chart in charts}


def test_the_link_lands_on_quality_against_training_rows(ui: Ui, page: chromium.Page) -> None:
    page.open(ui.chart)
    lines = plots(page)["auc"]
    points = {(line["name"], *line["x"], *line["y"]) for line in lines if line["name"].startswith("generation")}
    expected = {(f"generation {n}", rows, auc) for n, (rows, auc) in enumerate(zip(ROWS, AUC, strict=True), 1)}
    assert points == expected
    assert {"name": "learning curve", "x": ROWS, "y": AUC} in lines
    text = page.text()
    assert "Step is the number of rows that it was trained on" in text
    assert "Quality (auc) against data" in text
    width, height = page.ask(
        "(r => [r.width, r.height])(document.querySelector('.js-plotly-plot').getBoundingClientRect())"
    )
    assert width > 350
    assert height > 250
    assert page.failures == []


def test_the_list_shows_verdict_reason_rows_and_metric(ui: Ui, page: chromium.Page) -> None:
    page.open(ui.table)
    page.wait("document.querySelectorAll('.ag-center-cols-container .ag-row').length >= 12")
    heads = page.ask("[...document.querySelectorAll('.ag-header-cell')].map(cell => cell.innerText.trim())")
    assert {"Run Name", "auc", "train_rows", "verdict", "reason"} <= set(heads)
    text = page.text()
    assert "generation 12" in text
    assert "worse for new users by 0.0410" in text
    assert page.failures == []


def test_the_learning_curve_is_a_line_over_rows(ui: Ui, page: chromium.Page) -> None:
    assert ui.curve is not None
    page.open(ui.curve)
    assert {"name": "learning curve", "x": ROWS, "y": AUC} in plots(page)["auc"]
    assert page.failures == []
