"""A browser for the tests of the report."""

import importlib.util
import os
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("cryorecon_test_browser", Path(__file__).with_name("browser.py"))
client = importlib.util.module_from_spec(spec)
spec.loader.exec_module(client)


def start(**options):
    """A browser, or a skipped test where there is none; with ``CRYORECON_REQUIRE_BROWSER=1`` a failed one."""
    if client.find_browser() is None:
        if os.environ.get("CRYORECON_REQUIRE_BROWSER") == "1":
            pytest.fail("CRYORECON_REQUIRE_BROWSER=1, but there is no chromium")
        pytest.skip("browser: no chromium here")
    return client.Browser(**options)


@pytest.fixture(scope="module")
def browser():
    """Chromium without a network."""
    tab = start()
    yield tab
    tab.close()


@pytest.fixture
def browser_without_webgl():
    tab = start(webgl=False)
    yield tab
    tab.close()
