"""Whether the log is at the start of a line: what the author printed last may not have ended one.

The platform merges stdout and stderr into one log, so both are watched as one.
"""

from __future__ import annotations

from typing import Any, TextIO


class LineEnds:
    """Remembers which watched stream has left a line open. What goes past Python's streams, from a
    library in C or a child process, is not seen."""

    def __init__(self) -> None:
        self._open: TextIO | None = None

    def watch(self, stream: Any) -> None:
        """Look at what is written to `stream`, a text stream of Python's own, from now on."""
        write = stream.write

        def watched(text: str) -> int:
            written: int = write(text)
            if text:
                self._open = None if text.endswith("\n") else stream
            return written

        # In place of the method alone, so that the stream stays what it is to everybody else.
        stream.write = watched

    def finish(self) -> None:
        """End the line that was left open, if one was."""
        stream = self._open
        if stream is not None:
            stream.write("\n")
            stream.flush()
