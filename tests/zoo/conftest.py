import sys

import pytest

from zoo import cli


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command in this process, as `main` does; returns exit code, output and error output."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["zoo", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call
