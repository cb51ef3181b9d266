"""A browser without a window, for the tests of pages and for the pictures in the documentation.

It is Debian's Chromium with its driver, and Selenium that drives it. It knows no host but this machine, and
has a profile that is new each time.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

Scheme = Literal["light", "dark"]

_FLAGS = (
    "--headless",
    "--no-sandbox",  # it runs as root in containers, and opens our own page
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def missing() -> str:
    """Return why there is no browser to drive, empty if there is one."""
    lacking = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if lacking:
        return f"{' and '.join(lacking)} not found: apt-get install chromium chromium-driver"
    try:
        import selenium  # noqa: F401 - only whether it is there
    except ImportError:
        return "selenium is not installed"
    return ""


class Browser:
    """An open browser with one page."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def open(self, page: Path) -> None:
        """Open a page, and forget what was said and asked for before."""
        for log in ("browser", "performance"):
            self._driver.get_log(log)
        self._driver.get(page.as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what a script returns; what it is given is called ``arguments``."""
        return self._driver.execute_script(script, *arguments)

    def run_to_end(self, script: str) -> Any:
        """Return what a script gives to the last of its ``arguments``."""
        return self._driver.execute_async_script(script)

    def find(self, selector: str) -> Any:
        """Return the first element that fits."""
        return self._driver.find_element("css selector", selector)

    def until(self, condition: str, seconds: float = 10) -> None:
        """Wait until a *condition* holds; raises TimeoutException if it does not in so many *seconds*."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self._driver, seconds).until(lambda _: self.run(f"return {condition}"))

    def look(self, width: int, height: int, scheme: Scheme, media: str = "") -> None:
        """See the page in a window of this size in pixels, in a scheme, or on paper (*media* ``print``)."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", {"media": media, "features": features})
        self.settle()

    def settle(self) -> None:
        """Wait until charts have the width of their places, and the page was drawn twice."""
        self.run_to_end(
            """const done = arguments[0], end = performance.now() + 5000;
            const settled = () => [...document.querySelectorAll(".chart")].every((place) => {
              const drawn = place.querySelector(".main-svg");
              if (drawn === null) return true;
              return Math.abs(drawn.getBoundingClientRect().width - place.clientWidth) < 2;
            });
            const look = () => {
              const is_over = settled() || performance.now() > end;
              requestAnimationFrame(is_over ? () => requestAnimationFrame(() => done(null)) : look);
            };
            look();"""
        )

    def forbid_scripts(self, *, forbidden: bool) -> None:
        """Run no script of the page that is opened next."""
        self._call("Emulation.setScriptExecutionDisabled", {"value": forbidden})

    def picture(self, width: int, height: int) -> bytes:
        """Return the top of the page as a PNG."""
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        how = {"format": "png", "clip": clip, "captureBeyondViewport": True}
        answer = self._call("Page.captureScreenshot", how)
        return base64.b64decode(answer["data"])

    def printed(self) -> bytes:
        """Return the page as a PDF on A4."""
        answer = self._call("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
        return base64.b64decode(answer["data"])

    def said(self) -> list[str]:
        """Return what was written to the console since the page was opened."""
        return [each["message"] for each in self._driver.get_log("browser")]

    def asked_for(self) -> list[str]:
        """Return all addresses that were asked for since the page was opened."""
        messages = [json.loads(each["message"])["message"] for each in self._driver.get_log("performance")]
        return [
            each["params"]["request"]["url"]
            for each in messages
            if each["method"] == "Network.requestWillBeSent"
        ]

    def _call(self, method: str, parameters: dict[str, Any]) -> Any:
        return self._driver.execute_cdp_cmd(method, parameters)


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Give a browser with a new *profile*; it ends with the block."""
    from selenium.webdriver import Chrome
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.get("about:blank")
        yield Browser(driver)
    finally:
        driver.quit()
