"""What is committed works on every machine: no address of an index, no path of the machine it was written on."""

import re
import subprocess

import pytest

from tests.architecture.tree import ROOT

# In two parts, so that this file is none of those it looks for.
NEEDLES = [
    one + other
    for one, other in [
        ("pypi", ".org"),
        ("files.python", "hosted.org"),
        ("--index", "-url"),
        ("extra-index", "-url"),
        ("/opt/", "pypi"),
        ("/ro", "ot/"),
        ("/wo", "rk/"),
        ("/ho", "me/"),
        ("/Us", "ers/"),
    ]
]


def tracked() -> list[str]:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git repository")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_address_of_an_index_and_no_path_of_a_machine() -> None:
    wrong = []
    for name in tracked():
        content = (ROOT / name).read_bytes()
        for needle in NEEDLES:
            before, found, _ = content.partition(needle.encode())
            if found:
                line = before.count(b"\n") + 1
                wrong.append(f"{name}:{line}: {needle}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_are_pinned_with_hashes_and_name_no_address(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    pins = [line for line in text.splitlines() if re.match(r"[a-z0-9]", line)]
    assert pins
    assert [pin for pin in pins if not re.match(r"[a-z0-9._-]+(\[[a-z0-9, _-]+\])?==\S+ ", pin)] == []
    assert [pin for pin in re.split(r"\n(?=[a-z0-9])", text) if "==" in pin and "--hash=sha256:" not in pin] == []
