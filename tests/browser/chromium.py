"""A headless Chromium as the tests handle it: open a page, wait for something, ask, take a picture.

Speaks the DevTools protocol itself, which needs nothing but aiohttp.
"""

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
_START_S = 60.0
_POLL_S = 0.1


def find_chromium() -> str | None:
    """Return the browser's program; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for path in map(shutil.which, names) if path), None)


class Browser:
    """One browser with one page, used as a context manager.

    Args:
        width: Of the window, in pixels.
        height: Likewise; MLflow draws only what is near the visible part.
    """

    def __init__(self, *, width: int = 1700, height: int = 2200) -> None:
        self._size = f"--window-size={width},{height}"
        self._loop = asyncio.new_event_loop()
        self._ids = itertools.count(1)

    def __enter__(self) -> "Browser":
        program = find_chromium()
        assert program is not None
        self._profile = Path(tempfile.mkdtemp(prefix="gcpctl-chromium-"))
        self._process = subprocess.Popen(
            [program, *_FLAGS, self._size, f"--user-data-dir={self._profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": str(self._profile)},
        )
        try:
            self._loop.run_until_complete(self._connect())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.run_until_complete(self._session.close())
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=10)
        self._loop.close()
        shutil.rmtree(self._profile, ignore_errors=True)

    async def _connect(self) -> None:
        deadline = time.monotonic() + _START_S
        port_file = self._profile / "DevToolsActivePort"
        while not (port_file.exists() and port_file.read_text().count("\n")):
            assert time.monotonic() < deadline, "Chromium did not start"
            await asyncio.sleep(_POLL_S)
        port = int(port_file.read_text().splitlines()[0])
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            pages = [page for page in await answer.json() if page["type"] == "page"]
        self._socket = await self._session.ws_connect(
            pages[0]["webSocketDebuggerUrl"], max_msg_size=0
        )

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._loop.run_until_complete(self._ask(method, params))

    async def _ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = json.loads(await asyncio.wait_for(self._socket.receive_str(), timeout=60))
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return dict(message["result"])

    def before_each_page(self, script: str) -> None:
        """Run a script in every page before its own."""
        self._call("Page.enable")
        self._call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def open(self, url: str) -> None:
        """Open an address anew, also where only its fragment differs from that of the page."""
        self._call("Page.navigate", url="about:blank")
        self._call("Page.navigate", url=url)

    def ask(self, expression: str) -> Any:
        """Return what a JavaScript expression is, as JSON has it."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def wait_for(self, expression: str, *, seconds: float = 60.0) -> Any:
        """Return what an expression is once that is true; fail after a deadline."""
        # Between two pages there is no document to ask.
        quiet = f"(() => {{ try {{ return {expression} }} catch (e) {{ return null }} }})()"
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := self.ask(quiet):
                return found
            time.sleep(_POLL_S)
        raise AssertionError(f"waited {seconds:.0f} s for {expression}; {self.text()[:2000]}")

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements that a selector finds, in the document's order."""
        found = f"[...document.querySelectorAll({json.dumps(selector)})]"
        return list(self.ask(f"{found}.map(e => e.innerText ?? e.textContent)"))

    def text(self) -> str:
        """Return the text of the whole page."""
        return str(self.ask("document.body ? document.body.innerText : ''"))

    def picture(self, path: Path) -> Path:
        """Save a picture of the visible part as PNG."""
        answer = self._call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(answer["data"]))
        return path
