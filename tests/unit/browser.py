"""A headless Chromium, spoken to through its debugging pipe: no driver, no port, no package.

Messages of the DevTools protocol are JSON that ends in a zero byte; Chromium reads them from file
descriptor 3 and answers on 4.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 60.0  # seconds for one answer: the machine may be busy
LISTEN = ("Page", "Runtime", "Log", "Network", "Audits")
NOT_SAID = ("debug", "log", "info", "timeEnd")  # kinds of console messages that are no complaint


class Browser:
    """One Chromium with a profile of its own."""

    def __init__(self, profile: Path) -> None:
        found = shutil.which("chromium") or shutil.which("chromium-browser")
        if found is None:
            pytest.skip("no chromium here: what a browser makes of the page is not tried")
        (theirs_in, self._out), (self._in, theirs_out) = os.pipe(), os.pipe()
        command = [
            "bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", found,
            "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
            "--remote-debugging-pipe",
        ]  # fmt: skip
        with (profile / "stderr.txt").open("wb") as errors:
            self._process = subprocess.Popen(
                command, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=errors
            )
        os.close(theirs_in)
        os.close(theirs_out)
        self._unread = b""
        self._count = 0
        self.events: list[dict[str, Any]] = []
        try:
            self.ask("Browser.getVersion")
        except (EOFError, BrokenPipeError):
            self.close()
            said = (profile / "stderr.txt").read_text(errors="replace")
            pytest.skip(f"{found} does not start here: {said[-200:]!r}")

    def close(self) -> None:
        """End the process and the pipes."""
        os.close(self._out)  # it ends itself when nobody can speak to it any more
        os.close(self._in)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """One command's result; what else the browser tells meanwhile is kept in `events`."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        message |= {"sessionId": session} if session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (told := self._next()).get("id") != self._count:
            self.events.append(told)
        assert "error" not in told, f"{method}: {told['error']}"
        result: dict[str, Any] = told["result"]
        return result

    def wait_for(self, event: str, session: str) -> None:
        """Until the session tells of the event."""
        while not any(e["method"] == event and e.get("sessionId") == session for e in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._in], [], [], until - time.monotonic())
            assert ready, f"chromium said nothing for {PATIENCE:.0f} s"
            read = os.read(self._in, 1 << 16)
            if not read:
                raise EOFError("chromium has ended")
            self._unread += read
        message, _, self._unread = self._unread.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        return told


class Tab:
    """One page, as it stands in a window of a given width."""

    def __init__(self, browser: Browser, file: Path, width: int) -> None:
        self._browser, self._file = browser, file
        target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
        found = browser.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._target, self._session = target, found["sessionId"]
        for domain in LISTEN:
            self.ask(f"{domain}.enable")
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=915,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.ask("Page.navigate", url=file.as_uri())
        browser.wait_for("Page.loadEventFired", self._session)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """One command to this page."""
        return self._browser.ask(method, self._session, **params)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        told = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def click(self, element: str) -> None:
        """Press the mouse in the middle of the element that an expression gives."""
        place = self.run(
            f"(() => {{ const one = {element}; one.scrollIntoView({{inline: 'center'}});"
            " const box = one.getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            x, y = place
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def complaints(self) -> list[str]:
        """Everything that the console, the policy or an exception said."""
        self.run("new Promise(requestAnimationFrame)")
        said = []
        for event in self._own_events():
            told = event["params"]
            match event["method"]:
                case "Runtime.consoleAPICalled" if told["type"] not in NOT_SAID:
                    said.append(f"console.{told['type']}: {told['args']}")
                case "Runtime.exceptionThrown":
                    said.append(f"exception: {told['exceptionDetails']}")
                case "Log.entryAdded":
                    said.append(f"{told['entry']['source']}: {told['entry']['text']}")
                case "Audits.issueAdded" if "ContentSecurity" in told["issue"]["code"]:
                    said.append(f"policy: {told['issue']['details']}")
        return said

    def asked_for(self) -> list[str]:
        """What it asked for beyond its own file."""
        urls = [
            event["params"]["request"]["url"]
            for event in self._own_events()
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if url != self._file.as_uri()]

    def _own_events(self) -> list[dict[str, Any]]:
        return [one for one in self._browser.events if one.get("sessionId") == self._session]

    def close(self) -> None:
        """The page, not the browser."""
        self._browser.ask("Target.closeTarget", targetId=self._target)


@contextmanager
def opened(browser: Browser, file: Path, width: int = 1280) -> Iterator[Tab]:
    """The file in a tab, which has asked for nothing and complained of nothing when it is left."""
    tab = Tab(browser, file, width)
    yield tab
    told = {"complaints": tab.complaints(), "asked for": tab.asked_for()}
    assert not any(told.values()), told
    tab.close()
