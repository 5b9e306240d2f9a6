"""A browser without a window, where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no chromium or google-chrome in the PATH"
)


def browse(page: Path, *options: str, width: int = 1280) -> str:
    """Opens a page, and returns what the browser prints."""
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu"]
    command += ["--disable-background-networking", f"--window-size={width},800"]
    result = subprocess.run(
        [*command, *options, page.as_uri()], capture_output=True, timeout=120
    )
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.decode()
