"""A Chromium that tests drive over its DevTools protocol, by the standard library alone.

Messages are JSON, each ended by a zero byte, on the pipes that the browser finds under the numbers 3 and 4.
"""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--remote-debugging-pipe", "--hide-scrollbars",
)  # fmt: skip
PATIENCE = 60  # seconds; a machine may be busy


MISSING = "no Chromium, which tests the field app: apt-get install chromium"


def found():
    """The path of a Chromium; None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    def __init__(self, folder):
        program = found()
        assert program, MISSING
        (child_in, self._out), (self._in, child_out) = os.pipe(), os.pipe()
        # A shell gives the pipes their numbers; Python could only do it in a forked copy of itself.
        script = f'exec 3<&{child_in} 4>&{child_out}; exec "$@"'
        command = ["bash", "-c", script, "-", program, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            command, pass_fds=(child_in, child_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(child_in)
        os.close(child_out)
        self._buffer, self._numbers, self.events = b"", itertools.count(1), []

    def call(self, method, session=None, **given):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": given, **({"sessionId": session} if session else {})}
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while (found := self._receive()).get("id") != number:
            self.events.append(found)
        assert "error" not in found, (method, found["error"])
        return found["result"]

    def _receive(self):
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            assert select.select([self._in], [], [], max(0, end - time.monotonic()))[0], "Chromium does not answer"
            data = os.read(self._in, 1 << 20)
            assert data, "Chromium has ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, address):
        return Page(self, address)

    def close(self):
        os.close(self._out)  # which ends it
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)


class Page:
    def __init__(self, browser, address):
        self._browser = browser
        self._target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]
        self.call("Runtime.enable")
        self.call("Page.enable")
        self.go(address)

    def call(self, method, **given):
        return self._browser.call(method, self._session, **given)

    def go(self, address):
        self.call("Page.navigate", url=address)

    def run(self, script):
        """The value of an expression or of the promise that it is."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition):
        """Until an expression is true; it may fail meanwhile, as while a page is loaded."""
        end = time.monotonic() + PATIENCE
        while True:
            found = self.call("Runtime.evaluate", expression=f"Boolean({condition})", returnByValue=True)
            if found["result"].get("value") is True:
                return
            assert time.monotonic() < end, (condition, self.run("document.body.innerText"))
            time.sleep(0.05)

    def give(self, selector, files):
        """Files to a file input, as if a person had chosen them."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def look(self, width, height, *, dark=False, phone=False):
        """As on a screen of this size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self):
        """A PNG of what is to be seen."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self):
        self._browser.call("Target.closeTarget", targetId=self._target)
