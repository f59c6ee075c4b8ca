"""The command line: ``fastrnn`` and ``python -m fastrnn``. Each command is a module, imported when it is called."""

from .main import main

__all__ = ["main"]
