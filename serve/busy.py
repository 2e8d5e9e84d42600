"""Why there is no room for one more request (HOST-36)."""

from __future__ import annotations

from byoa.container.errors import ByoaError


class ServerBusy(ByoaError):
    """As many requests as the limit already wait for the model, or to be decoded for it."""

    @classmethod
    def beyond(cls, limit: int) -> ServerBusy:
        return cls(
            "QUEUE_FULL",
            f"{limit} requests already wait for the model",
            expected="at most BYOA_QUEUE_LIMIT requests waiting in a worker",
            remedy="try again, send several records in one request, or add instances",
        )


def streams_full() -> ServerBusy:
    return ServerBusy(
        "STREAMS_FULL", "as many streams as the limit are open already",
        expected="at most BYOA_QUEUE_LIMIT streams in a worker",
        remedy="try again, or add instances",
    )
