"""The index of buckets and objects: one SQLite database beside the files.

It holds what a plain file cannot: ETag, content type, user metadata, checksums, tags, uploads.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

__all__ = ["Index", "ObjectInfo", "after_prefix", "extra_to_json", "object_from_extra", "object_of"]

# synchronous=OFF: a commit is in the kernel's page cache when it returns, so a killed server loses
# nothing that it acknowledged. Only a machine that loses power could lose the last moments, and
# the objects' own bytes are not flushed to the disk either; a commit costs 30 µs instead of 10 ms.
_PRAGMAS = """
PRAGMA journal_mode=WAL;
PRAGMA synchronous=OFF;
PRAGMA busy_timeout=10000;
"""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS buckets (
    name TEXT PRIMARY KEY, created REAL NOT NULL, region TEXT NOT NULL, tags TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    bucket TEXT NOT NULL, key TEXT NOT NULL,
    odd INTEGER NOT NULL,         -- 0: at the path that the key says; 1: in the side area
    size INTEGER NOT NULL, etag TEXT NOT NULL, modified REAL NOT NULL,
    inode INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,  -- tell a file that a person replaced
    content_type TEXT, extra TEXT,
    PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY, bucket TEXT NOT NULL, key TEXT NOT NULL, created REAL NOT NULL,
    content_type TEXT, extra TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (
    upload TEXT NOT NULL, number INTEGER NOT NULL, file TEXT NOT NULL, start INTEGER NOT NULL,
    size INTEGER NOT NULL, etag TEXT NOT NULL, modified REAL NOT NULL, checksums TEXT,
    PRIMARY KEY (upload, number)
) WITHOUT ROWID;
"""

_COLUMNS = "key, odd, size, etag, modified, inode, mtime_ns, content_type, extra"


@dataclass(frozen=True)
class ObjectInfo:
    """One object. `etag` is without quotes, `modified` in epoch seconds.

    `headers` are the system headers that a GET gives back (cache-control, content-encoding …),
    `checksums` base64 by algorithm name, `parts` the sizes of a multipart object's parts.
    """

    key: str
    size: int
    etag: str
    modified: float
    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[int, ...] = ()
    odd: bool = False
    identity: tuple[int, int] = (0, 0)  # inode and mtime_ns of the file

    def with_(self, **changes: Any) -> ObjectInfo:
        """A copy with some fields replaced."""
        return replace(self, **changes)


def after_prefix(prefix: str) -> str | None:
    """The smallest string above all that start with `prefix`, in UTF-8 order; None: no limit."""
    while prefix:
        last = ord(prefix[-1])
        if last < 0x10FFFF:
            following = 0xE000 if last == 0xD7FF else last + 1  # surrogates are not characters
            return prefix[:-1] + chr(following)
        prefix = prefix[:-1]
    return None


def extra_to_json(info: ObjectInfo) -> str | None:
    """The seldom-used fields as one JSON text, None when all are empty."""
    extra: dict[str, Any] = {}
    for name in ("metadata", "headers", "checksums", "tags", "parts"):
        value = getattr(info, name)
        if value:
            extra[name[0]] = list(value) if name == "parts" else dict(value)
    return json.dumps(extra, separators=(",", ":")) if extra else None


def object_from_extra(
    key: str,
    content_type: str | None,
    extra: str | None,
    size: int = 0,
    etag: str = "",
    modified: float = 0.0,
    odd: bool = False,
    identity: tuple[int, int] = (0, 0),
) -> ObjectInfo:
    """An object's data with the JSON text of `extra_to_json` unpacked."""
    more = json.loads(extra) if extra else {}
    return ObjectInfo(
        key,
        size,
        etag,
        modified,
        content_type,
        more.get("m", {}),
        more.get("h", {}),
        more.get("c", {}),
        more.get("t", {}),
        tuple(more.get("p", ())),
        odd,
        identity,
    )


