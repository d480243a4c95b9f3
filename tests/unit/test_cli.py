"""The command starts at once: no help page waits for a library that it does not need."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from flows.cli import app

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("prefect", "mlflow", "dvc", "great_expectations", "xgboost", "pandas", "numpy", "pyarrow")
COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
ALL_HELP = f"""
import contextlib, io, json, sys
from flows.cli import app
told = {{}}
for words in [[], *([name] for name in {COMMANDS})]:
    page = io.StringIO()
    with contextlib.redirect_stdout(page):
        try:
            app([*words, "--help"])
        except SystemExit as end:
            told[" ".join(words)] = [end.code, page.getvalue()]
print(json.dumps([told, [name for name in {HEAVY} if name in sys.modules]]))
"""


def flywheel(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "flows.cli", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def pages() -> tuple[dict[str, tuple[int, str]], list[str]]:
    """Every help page with its exit code, and the heavy libraries that it took to make them all."""
    done = subprocess.run([sys.executable, "-c", ALL_HELP], cwd=ROOT, capture_output=True, text=True, check=True)
    told, loaded = json.loads(done.stdout)
    return told, loaded


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_exits_with_0_and_says_what_the_command_does(
    pages: tuple[dict[str, tuple[int, str]], list[str]], command: str
) -> None:
    code, page = pages[0][command]
    assert code == 0
    assert "Usage:" in page
    assert "--help" in page


def test_no_help_loads_a_heavy_library(pages: tuple[dict[str, tuple[int, str]], list[str]]) -> None:
    assert pages[1] == []


def test_the_first_page_names_every_command_and_the_exit_codes(
    pages: tuple[dict[str, tuple[int, str]], list[str]],
) -> None:
    page = pages[0][""][1]
    assert [name for name in COMMANDS if name not in page] == []
    assert "75 busy" in page


def test_an_unknown_command_is_a_usage_error() -> None:
    done = flywheel("tunr")
    assert done.returncode == 2
    assert "tunr" in done.stderr
