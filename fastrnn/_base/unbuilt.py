"""What ``import fastrnn`` says where the compiled modules are missing."""

from __future__ import annotations

import platform
from os import PathLike
from pathlib import Path


def explanation(package: str | PathLike[str]) -> str:
    """The reason why a package folder has no compiled modules for this Python, and the command that makes them.

    Parameters
    ----------
    package : str or path-like
        The folder of the package ``fastrnn``.

    Returns
    -------
    str

    Examples
    --------
    >>> explanation("/nowhere/fastrnn")
    'fastrnn in /nowhere has no compiled modules: install it again (python -m pip install --force-reinstall fastrnn)'
    """
    folder = Path(package).parent
    modules = [path.name for path in sorted(Path(package).glob("_core.*")) if path.suffix in (".so", ".pyd")]
    if modules:
        reason = (f"has compiled modules for another Python ({', '.join(modules)}); this is "
                  f"{platform.python_implementation()} {platform.python_version()} on {platform.machine()}")
    else:
        reason = "has no compiled modules"
    if not (folder / "pyproject.toml").is_file():
        return f"fastrnn in {folder} {reason}: install it again (python -m pip install --force-reinstall fastrnn)"
    return (f"fastrnn was imported from its source folder {folder}, which {reason}. Build them with a C compiler by "
            "`python -m pip install -e .` in that folder; or, if fastrnn is installed, start Python in another folder.")
