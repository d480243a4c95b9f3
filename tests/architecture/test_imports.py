"""Imports point one way, each library has its owners, and importing the package loads none of the heavy ones."""

import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from graphlib import TopologicalSorter

from tests.architecture.tree import ROOT, Import, imports, modules

HEAVY = ("prefect", "mlflow", "dvc", "great_expectations", "xgboost", "pandas")

GROUND = {
    "config",
    "content",
    "errors",
    "evidence",
    "events",
    "exchange",
    "fingerprint",
    "found",
    "parquet",
    "records",
    "schedule",
    "schema",
    "sections",
    "segments",
    "trial",
    "watched",
    "windows",
}
ARCS = {"data", "learn", "measure", "serve"}
MAY_IMPORT = {  # a room, and the rooms that its modules may import
    **dict.fromkeys(GROUND | ARCS, GROUND),
    "scaffold": GROUND,
    "sources": GROUND | {"sources"},
    "infer": GROUND | {"infer", "sources"},
    "integrations": GROUND | {"integrations"},
    "simulator": GROUND | {"simulator"},
    "workspace": GROUND | ARCS | {"integrations", "sources"},
    "notebook": GROUND | ARCS | {"workspace"},
    "flywheel": {"notebook"},
    "flows": GROUND
    | ARCS
    | {"flows", "infer", "integrations", "scaffold", "simulator", "sources", "workspace", "flywheel"},
}
AMONG_THE_ARCS = {  # the steps of the arcs know nothing of each other, but for these; a folder in an arc is one step
    ("flywheel.data.collect", "flywheel.data.quarantine"),
    ("flywheel.data.returning", "flywheel.data.collect"),
    ("flywheel.learn.block", "flywheel.learn.coding"),
    ("flywheel.learn.block", "flywheel.learn.features"),
    ("flywheel.learn.evaluate", "flywheel.learn.metrics"),
    ("flywheel.learn.gate", "flywheel.learn.figures"),
    ("flywheel.learn.gate", "flywheel.learn.history"),
    ("flywheel.learn.gate", "flywheel.learn.prior"),
    ("flywheel.learn.gate", "flywheel.learn.slices"),
    ("flywheel.learn.history", "flywheel.learn.prior"),
    ("flywheel.learn.matrix", "flywheel.learn.block"),
    ("flywheel.learn.matrix", "flywheel.learn.coding"),
    ("flywheel.learn.matrix", "flywheel.learn.custom"),
    ("flywheel.learn.matrix", "flywheel.learn.features"),
    ("flywheel.learn.matrix", "flywheel.learn.state"),
    ("flywheel.learn.parted", "flywheel.learn.block"),
    ("flywheel.learn.parted", "flywheel.learn.coding"),
    ("flywheel.learn.parted", "flywheel.learn.features"),
    ("flywheel.learn.parted", "flywheel.learn.matrix"),
    ("flywheel.learn.parted", "flywheel.learn.state"),
    ("flywheel.learn.slices", "flywheel.learn.figures"),
    ("flywheel.learn.slices", "flywheel.learn.prior"),
    ("flywheel.learn.state", "flywheel.learn.block"),
    ("flywheel.learn.state", "flywheel.learn.coding"),
    ("flywheel.learn.state", "flywheel.learn.features"),
    ("flywheel.learn.prediction", "flywheel.learn.features"),
    ("flywheel.learn.train", "flywheel.learn.features"),
    ("flywheel.learn.train", "flywheel.learn.prediction"),
    ("flywheel.learn.train", "flywheel.learn.survey"),
    ("flywheel.measure.canary", "flywheel.measure.sequences"),
    ("flywheel.measure.causes", "flywheel.measure.contrasts"),
    ("flywheel.measure.contrasts", "flywheel.learn.evaluate"),
    ("flywheel.measure.contrasts", "flywheel.learn.metrics"),
    ("flywheel.measure.curves", "flywheel.measure.forecast"),
    ("flywheel.measure.curves", "flywheel.measure.laws"),
    ("flywheel.measure.curves", "flywheel.measure.spread"),
    ("flywheel.measure.forecast", "flywheel.measure.laws"),
    ("flywheel.measure.hazards", "flywheel.measure.sequences"),
    ("flywheel.measure.levers", "flywheel.measure.growth"),
    ("flywheel.measure.planning", "flywheel.measure.offpolicy"),
    ("flywheel.measure.planning", "flywheel.measure.slots"),
    ("flywheel.measure.report", "flywheel.measure.page.account"),
    ("flywheel.measure.report", "flywheel.measure.page.causes"),
    ("flywheel.measure.report", "flywheel.measure.page.generations"),
    ("flywheel.measure.report", "flywheel.measure.page.known"),
    ("flywheel.measure.report", "flywheel.measure.page.markup"),
    ("flywheel.measure.report", "flywheel.measure.page.parts"),
    ("flywheel.measure.report", "flywheel.measure.page.people"),
    ("flywheel.measure.report", "flywheel.measure.page.quality"),
    ("flywheel.measure.report", "flywheel.measure.page.watching"),
    ("flywheel.measure.report", "flywheel.measure.page.words"),
    ("flywheel.measure.skew", "flywheel.learn.features"),
    ("flywheel.measure.slots", "flywheel.measure.offpolicy"),
    ("flywheel.measure.spread", "flywheel.measure.forecast"),
    ("flywheel.measure.spread", "flywheel.measure.laws"),
    ("flywheel.measure.staleness", "flywheel.learn.metrics"),
    ("flywheel.measure.watch", "flywheel.measure.sequences"),
    ("flywheel.measure.worth", "flywheel.measure.curves"),
    ("flywheel.measure.worth", "flywheel.measure.forecast"),
    ("flywheel.serve.access", "flywheel.serve.refusals"),
    ("flywheel.serve.answers", "flywheel.serve.intake"),
    ("flywheel.serve.answers", "flywheel.serve.invoked"),
    ("flywheel.serve.answers", "flywheel.serve.numbers"),
    ("flywheel.serve.answers", "flywheel.serve.refusals"),
    ("flywheel.serve.answers", "flywheel.serve.serving"),
    ("flywheel.serve.answers", "flywheel.serve.wire"),
    ("flywheel.serve.answers", "flywheel.serve.writing"),
    ("flywheel.serve.door", "flywheel.serve.access"),
    ("flywheel.serve.door", "flywheel.serve.answers"),
    ("flywheel.serve.door", "flywheel.serve.intake"),
    ("flywheel.serve.door", "flywheel.serve.numbers"),
    ("flywheel.serve.door", "flywheel.serve.refusals"),
    ("flywheel.serve.given", "flywheel.learn.coding"),
    ("flywheel.serve.intake", "flywheel.serve.refusals"),
    ("flywheel.serve.invoked", "flywheel.serve.refusals"),
    ("flywheel.serve.invoked", "flywheel.serve.wire"),
    ("flywheel.serve.lookup", "flywheel.learn.custom"),
    ("flywheel.serve.lookup", "flywheel.learn.features"),
    ("flywheel.serve.lookup", "flywheel.serve.given"),
    ("flywheel.serve.lookup", "flywheel.serve.snapshot"),
    ("flywheel.serve.openapi", "flywheel.serve.answers"),
    ("flywheel.serve.openapi", "flywheel.serve.invoked"),
    ("flywheel.serve.openapi", "flywheel.serve.pages"),
    ("flywheel.serve.openapi", "flywheel.serve.refusals"),
    ("flywheel.serve.openapi", "flywheel.serve.wire"),
    ("flywheel.serve.pages", "flywheel.serve.answers"),
    ("flywheel.serve.pages", "flywheel.serve.numbers"),
    ("flywheel.serve.pages", "flywheel.serve.refusals"),
    ("flywheel.serve.pages", "flywheel.serve.serving"),
    ("flywheel.serve.ranker", "flywheel.learn.features"),
    ("flywheel.serve.ranker", "flywheel.serve.exploration"),
    ("flywheel.serve.ranker", "flywheel.serve.lookup"),
    ("flywheel.serve.ranker", "flywheel.serve.snapshot"),
    ("flywheel.serve.server", "flywheel.serve.access"),
    ("flywheel.serve.server", "flywheel.serve.answers"),
    ("flywheel.serve.server", "flywheel.serve.door"),
    ("flywheel.serve.server", "flywheel.serve.intake"),
    ("flywheel.serve.server", "flywheel.serve.numbers"),
    ("flywheel.serve.server", "flywheel.serve.openapi"),
    ("flywheel.serve.server", "flywheel.serve.pages"),
    ("flywheel.serve.server", "flywheel.serve.serving"),
    ("flywheel.serve.server", "flywheel.serve.sockets"),
    ("flywheel.serve.server", "flywheel.serve.writing"),
    ("flywheel.serve.sockets", "flywheel.serve.refusals"),
    ("flywheel.serve.wire", "flywheel.serve.refusals"),
    ("flywheel.serve.writing", "flywheel.serve.intake"),
    ("flywheel.serve.writing", "flywheel.serve.refusals"),
    ("flywheel.serve.writing", "flywheel.serve.serving"),
}
OWNERS = {  # a library, and the modules that may import it
    "prefect": ["flows.*", "flywheel.integrations.prefect_*"],
    "apprise": ["flywheel.integrations.apprise_*"],
    "mlflow": ["flywheel.integrations.mlflow_*"],
    "dvc": ["flywheel.integrations.dvc_*"],
    "dvc_data": ["flywheel.integrations.dvc_*"],
    "great_expectations": ["flywheel.integrations.gx_*"],
    "xgboost": [
        "flywheel.integrations.dask_*",
        "flywheel.integrations.mlflow_model",
        "flywheel.learn.prediction",
        "flywheel.learn.train",
    ],
    "dask": ["flywheel.integrations.dask_*"],
    "distributed": ["flywheel.integrations.dask_*"],
    "sqlalchemy": ["flywheel.sources.*", "flywheel.integrations.mlflow_store", "flywheel.integrations.shared_lock"],
    "cloudpickle": ["flywheel.integrations.dask_*"],
    "fsspec": ["flywheel.exchange", "flywheel.sources.*"],
    "matplotlib": ["flywheel.integrations.mlflow_plots", "flywheel.measure.picture"],
    "uvicorn": ["flywheel.integrations.prefect_server", "flywheel.serve.*"],
    "msgspec": ["flows.products", "flywheel.events", "flywheel.found", "flywheel.serve.*", "flywheel.sources.*"],
    "prometheus_client": ["flywheel.serve.*"],
    "starlette": ["flywheel.integrations.prefect_server"],
    "typer": ["flows.cli", "flows.commands.*"],
    "rich": [
        "flows.bars",
        "flows.commands.terminal",
        "flows.show",
        "flows.show_again",
        "flows.show_backfill",
        "flows.show_causes",
        "flows.show_curve",
        "flows.show_growth",
        "flows.show_value",
    ],
}
DISTRIBUTIONS = {  # where a module's name is not that of what is installed for it
    "dvc_data": "dvc",
    "great_expectations": "great-expectations",
    "prometheus_client": "prometheus-client",
    "starlette": "fastapi",
    "xgboost": "xgboost-cpu",
    "yaml": "pyyaml",
}
NEVER_IMPORTED = {  # declared all the same
    "httptools",  # uvicorn loads these two by name
    "uvloop",
}


