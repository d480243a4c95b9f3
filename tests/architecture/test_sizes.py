"""Files and functions that can be read in one go, errors caught by name, one module that prints, one that loads."""

import ast
from collections.abc import Iterator
from statistics import median, quantiles

from tests.architecture.tree import Module, modules

LINES = {"flywheel": 300, "flows": 330}
LONGER = {
    "flywheel.integrations.mlflow_tracking": 360,  # what a generation's run holds, written and read side by side
}
CATCHES_ALL = {
    "flywheel.exchange": 1,  # each storage has errors of its own
    "flywheel.integrations.mlflow_tracking": 1,  # whatever ends an attempt, its run says so; and it is raised again
    "flywheel.learn.custom": 2,  # a workspace's own features.py may raise anything
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions() -> Iterator[tuple[Module, Function]]:
    for module in modules().values():
        for node in ast.walk(module.tree):
            if isinstance(node, Function):
                yield module, node


def body_lines(function: Function) -> int:
    """The lines of a function below its docstring."""
    body = function.body[ast.get_docstring(function) is not None :]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]


def test_files_can_be_read_in_one_go() -> None:
    limits = {name: LONGER.get(name, LINES[name.partition(".")[0]]) for name in modules()}
    assert {name: m.lines for name, m in modules().items() if m.lines > limits[name]} == {}
    assert median(module.lines for module in modules().values() if module.lines) <= 150


def test_functions_are_short() -> None:
    sizes = {f"{module.at(function)} {function.name}": body_lines(function) for module, function in functions()}
    assert {place: size for place, size in sizes.items() if size > 60} == {}
    assert median(sizes.values()) <= 10
    assert quantiles(sizes.values(), n=10)[-1] <= 30


def test_one_module_prints() -> None:
    calls = [
        (name, module.at(node))
        for name, module in modules().items()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert {name for name, _ in calls} == {"flows.commands.terminal"}, calls


def test_one_module_loads_arrays() -> None:
    calls = [
        (name, module.at(node))
        for name, module in modules().items()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load")
    ]
    assert {name for name, _ in calls} == {"flywheel.segments"}, calls


def test_errors_are_caught_by_name() -> None:
    caught: dict[str, list[str]] = {}
    for name, module in modules().items():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ExceptHandler) and (node.type is None or _broad(node.type)):
                caught.setdefault(name, []).append(module.at(node))
    assert {name: len(places) for name, places in caught.items()} == CATCHES_ALL, caught


def _broad(caught: ast.expr) -> bool:
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(isinstance(name, ast.Name) and name.id in ("Exception", "BaseException") for name in names)
