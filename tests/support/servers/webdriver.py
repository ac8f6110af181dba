"""Firefox and WebKitGTK, driven by the commands of WebDriver (https://www.w3.org/TR/webdriver2/).

Playwright drives builds of its own, which no package registry has. WebKitGTK comes with a server of WebDriver. That of
Firefox, geckodriver, is in none of Debian's packages, but it only passes on the same commands, as this module does:
https://firefox-source-docs.mozilla.org/testing/marionette/Protocol.html
"""

import http.client
import json
import os
import re
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.support.processes import wait_for
from tests.support.servers import program
from tests.support.servers.process import Server

#: Seconds until something must be there.
_DEADLINE: Final = 120.0
#: Seconds until a command is answered.
_ANSWER: Final = 120.0
#: The arrow key, as WebDriver types it.
RIGHT: Final = "\ue014"
#: The key of an element's id.
_ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"
#: Methods and paths of the commands in HTTP.
_PATHS: Final = {
    "NewSession": ("POST", "/session"),
    "Navigate": ("POST", "/session/{session}/url"),
    "ExecuteScript": ("POST", "/session/{session}/execute/sync"),
    "ElementClick": ("POST", "/session/{session}/element/{id}/click"),
    "ElementSendKeys": ("POST", "/session/{session}/element/{id}/value"),
}
#: Finds a visible element of a kind by the beginning of its name, as people and screen readers know it.
_FIND: Final = """
const [kind, name] = arguments;
const named = (each) => each.getAttribute("aria-label") ?? (each.labels?.[0] ?? each).textContent.trim();
return [...document.querySelectorAll(kind)].find((each) => each.checkVisibility() && named(each).startsWith(name));
"""


class Refused(Exception):
    """The browser has refused a command."""


class Browser(Server):
    """A browser with a fresh profile and one window; a context manager."""

    def start(self) -> None:
        """Starts it and opens the window."""
        super().start()
        self.connect()

    def connect(self) -> None:
        """Connects to the browser, which is running."""
        raise NotImplementedError

    def send(self, command: str, parameters: Mapping[str, Any]) -> Any:
        """Returns the value of the browser's answer.

        Raises:
            Refused: it is an error.
        """
        raise NotImplementedError

    def open(self, url: str) -> None:
        """Loads a page."""
        self.send("Navigate", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """Returns what the body of a function in JavaScript returns."""
        return self.send("ExecuteScript", {"script": script, "args": arguments})

    def wait(self, expression: str) -> Any:
        """Waits until an expression in JavaScript is true, and returns its value."""
        return self._wait(lambda: self.run(f"return {expression}"), expression)

    def find(self, kind: str, name: str) -> str:
        """Waits for a visible element, and returns its id.

        Args:
            kind: a selector.
            name: the beginning of its name.
        """
        return str(self._wait(lambda: self.run(_FIND, kind, name), f"{kind} named {name}")[_ELEMENT])

    def click(self, kind: str, name: str) -> None:
        """Clicks an element, as ``find`` finds it, as a mouse does."""
        self.send("ElementClick", {"id": self.find(kind, name)})

    def type(self, kind: str, name: str, text: str) -> None:
        """Types a text into a field; of an input of files, chooses the file with this path."""
        self.send("ElementSendKeys", {"id": self.find(kind, name), "text": text})

    def _wait(self, condition: Callable[[], Any], what: str) -> Any:
        try:
            return wait_for(condition, what, _DEADLINE, 0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}; the page shows: {self.run('return document.body.innerText')}") from error


class Firefox(Browser):
    """Firefox, which needs no screen."""

    def __init__(self) -> None:
        self._program = program("firefox-esr", "firefox")
        self._connection: socket.socket | None = None
        super().__init__()

    def prepare(self) -> None:
        """Writes the preferences."""
        preferences = {"marionette.port": self.port, "intl.accept_languages": "en-US", "media.autoplay.default": 0}
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in preferences.items()]
        (self.folder / "user.js").write_text("".join(lines))

    def command(self) -> list[str]:
        """Returns the command that starts it."""
        return [self._program, "--headless", "--marionette", "--no-remote", "--profile", str(self.folder)]

    def options(self) -> dict[str, Any]:
        """Returns a home of its own."""
        return {"env": {**os.environ, "HOME": str(self.folder), "MOZ_CRASHREPORTER_DISABLE": "1"}}

    def connect(self) -> None:
        """Opens a session."""
        self._connection = socket.create_connection(("127.0.0.1", self.port), timeout=_ANSWER)
        self._answers = self._connection.makefile("rb")
        self._receive()  # what Firefox is
        self.send("NewSession", {})

    def clean(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._answers.close()
            self._connection.close()

    def send(self, command: str, parameters: Mapping[str, Any]) -> Any:
        """Sends a command as Marionette takes it."""
        assert self._connection is not None
        message = json.dumps([0, 1, f"WebDriver:{command}", parameters]).encode()
        self._connection.sendall(b"%d:%s" % (len(message), message))
        _, _, error, result = self._receive()
        if error is not None:
            raise Refused(f"{command}: {error['message']}")
        return result.get("value") if isinstance(result, dict) else result

    def _receive(self) -> Any:
        digits = bytearray()
        while (byte := self._answers.read(1)) != b":":
            assert byte, self.log()
            digits += byte
        return json.loads(self._answers.read(int(digits)))


class WebKit(Browser):
    """WebKitGTK, in its MiniBrowser on a screen in memory."""

    def __init__(self) -> None:
        self._program = program("WebKitWebDriver")
        self._screen = _Screen()
        self._session = ""
        super().__init__()

    def prepare(self) -> None:
        """Starts the screen."""
        self._screen.__enter__()

    def command(self) -> list[str]:
        """Returns the command that starts the server of WebDriver, which starts the browser."""
        return [self._program, f"--port={self.port}"]

    def options(self) -> dict[str, Any]:
        """Returns the screen, the language and a home of its own."""
        own = {"DISPLAY": self._screen.name(), "HOME": str(self.folder), "LC_ALL": "C.UTF-8", "NO_AT_BRIDGE": "1"}
        return {"env": {**os.environ, **own}}

    def connect(self) -> None:
        """Opens a session."""
        self._session = self.send("NewSession", {"capabilities": {}})["sessionId"]

    def clean(self) -> None:
        """Stops the screen."""
        self._screen.__exit__(None, None, None)

    def send(self, command: str, parameters: Mapping[str, Any]) -> Any:
        """Sends a command by HTTP."""
        method, path = _PATHS[command]
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER)
        path = path.format(session=self._session, **{key: str(value) for key, value in parameters.items()})
        connection.request(method, path, json.dumps(parameters))
        with connection.getresponse() as response:
            value = json.load(response)["value"]
        connection.close()
        if response.status != 200:
            raise Refused(f"{command}: {value['error']}: {value['message']}")
        return value


class _Screen(Server):
    """A screen in memory."""

    def __init__(self) -> None:
        self._program = program("Xvfb")
        super().__init__()

    def command(self) -> list[str]:
        """Returns the command that chooses a free number, and prints it."""
        return [self._program, "-displayfd", "1", "-nolisten", "tcp", "-screen", "0", "1280x900x24"]

    def name(self) -> str:
        """Returns the name of the display."""
        (number,) = re.findall(r"^\d+$", self.log(), re.MULTILINE)
        return f":{number}"

    def _is_ready(self, output: bytes) -> bool:
        """Returns whether the number is there: Xvfb writes warnings, too."""
        return re.search(rb"^\d+\n", output, re.MULTILINE) is not None