def ours(found: Import) -> bool:
    return found.target.partition(".")[0] in ("flywheel", "flows")


def test_imports_point_one_way() -> None:
    wrong = []
    for found in filter(ours, imports()):
        target = modules()[found.target]
        same_arc = found.by.room == target.room and found.by.room in ARCS
        by_room = target.room in MAY_IMPORT[found.by.room] and not same_arc
        one_step = _folder(found.by.name) == _folder(target.name) != ""
        if not (by_room or one_step) and (found.by.name, target.name) not in AMONG_THE_ARCS:
            wrong.append(f"{found.where}: {found.by.name} must not import {target.name}")
    assert not wrong, "\n".join(wrong)


def _folder(name: str) -> str:
    """The folder within a room that a module is in; nothing for one that is in the room itself."""
    folder = name.rpartition(".")[0]
    return folder if folder.count(".") > 1 else ""


def test_every_room_has_a_rule_and_every_rule_a_use() -> None:
    used = {(found.by.name, found.target) for found in imports()}
    assert {module.room for module in modules().values()} == set(MAY_IMPORT)
    assert used >= AMONG_THE_ARCS


def test_no_module_imports_itself_through_others() -> None:
    graph = {
        name: {f.target for f in imports() if ours(f) and f.by.name == name and not f.checked_only}
        for name in modules()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError with the modules of the circle


def test_each_library_is_imported_by_its_owners_only() -> None:
    wrong = [
        f"{found.where}: {found.target.partition('.')[0]} belongs to {', '.join(owners)}"
        for found in imports()
        if (owners := OWNERS.get(found.target.partition(".")[0]))
        and not any(fnmatch(found.by.name, owner) for owner in owners)
    ]
    assert not wrong, "\n".join(wrong)


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["dask"]]
    declared = {line.partition(">")[0].partition("[")[0].strip() for line in lines}
    tops = {found.target.partition(".")[0] for found in imports() if not ours(found)}
    used = {DISTRIBUTIONS.get(name, name) for name in tops - set(sys.stdlib_module_names)}
    assert used == declared - NEVER_IMPORTED


def test_importing_the_package_loads_no_heavy_library() -> None:
    program = f"import flywheel, sys; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
