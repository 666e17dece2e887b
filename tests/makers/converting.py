"""The command `convert`, in this process."""

import sys

from alignet.stages.convert import act_on


def converting(monkeypatch, capsys, *words):
    """Status, output and messages of the command, in this process."""
    monkeypatch.setattr(sys, "argv", ["convert", *map(str, words)])
    try:
        act_on([*map(str, words)])
        status = 0
    except SystemExit as end:
        status = end.code
    return (status, *capsys.readouterr())
