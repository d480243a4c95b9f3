"""Who is to be told is told: `[monitor] notify`. What cannot be sent is a warning, and stops nothing."""

import logging

from flywheel.integrations import apprise_notices
from flywheel.watched import masked
from flywheel.workspace import Workspace

log = logging.getLogger("flywheel")


def notify(ws: Workspace, title: str, text: str) -> None:
    """Tell whoever the config names."""
    for address in apprise_notices.send(ws.config.monitor.notify, f"{ws.config.product.name}: {title}", text):
        log.warning("%s could not be told: %s", masked(address), title)
