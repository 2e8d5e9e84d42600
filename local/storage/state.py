"""Every resource of the local SageMaker as a row of one SQLite file, with its document as JSON.

A row outlives the server: what `create` or `mutate` returned is on disk, whoever kills the process.
"""

from __future__ import annotations

import builtins
import contextlib
import copy
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byoa.container.errors import ByoaError
from byoa.local.settings import Caller

SCHEMA_VERSION = 1
BUSY_TIMEOUT_SECONDS = 10.0  # another process (`byoa image add`) may hold the write lock

_SCHEMA = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE resources (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    kind     TEXT NOT NULL,
    account  TEXT NOT NULL,
    region   TEXT NOT NULL,
    name     TEXT NOT NULL,
    arn      TEXT NOT NULL,
    created  REAL NOT NULL,
    modified REAL NOT NULL,
    status   TEXT NOT NULL,
    document TEXT NOT NULL,
    UNIQUE (kind, account, region, name)
);
CREATE TABLE tags (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    arn   TEXT NOT NULL,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    UNIQUE (arn, key)
);
"""
_COLUMNS = "kind, name, region, account, arn, created, modified, status, document"


@dataclass
class Row:
    """One resource. `document` is the caller's own copy; only `mutate` changes what is stored."""

    kind: str
    name: str
    region: str
    account: str
    arn: str
    created: float
    modified: float
    status: str
    document: dict[str, Any]

    @property
    def caller(self) -> Caller:
        return Caller(account=self.account, region=self.region)


class AlreadyExists(Exception):
    """`create` of a name that is taken; `row` is what holds it."""

    def __init__(self, row: Row) -> None:
        super().__init__(f"{row.kind} {row.name} already exists ({row.arn})")
        self.row = row


class Missing(LookupError):
    """`mutate` of a row that does not exist, or no longer."""


