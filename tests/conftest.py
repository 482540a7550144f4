"""What every test may ask for: real data beside the checkout, and a device."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("CRYORECON_DATA", REPOSITORY.parent / "shared" / "data"))
REQUIRED = os.environ.get("CRYORECON_REQUIRE_DATA") == "1"


@pytest.fixture
def shared_data() -> Path:
    """The folder of real particles, oracles, maps and metadata (its MANIFEST.md says what is what).

    Where it is absent the test skips and the run's summary says so; with ``CRYORECON_REQUIRE_DATA=1`` it fails.
    """
    if (DATA / "MANIFEST.md").is_file():
        return DATA
    if REQUIRED:
        pytest.fail(f"CRYORECON_REQUIRE_DATA=1, but {DATA} holds no MANIFEST.md")
    pytest.skip(f"real data: {DATA} is absent")


def pytest_collection_modifyitems(items):
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="cuda: no device here"))


def pytest_terminal_summary(terminalreporter):
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    for what in ("real data", "cuda", "browser"):
        count = sum(what in reason for reason in reasons)
        if count:
            terminalreporter.write_line(f"NOT TESTED: {count} tests skipped, they need {what}", yellow=True, bold=True)
