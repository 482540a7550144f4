"""Chromium over the DevTools protocol: JSON messages that end in a zero byte, on the pipes 3 and 4 of its process.

Standard library only. docs/screenshots.py uses it as well.
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-extensions", "--enable-unsafe-swiftshader",
         "--use-gl=angle", "--use-angle=swiftshader", "--hide-scrollbars", "--remote-debugging-pipe", "--disable-dev-shm-usage"]


def find_browser() -> str | None:
    """Path of Chromium or Chrome, None where there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One tab. events: what it reported since the last :meth:`open`, as (method, parameters)."""

    def __init__(self, offline: bool = True, webgl: bool = True):
        self.folder = tempfile.mkdtemp(prefix="cryorecon-browser-")
        flags = [*FLAGS, f"--user-data-dir={self.folder}/profile", "--window-size=1400,1000"]
        if offline:
            flags.append("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
        if not webgl:
            flags.append("--disable-3d-apis")
        ours, theirs = os.pipe(), os.pipe()
        high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (theirs[0], ours[1])]
        quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        self.pid = os.posix_spawn(find_browser() or "chromium", ["chromium", *flags, "about:blank"], os.environ, file_actions=[
            *quiet, (os.POSIX_SPAWN_DUP2, high[0], 3), (os.POSIX_SPAWN_DUP2, high[1], 4)], setpgroup=0)
        for end in (*high, theirs[0], ours[1]):
            os.close(end)
        self.reading, self.writing = ours[0], theirs[1]
        self.rest, self.number, self.session, self.events = b"", 0, None, []
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.session, session = None, self.session
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=self.folder, eventsEnabled=True)
        self.session = session

    def close(self) -> None:
        os.close(self.writing)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.reading)
        for _ in range(20):  # its children may still be writing
            shutil.rmtree(self.folder, ignore_errors=True)
            if not Path(self.folder).exists():
                break
            time.sleep(0.05)

    def _receive(self, until: float) -> dict[str, Any] | None:
        while b"\0" not in self.rest:
            if not select.select([self.reading], [], [], max(0.0, until - time.monotonic()))[0]:
                return None
            part = os.read(self.reading, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self.rest += part
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def call(self, method: str, timeout: float = 60, **params: Any) -> dict[str, Any]:
        """Send one command and return its result; what is reported meanwhile goes to ``events``."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + timeout
        while True:
            answer = self._receive(until)
            if answer is None:
                raise TimeoutError(method)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            if "method" in answer:
                self.events.append((answer["method"], answer["params"]))

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression; promises are waited for."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", str(answer)))
        return answer["result"].get("value")

    def wait(self, script: str, timeout: float = 60) -> Any:
        """Wait until a JavaScript expression is true, and return it."""
        until = time.monotonic() + timeout
        while True:
            found = self.run(script)
            if found:
                return found
            if time.monotonic() > until:
                raise TimeoutError(f"{script}; {self.complaints()}")
            time.sleep(0.05)

    def wait_for(self, condition: Callable[[], bool], timeout: float = 30) -> None:
        """Wait until ``condition()`` holds."""
        until = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > until:
                raise TimeoutError(str(condition))
            time.sleep(0.05)

    def open(self, url: str, width: int = 1400, height: int = 1000, scheme: str = "light", scale: float = 1) -> None:
        """Open a report and wait until it is ready."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width < 600)
        self.dark(scheme == "dark")
        self.events = []
        self.call("Page.navigate", url=url)
        self.wait("document.documentElement?.dataset.ready !== undefined")

    def dark(self, dark: bool) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def complaints(self) -> list[str]:
        """Errors, warnings and exceptions of the page since it was opened."""
        told = []
        for method, event in self.events:
            if method == "Runtime.exceptionThrown":
                told.append(str(event["exceptionDetails"]))
            elif method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
                if "GPU stall due to ReadPixels" not in event["entry"]["text"]:  # of the driver, when a test reads the canvas
                    told.append(event["entry"]["text"])
            elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "assert", "warning"):
                told.append(str(event["args"]))
        return told

    def requests(self) -> list[str]:
        """Addresses that the page asked for, but for what it holds itself (data and blob addresses)."""
        asked = [event["request"]["url"] for method, event in self.events if method == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith(("data:", "blob:"))]

    def drag(self, points: list[tuple[float, float]]) -> None:
        """Press the mouse at the first point, move along the others, let go at the last."""
        (x, y), rest = points[0], points[1:]
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", buttons=1, clickCount=1)
        for x, y in rest:
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left", buttons=1)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button="left", clickCount=1)

    def click(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        time.sleep(0.15)  # plotly looks at what is under the pointer at most every 50 ms
        self.drag([(x, y)])

    def press(self, selector: str) -> None:
        """Scroll to an element and click its middle."""
        x, y = self.run(f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
                        "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
                        "return [r.x + r.width / 2, r.y + r.height / 2]; })()")
        self.click(x, y)

    def picture(self, full: bool = False) -> bytes:
        """PNG of the window, or of the whole page."""
        clip = {}
        if full:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1},
                    "captureBeyondViewport": True}
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", **clip)["data"])
