"""What the tests of the survey's pages share."""

import pytest

from tests.makers.chromium import Chromium


@pytest.fixture
def browser(tmp_path):
    with Chromium(tmp_path / "browser") as found:
        yield found
        assert found.errors == []
        assert {url.partition(":")[0] for url in found.requests} <= {"file", "data", "blob"}