class State:
    """The store. Any thread may call it; other processes may open the same file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = threading.RLock()
        self._changed = threading.Condition()
        self._changes = 0
        self._database = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._open()
        except BaseException:
            self._database.close()
            raise

    def _open(self) -> None:
        self._database.execute("PRAGMA journal_mode = WAL")
        # A commit survives the death of this process; only a power cut may take the last ones.
        self._database.execute("PRAGMA synchronous = NORMAL")
        with self._transaction():
            known = self._database.execute(
                "SELECT 1 FROM sqlite_master WHERE name = 'schema_version'"
            ).fetchone()
            if known is None:
                for statement in _SCHEMA.split(";"):
                    if statement.strip():
                        self._database.execute(statement)
                self._database.execute(
                    "INSERT INTO schema_version VALUES (?)", (SCHEMA_VERSION,)
                )
            version = self._database.execute("SELECT version FROM schema_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            raise ByoaError(
                "STATE_VERSION",
                f"{self.path} has schema version {version}",
                expected=f"version {SCHEMA_VERSION}",
                remedy="use the byoa that wrote it, or another BYOA_HOME",
            )

    def close(self) -> None:
        with self._lock:
            self._database.close()

    # --- resources ---

    def create(
        self,
        kind: str,
        caller: Caller,
        name: str,
        *,
        arn: str,
        status: str,
        document: Mapping[str, Any],
    ) -> Row:
        """Store a new row; raises AlreadyExists with the row that has the name."""
        now, text = time.time(), _dump(document)
        with self._transaction():
            existing = self._select(kind, caller, name)
            if existing is not None:
                raise AlreadyExists(existing)
            self._database.execute(
                f"INSERT INTO resources ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                (kind, name, caller.region, caller.account, arn, now, now, status, text),
            )
        self._notify()
        return Row(kind, name, caller.region, caller.account, arn, now, now, status,
                   json.loads(text))

    def get(self, kind: str, caller: Caller, name: str) -> Row | None:
        with self._lock:
            return self._select(kind, caller, name)

    def list(self, kind: str, caller: Caller | None = None) -> builtins.list[Row]:
        """The rows of a kind in order of creation; of every account and region without caller."""
        query = f"SELECT {_COLUMNS} FROM resources WHERE kind = ?"  # noqa: S608
        values: list[Any] = [kind]
        if caller is not None:
            query += " AND account = ? AND region = ?"
            values += [caller.account, caller.region]
        with self._lock:
            found = self._database.execute(f"{query} ORDER BY created, id", values).fetchall()
        return [_row(each) for each in found]

    def delete(self, kind: str, caller: Caller, name: str) -> bool:
        """Remove the row and its tags; False where there is none."""
        with self._transaction():
            row = self._select(kind, caller, name)
            if row is None:
                return False
            self._database.execute(
                "DELETE FROM resources WHERE kind = ? AND account = ? AND region = ? AND name = ?",
                (kind, caller.account, caller.region, name),
            )
            self._database.execute("DELETE FROM tags WHERE arn = ?", (row.arn,))
        self._notify()
        return True

    def mutate(
        self, kind: str, caller: Caller, name: str, change: Callable[[Row], None]
    ) -> Row:
        """Read, `change` and write in one transaction; returns the row as stored.

        `change` edits `status` and `document` in place, and must be quick: the store is locked.
        What it raises leaves the row as it was. Raises Missing where there is no row.
        """
        with self._transaction():
            row = self._select(kind, caller, name)
            if row is None:
                raise Missing(f"no {kind} {name} in {caller.region}")
            change(row)
            row.modified = time.time()
            self._database.execute(
                "UPDATE resources SET status = ?, document = ?, modified = ?"
                " WHERE kind = ? AND account = ? AND region = ? AND name = ?",
                (row.status, _dump(row.document), row.modified, kind, caller.account,
                 caller.region, name),
            )
        self._notify()
        row.document = copy.deepcopy(row.document)  # `change` may have kept a reference
        return row

    # --- waiting ---

    @property
    def changes(self) -> int:
        """How many changes there have been in this process, for `wait_for_change`."""
        with self._changed:
            return self._changes

    def wait_for_change(self, timeout: float, since: int | None = None) -> bool:
        """Wait until anything changes in this process; False after `timeout` seconds.

        With `since`, an earlier value of `changes`, a change between the two calls is not missed.
        """
        with self._changed:
            seen = self._changes if since is None else since
            return self._changed.wait_for(lambda: self._changes != seen, timeout)

    # --- tags ---

    def tags(self, arn: str) -> dict[str, str]:
        """The tags of a resource in the order in which they were set."""
        with self._lock:
            found = self._database.execute(
                "SELECT key, value FROM tags WHERE arn = ? ORDER BY id", (arn,)
            ).fetchall()
        return dict(found)

    def set_tags(self, arn: str, tags: Mapping[str, str]) -> None:
        """Add tags, or give those that exist a new value."""
        with self._transaction():
            self._database.executemany(
                "INSERT INTO tags (arn, key, value) VALUES (?, ?, ?)"
                " ON CONFLICT (arn, key) DO UPDATE SET value = excluded.value",
                [(arn, key, value) for key, value in tags.items()],
            )
        self._notify()

    def remove_tags(self, arn: str, keys: Iterable[str]) -> None:
        with self._transaction():
            self._database.executemany(
                "DELETE FROM tags WHERE arn = ? AND key = ?", [(arn, key) for key in keys]
            )
        self._notify()

    # --- within ---

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            # IMMEDIATE: the write lock is taken before reading, so that no other process's change
            # falls between the read and the write.
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def _select(self, kind: str, caller: Caller, name: str) -> Row | None:
        found = self._database.execute(
            f"SELECT {_COLUMNS} FROM resources"  # noqa: S608
            " WHERE kind = ? AND account = ? AND region = ? AND name = ?",
            (kind, caller.account, caller.region, name),
        ).fetchone()
        return None if found is None else _row(found)

    def _notify(self) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()


def _dump(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _row(values: tuple[Any, ...]) -> Row:
    kind, name, region, account, arn, created, modified, status, document = values
    return Row(
        kind, name, region, account, arn, created, modified, status, json.loads(document)
    )
