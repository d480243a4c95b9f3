"""The source tree as these tests read it: modules by name, what each imports and where, without importing any."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Module:
    """One file of `src` or `flows`."""

    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def room(self) -> str:
        """What stands after `flywheel.`, to the next dot: a folder's name, or a single module's; or `flows`."""
        top, _, rest = self.name.partition(".")
        return top if top == "flows" or not rest else rest.partition(".")[0]

    def at(self, node: ast.stmt | ast.expr | ast.excepthandler) -> str:
        """Where a node is, as editors and terminals understand it."""
        return f"{self.path.relative_to(ROOT)}:{node.lineno}"


@dataclass(frozen=True)
class Import:
    """One imported name; `target` is a module of ours where it is one, else the dotted name as written."""

    by: Module
    target: str
    where: str
    checked_only: bool


@cache
def modules() -> dict[str, Module]:
    """Every module of `src` and `flows`, by name."""
    found = {}
    for base in (ROOT / "src", ROOT):
        top = "flows" if base == ROOT else "flywheel"
        for path in sorted((base / top).rglob("*.py")):
            name = ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
            text = path.read_text(encoding="utf-8")
            found[name] = Module(name, path, ast.parse(text), len(text.splitlines()))
    return found


@cache
def imports() -> tuple[Import, ...]:
    """Every import in `src` and `flows`, inside functions too."""
    return tuple(found for module in modules().values() for found in _imports(module))


def _imports(module: Module) -> Iterator[Import]:
    checked = {
        id(below)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for below in ast.walk(node)
    }
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.at(node)}: a relative import"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = [name if name in modules() else str(node.module) for name in full]
        else:
            continue
        yield from (Import(module, target, module.at(node), id(node) in checked) for target in targets)
