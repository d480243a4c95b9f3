"""Flywheel turns a product's interactions into better models, through a gate, and proves it.

Importing the package loads none of the libraries it stands on; each room imports what it needs.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flywheel.notebook import Wheel

__version__ = "0.1.0"
__all__ = ["__version__", "open"]

# The libraries below phone home by default and read these only once, at their import.
for _name, _value in {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "ITERATIVE_DO_NOT_TRACK": "1",
}.items():
    os.environ.setdefault(_name, _value)


def open(path: str | Path = ".") -> "Wheel":
    """Open the workspace at `path`, the folder that holds `flywheel.toml`."""
    from flywheel.notebook import Wheel

    return Wheel.open(Path(path))
