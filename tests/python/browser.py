"""Headless Chromium windows for tests. Owns starting them, ending them and nothing else.

Each window is a browser of its own with a fresh profile, so two windows share no cookie, no storage and no
connection. Whoever opens windows does it inside `Windows`, which ends all of them, and only them, by process id.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import time
from pathlib import Path

START_TRIES = 3
END_SECONDS = 5

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def missing() -> str | None:
    """One line that says what to install, or None when a window can be opened."""
    if importlib.util.find_spec("selenium") is None:
        return "the browser tests need selenium: pip install 'selenium>=4'"
    if not (_program("chromium") and _program("chromedriver")):
        return "the browser tests need Chromium and its driver: apt-get install chromium chromium-driver"
    return None


class Windows:
    """A context manager: `open()` starts a window, leaving the context ends all that are still open."""

    def __init__(self, profiles: Path) -> None:
        self._profiles = profiles
        self._open: list = []
        self._started = 0

    def __enter__(self) -> Windows:
        return self

    def __exit__(self, *_exc) -> None:
        for driver in list(self._open):
            self.close(driver)

    def open(self, width: int = 1000, height: int = 800):
        """A new window, as a selenium driver. Only the start is tried again: a loaded machine may be slow at it."""
        from selenium.common.exceptions import WebDriverException

        for left in reversed(range(START_TRIES)):
            try:
                driver = self._start(width, height)
            except WebDriverException:
                if not left:
                    raise
            else:
                self._open.append(driver)
                return driver
        raise AssertionError("unreachable")

    def close(self, driver) -> None:
        """Closes one window as its user would, and makes sure that its processes end."""
        self._open.remove(driver)
        browser = driver.capabilities.get("goog:processID")
        with contextlib.suppress(Exception):
            driver.quit()
        process = driver.service.process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        if browser:
            _end(browser)

    def _start(self, width: int, height: int):
        from selenium import webdriver

        self._started += 1
        options = webdriver.ChromeOptions()
        options.binary_location = _program("chromium")
        for argument in (*ARGUMENTS, f"--window-size={width},{height}"):
            options.add_argument(argument)
        options.add_argument(f"--user-data-dir={self._profiles / f'profile-{self._started}'}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        return webdriver.Chrome(options, webdriver.ChromeService(_program("chromedriver")))


def severe(driver) -> list[str]:
    """What the page's console has reported as an error since the last call."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/bin")))


def _end(pid: int) -> None:
    deadline = time.monotonic() + END_SECONDS
    while _is_chromium(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    if _is_chromium(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _is_chromium(pid: int) -> bool:
    # The name guards against a process id that was given to somebody else meanwhile.
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return "(chrom" in state and ") Z " not in state
