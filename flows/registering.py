"""Registers what runs by itself with a Prefect server that workers ask."""

from flywheel.errors import ConfigError
from flywheel.integrations import prefect_api
from flywheel.workspace import Workspace


def deploy(ws: Workspace, pool: str) -> list[str]:
    """Register the deployments for the workers of a pool, with the Prefect that `flywheel up` or a team runs; names.

    Raises:
        ConfigError: no Prefect API answers.
    """
    booting = prefect_api.boot(ws.root)
    if booting.child is not None:  # it would be gone before a worker asks
        prefect_api.stop(booting)
        booting = prefect_api.Booting(fault="PREFECT_API_URL is not set, and flywheel up does not run")
    with prefect_api.ready(booting) as history:
        if history.url is None:
            raise ConfigError("no Prefect API answers", why=history.note, next="flywheel up, or export PREFECT_API_URL")
        from flows.deployments import register

        return register(ws, pool)
