"""The workflows parse, ask for no more rights than they need, and call exactly the README's commands."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("ci", "nightly")


def workflow(name: str) -> dict[Any, Any]:
    held: dict[Any, Any] = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text(encoding="utf-8"))
    return held


def steps(name: str) -> list[dict[str, Any]]:
    return [step for job in workflow(name)["jobs"].values() for step in job["steps"]]


def made(name: str) -> list[str]:
    return [run for step in steps(name) for run in re.findall(r"^make .*$", step.get("run", ""), re.M)]


def test_a_fresh_runner_runs_the_two_commands_of_the_readme() -> None:
    readme = re.findall(r"^ {4}(make (?:demo|test))\b", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert made("ci") == readme == ["make demo", "make test"]
    assert set(workflow("ci")[True]) == {"push", "pull_request"}  # YAML 1.1 reads the key `on` as true


def test_every_night_the_same_is_run_with_the_latest_versions_and_a_failure_is_seen() -> None:
    assert made("nightly") == ["make lock", "make demo", "make test"]
    assert workflow("nightly")[True]["schedule"]
    told = next(step for step in steps("nightly") if step.get("if") == "failure()")
    assert "gh issue create" in told["run"]
    assert not any(step.get("continue-on-error") for step in steps("nightly"))


@pytest.mark.parametrize(
    ("name", "rights"), [("ci", {"contents": "read"}), ("nightly", {"contents": "read", "issues": "write"})]
)
def test_a_workflow_may_do_only_what_it_needs(name: str, rights: dict[str, str]) -> None:
    assert workflow(name)["permissions"] == rights
    assert not any("permissions" in job for job in workflow(name)["jobs"].values())
    assert all(job["timeout-minutes"] for job in workflow(name)["jobs"].values())
    used = [step["uses"] for step in steps(name) if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in used)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_a_stranger_writes_is_run(name: str) -> None:
    for step in steps(name):
        assert "${{" not in step.get("run", "")