def object_of(row: tuple[Any, ...]) -> ObjectInfo:
    """An object's data from its row."""
    key, odd, size, etag, modified, inode, mtime_ns, content_type, extra = row
    return object_from_extra(
        key, content_type, extra, size, etag, modified, bool(odd), (inode, mtime_ns)
    )


class Index:
    """The database. One writer at a time behind `writing()`; readers take turns on a pool."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool: list[sqlite3.Connection] = []
        self._pool_lock = threading.Lock()
        self._write_lock = threading.RLock()
        self._writer = self._connect()
        self._depth = 0
        self._closed = False
        self._writer.executescript(_SCHEMA)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, check_same_thread=False, isolation_level=None, timeout=10.0
        )
        connection.executescript(_PRAGMAS)
        return connection

    def close(self) -> None:
        """Close every connection; the index is of no use afterwards."""
        with self._write_lock, self._pool_lock:
            self._closed = True
            for connection in (*self._pool, self._writer):
                connection.close()
            self._pool.clear()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read from; sees the last commit."""
        with self._pool_lock:
            connection = self._pool.pop() if self._pool else None
        if connection is None:
            connection = self._connect()
        try:
            yield connection
        finally:
            with self._pool_lock:
                keep = not self._closed and len(self._pool) < 8
                if keep:
                    self._pool.append(connection)
            if not keep:
                connection.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The one writer, in a transaction: committed at the end, rolled back on an exception.

        A nested use joins the outer transaction.
        """
        with self._write_lock:
            if self._depth:
                yield self._writer
                return
            self._writer.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
            finally:
                self._depth = 0

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else writes, over several transactions."""
        with self._write_lock:
            yield

    def get(self, bucket: str, key: str) -> ObjectInfo | None:
        """The object's row."""
        with self.reading() as db:
            row = db.execute(
                f"SELECT {_COLUMNS} FROM objects WHERE bucket=? AND key=?",  # noqa: S608 constant
                (bucket, key),
            ).fetchone()
        return object_of(row) if row else None

    def put(self, bucket: str, info: ObjectInfo) -> None:
        """Insert or replace the object's row."""
        with self.writing() as db:
            db.execute(
                f"INSERT OR REPLACE INTO objects (bucket, {_COLUMNS})"  # noqa: S608 constant
                " VALUES (?,?,?,?,?,?,?,?,?,?)",
                (
                    bucket,
                    info.key,
                    int(info.odd),
                    info.size,
                    info.etag,
                    info.modified,
                    *info.identity,
                    info.content_type,
                    extra_to_json(info),
                ),
            )

    def remove(self, bucket: str, key: str) -> None:
        """Delete the object's row, if there."""
        with self.writing() as db:
            db.execute("DELETE FROM objects WHERE bucket=? AND key=?", (bucket, key))

    def rows(self, bucket: str, start: str, end: str | None, limit: int) -> list[tuple[Any, ...]]:
        """As `page`, but not unpacked: the key is first, `object_of` makes the rest of it."""
        query = f"SELECT {_COLUMNS} FROM objects WHERE bucket=? AND key>=?"  # noqa: S608 constant
        values: list[Any] = [bucket, start]
        if end is not None:
            query += " AND key<?"
            values.append(end)
        with self.reading() as db:
            return db.execute(f"{query} ORDER BY key LIMIT ?", [*values, limit]).fetchall()

    def page(self, bucket: str, start: str, end: str | None, limit: int) -> list[ObjectInfo]:
        """Up to `limit` objects with start <= key < end, in UTF-8 order of the keys."""
        return [object_of(row) for row in self.rows(bucket, start, end, limit)]

    def plain_keys(self, bucket: str, start: str, end: str | None) -> dict[str, int]:
        """Keys that live at their own path, with the inodes of their files."""
        query = "SELECT key, inode FROM objects WHERE bucket=? AND odd=0 AND key>=?"
        values: list[Any] = [bucket, start]
        if end is not None:
            query += " AND key<?"
            values.append(end)
        with self.reading() as db:
            return dict(db.execute(query, values).fetchall())
