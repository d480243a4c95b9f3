"""Debian's chromium, headless, over its DevTools protocol: open a page, ask it, take its picture."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websocket

PATH = shutil.which("chromium")
_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --remote-debugging-port=0 --remote-allow-origins=*"
)


class Page:
    """One open tab."""

    def __init__(self, address: str) -> None:
        self.socket = websocket.create_connection(address, timeout=60)
        self.calls = 0
        self.failures: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and wait for its answer; exceptions thrown by the page are kept in `failures`."""
        self.calls += 1
        self.socket.send(json.dumps({"id": self.calls, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("method") == "Runtime.exceptionThrown":
                self.failures.append(str(answer["params"]["exceptionDetails"])[:500])
            if answer.get("id") == self.calls:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])

    def open(self, url: str, width: int = 1500, height: int = 950) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url="about:blank")  # a new hash alone would not load the page again
        self.call("Page.navigate", url=url)

    def ask(self, script: str) -> Any:
        """The JSON value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, str(answer["exceptionDetails"])[:1000]
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 60) -> Any:
        """The value of an expression once it is truthy."""
        until = time.monotonic() + seconds
        while not (value := self.ask(script)):
            assert time.monotonic() < until, f"{script} stayed {value!r} on {self.text()[:2000]}"
            time.sleep(0.2)
        return value

    def text(self) -> str:
        """What the page says; empty while it loads."""
        return str(self.ask("document.body ? document.body.innerText : ''"))

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A fresh browser with one tab; nothing of it is left behind but its profile folder."""
    assert PATH is not None, "chromium is not installed"
    log = profile.parent / "chromium.log"
    with log.open("wb") as out:
        command = [PATH, *_FLAGS.split(), f"--user-data-dir={profile}", "about:blank"]
        child = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            page = Page(_tab(profile))
            try:
                yield page
            finally:
                page.socket.close()
        finally:
            child.terminate()
            child.wait(20)


def _tab(profile: Path) -> str:
    said, until = profile / "DevToolsActivePort", time.monotonic() + 60
    while not said.is_file() or not said.read_text().strip():
        assert time.monotonic() < until, "chromium does not start"
        time.sleep(0.1)
    port = said.read_text().split()[0]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < until:
        tabs = json.loads(opener.open(f"http://127.0.0.1:{port}/json/list", timeout=10).read())
        for tab in tabs:
            if tab["type"] == "page":
                return str(tab["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise AssertionError("chromium opens no tab")
