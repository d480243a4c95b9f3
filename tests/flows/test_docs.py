"""The README cannot lie: what it shows is printed by a run, and what it names is there."""

import json
import re
import subprocess
import sys
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

import pytest

from flows import serving
from flywheel.serve import server
from flywheel.serve.serving import Serving
from flywheel.sources.group_commit import GroupCommit
from flywheel.workspace import Workspace

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


DECIMAL = re.compile(r"[+−-]?\d*\.\d+")
ELSEWHERE = 0.02  # on another processor the last bits of a fit may differ, and with them a metric


def same(shown: str, printed: str) -> bool:
    """Whether two lines say the same, but for the last digits of their decimals."""
    if DECIMAL.sub("#", " ".join(shown.split())) != DECIMAL.sub("#", " ".join(printed.split())):
        return False
    pairs = zip(DECIMAL.findall(shown), DECIMAL.findall(printed), strict=True)
    return all(abs(float(a.replace("−", "-")) - float(b.replace("−", "-"))) <= ELSEWHERE for a, b in pairs)


TURNS = 4  # of those that the README shows: a longer demo begins with the shorter one
EXACT = 3  # weeks until a model serves: from then on another processor's last bits may change who watches what


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The first weeks of the demo as `make demo` runs it: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "build"
    command = [sys.executable, "-m", "flows.cli", "demo", str(folder), "--turns", str(TURNS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def shown(mark: str) -> list[str]:
    """The lines of the README's block under a mark."""
    found = re.search(rf"<!-- {mark}.*?```console\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return [line for line in found[1].splitlines() if line.strip()]


@pytest.mark.slow
def test_the_readme_shows_what_the_demo_prints(demo: tuple[Path, str]) -> None:
    printed = demo[1].splitlines()
    weeks = [line for line in shown("demo") if not (week := re.match(r"week +(\d+)", line)) or int(week[1]) <= EXACT]
    table = [line for line in shown("worlds") if not (week := re.match(r" *(\d+) ", line)) or int(week[1]) <= EXACT]
    assert len(weeks) > EXACT
    assert len(table) >= 3
    place = 0
    for line in [*weeks, *table]:
        found = next((k for k in range(place, len(printed)) if same(line, printed[k])), None)
        assert found is not None, f"the demo does not print, from there on: {line}"
        place = found + 1


@pytest.mark.slow
def test_the_demo_lives_in_three_worlds_and_draws_them(demo: tuple[Path, str]) -> None:
    folder, printed = demo
    assert "promoted: AUC " in printed
    assert all(world in printed for world in ("the wheel", "frozen", "random shelf"))
    for name in ("three-worlds.png", "quality-against-data.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    frozen = Workspace.open(folder / "frozen")
    assert len(frozen.ledger()) == 7 * TURNS  # its windows go on closing
    assert len(frozen.generations()) < TURNS


def test_the_readme_s_request_is_answered(tmp_path: Path) -> None:
    options = re.search(r"flywheel init shop --serve (.*?) +#", README)
    body = re.search(r"-d '(.*?)'", README)
    assert options is not None
    assert body is not None
    command = [sys.executable, "-m", "flows.cli", "init", str(tmp_path / "shop"), "--serve", *options[1].split()]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    ws = Workspace.open(tmp_path / "shop")
    ranker = serving.ranker_of(serving.nothing_known(ws), serving.policy(ws.config))
    with ExitStack() as held:
        held.callback((inbox := serving.inbox(ws)).close)
        answering = Serving(ranker, serving.told(ranker, 0), clock=lambda: 0)
        url = held.enter_context(server.running(ws.config, answering, GroupCommit(inbox)))
        connection = HTTPConnection(url.removeprefix("http://"))
        held.callback(connection.close)
        connection.request("POST", "/v1/rank", body[1], {"content-type": "application/json"})
        answer = connection.getresponse()
        said = json.loads(answer.read())
    assert answer.status == 200, said
    assert [set(item) for item in said["items"]] == [{"item", "propensity", "explored"}]


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:src|flows|expectations|tests)/[\w./]+)`", README))))
def test_what_the_readme_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_promise_\w+)`", README))))
def test_every_promise_has_its_test(name: str) -> None:
    tests = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    assert any(f"def {name}(" in text for text in tests)


@pytest.mark.parametrize("command", sorted(set(re.findall(r"flywheel (\w+)", README)) - {"init"}))
def test_every_command_that_the_readme_names_exists(command: str) -> None:
    from flows.cli import app

    assert command in {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
