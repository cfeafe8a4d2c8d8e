"""The verbs of the command line. Each imports what it needs when it is called: ``posenc --help`` imports no torch."""

from posenc.lab.cli import runs, encodings, models, machine  # isort: skip  # the order of the help
from posenc.lab.cli.shared import app

__all__ = ["app", "encodings", "machine", "models", "runs"]
