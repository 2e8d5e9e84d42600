"""Formats: what a channel's file or a request's body means, and how an answer is written.

    registry      the one list; find by Content-Type, negotiate Accept
    base          Format and Batch
    checks        named errors for values and widths that do not fit the model
    predictions   what an algorithm may return

Importing costs the standard library only: numpy is imported by the first decode or encode.
"""

from __future__ import annotations

__all__ = ["base", "checks", "predictions", "registry"]
