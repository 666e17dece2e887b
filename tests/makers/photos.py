"""The folder of photographs that tests of the chain run on, where there is one."""

import os

import pytest

PHOTOS = os.environ.get("ALIGNET_PHOTOS", "")
NO_PHOTOS = "ALIGNET_PHOTOS names no folder of photographs"
needs_photos = pytest.mark.skipif(not PHOTOS, reason=NO_PHOTOS)
