"""The README cannot lie: what it shows is printed by a run, and what it names is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo as `make demo` runs it: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "build"
    command = [sys.executable, "-m", "flows.cli", "demo", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_the_readme_shows_what_the_demo_prints(demo: tuple[Path, str]) -> None:
    printed = demo[1].splitlines()
    shown = re.search(r"<!-- demo.*?```console\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    lines = [line for line in shown[1].splitlines() if line.strip()]
    assert len(lines) > 10
    place = 0
    for line in lines:
        found = next((k for k in range(place, len(printed)) if same(line, printed[k])), None)
        assert found is not None, f"the demo does not print, from there on: {line}"
        place = found + 1


@pytest.mark.slow
def test_the_demo_makes_at_least_six_generations_and_a_picture(demo: tuple[Path, str]) -> None:
    folder, printed = demo
    made = re.findall(r"^ +\d+ +20\d\d-\d\d-\d\d .*(?:promote|keep|reject)", printed, re.MULTILINE)
    assert len(made) >= 6
    assert any("promote" in line for line in made)
    assert "user must not be null" in printed
    assert (folder / "quality-against-data.png").read_bytes().startswith(b"\x89PNG")


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
