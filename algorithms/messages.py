"""What `converse` is given: the messages of one client, as they come."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping


class MessagesEnded(Exception):
    """There is no message left, nor will be. A `converse` that lets it through ends in order."""


class Messages(Iterator[str | bytes]):
    """Iterate for message after message: `str` for a text message, `bytes` for a binary one, each
    whole. The iteration waits for the client, and ends when it has left, when the time of the
    conversation is over, and when the server stops.

    `headers`: of the request that opened the conversation, by lower-case name; `query`: its query
    string, the last value of each name.
    """

    headers: Mapping[str, str]
    query: Mapping[str, str]

    @abstractmethod
    def get(self, seconds: float = 0.0) -> str | bytes | None:
        """The next message where one comes within `seconds`, else None: to look, while answering,
        whether the client has said something meanwhile. Raises MessagesEnded."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """Whether there is no message left, nor will be."""
