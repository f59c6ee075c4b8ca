"""Progress of long work on stderr: tqdm's bar on a terminal, else a few plain lines. Nothing goes to stdout."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    class Bar(Protocol):
        """What is used of tqdm's bar."""

        def set_postfix_str(self, s: str, refresh: bool) -> object: ...
        def update(self) -> object: ...
        def close(self) -> object: ...

    Item = TypeVar("Item")

LINES = 10          # plain lines of one piece of work, where it is not too short for so many


class Progress:
    """Shows how much of a piece of work is done, for use in a ``with`` statement.

    Where stderr is a terminal and tqdm is installed this is tqdm's bar. Otherwise it is a line after every tenth of the
    work, written to stderr too: what a program prints on stdout stays clean for pipes and files.

    Parameters
    ----------
    total : int or None
        The number of steps of the work; None where it is not known.
    unit : str
        What a step is, in the singular: "epoch".
    title : str
        What is being done, which stands before the bar.
    done : int
        The number of steps that were done before.
    shown : bool
        Show anything at all.
    at_least : int
        The smallest number of steps between two plain lines.

    Examples
    --------
    >>> with Progress(2, "epoch", "training", shown=False) as progress:
    ...     progress.advance("loss 0.5")
    ...     progress.done
    1
    """

    def __init__(self, total: int | None, unit: str, title: str, *, done: int = 0, shown: bool = True,
                 at_least: int = 1) -> None:
        self.total, self.unit, self.title, self.done = total, unit, title, done
        self.shown = shown and sys.stderr is not None       # Windows programs without a console have none
        self.interval = max(at_least, (total or 0) // LINES)
        self.bar: Bar | None = None

    def __enter__(self) -> Progress:
        tqdm = _tqdm() if self.shown else None
        if tqdm is not None:
            self.bar = tqdm(total=self.total, initial=self.done, desc=self.title, unit=f" {self.unit}",
                            mininterval=0.2, file=sys.stderr)
        return self

    def advance(self, note: str = "") -> None:
        """Counts one step more; `note` is a few words to show with it."""
        self.done += 1
        if self.bar is not None:
            if note:
                self.bar.set_postfix_str(note, refresh=False)
            self.bar.update()
        elif self.shown and (self.done % self.interval == 0
                             or (self.total is not None and self.done == self.total >= self.interval)):
            of = "" if self.total is None else f" of {self.total}"
            print(f"{self.unit} {self.done}{of}" + (f": {note}" if note else ""), file=sys.stderr, flush=True)
            if self.total is None and self.done >= LINES * self.interval:       # fewer lines, the longer it takes
                self.interval *= LINES

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.close()


def tracked(items: Sequence[Item], unit: str, title: str, *, at_least: int = 1) -> Iterator[Item]:
    """Gives the items one by one and shows how far that is; the arguments are those of ``Progress``.

    Examples
    --------
    >>> list(tracked("ab", "letter", "reading", at_least=100))
    ['a', 'b']
    """
    with Progress(len(items), unit, title, at_least=at_least) as progress:
        for item in items:
            yield item
            progress.advance()


def _tqdm() -> Any:
    """The class of tqdm's bar where it can be drawn, else None."""
    if not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm
