"""The command line: ``fastrnn`` and ``python -m fastrnn``. One module a command, loaded when it is called."""

from .main import main

__all__ = ["main"]
