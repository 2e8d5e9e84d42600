"""What is true inside a container: the contract, and the entrypoints train and serve."""

from __future__ import annotations

__all__: list[str] = []
