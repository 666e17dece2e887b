"""Composes a configuration: a fork of this process finds conf/ read, and the tables of its grammar built.

The first that a process that is to be forked imports.
"""

from pathlib import Path

from alignet.pipeline.cli import load
from tests.makers import sooner
from tests.makers.worlds import everything

sooner.begin()
load(everything(Path("/nowhere")))
