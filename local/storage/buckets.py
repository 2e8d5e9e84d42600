"""Buckets as folders: an object is a plain file, `<home>/s3/<bucket>/<key>`, for any tool to read.

    <home>/s3/<bucket>/<key>          the object's bytes
    <home>/s3/.byoa/index.sqlite      ETags, content types, metadata, tags, uploads
    <home>/s3/.byoa/odd/<bucket>/…    keys that no path can say (`a//b`, `dir/`, `..`, `a` beside
                                      `a/b`, a segment over 255 bytes), named by their SHA-256
    <home>/s3/.byoa/temp, …/uploads   what is being written

Objects are replaced by rename, never written in place, so a reader keeps what it opened. A file
that a person drops into, edits in or removes from a bucket's folder is noticed when it is asked
for or listed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from byoa.container.errors import ByoaError
from byoa.local.storage import files
from byoa.local.storage.files import Draft
from byoa.local.storage.object_files import KEY_LIMIT_BYTES, ObjectFiles, valid_bucket_name
from byoa.local.storage.object_index import Index, ObjectInfo, after_prefix

__all__ = [
    "BucketMissing",
    "Buckets",
    "Draft",
    "ObjectInfo",
    "ObjectMissing",
    "parse_s3_uri",
    "valid_bucket_name",
]

PAGE_KEYS = 1000

_S3_URI = re.compile(r"s3[an]?://([^/]+)(?:/(.*))?", re.DOTALL)

Condition = Callable[[ObjectInfo | None], None]


class BucketMissing(ByoaError):
    """There is no bucket of this name."""

    def __init__(self, bucket: str) -> None:
        super().__init__("BUCKET_MISSING", f"there is no bucket {bucket!r}", where=f"s3://{bucket}")


class ObjectMissing(ByoaError):
    """There is no object of this key."""

    def __init__(self, bucket: str, key: str) -> None:
        super().__init__("OBJECT_MISSING", "there is no such object", where=f"s3://{bucket}/{key}")


def parse_s3_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`; the key is "" where the URI names a whole bucket."""
    match = _S3_URI.fullmatch(uri)
    if match is None:
        raise ByoaError("S3_URI_INVALID", f"{uri!r} is no S3 URI", expected="s3://bucket/key")
    return match[1], match[2] or ""


class Buckets:
    """The store below `home`; thread-safe. `close()` it at the end."""

    def __init__(self, home: Path) -> None:
        self.root = Path(home) / "s3"
        self.side = self.root / ".byoa"
        self._temp = self.side / "temp"
        for directory in (self._temp, self.side / "odd", self.side / "uploads"):
            directory.mkdir(parents=True, exist_ok=True)
        self._lock_file = os.open(self.side / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._sweep()
        self.index = Index(self.side / "index.sqlite")
        self._files = ObjectFiles(self.root, self.side, self.index)
        self._count = 0
        self._count_lock = threading.Lock()

    def _sweep(self) -> None:
        """Remove what a killed server was writing, unless another one still runs here."""
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        for left in self._temp.iterdir():
            files.unlink_quietly(left)

    def close(self) -> None:
        """Close the index and release the folder."""
        self.index.close()
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1

    # Buckets

    def create(self, bucket: str, region: str = "us-east-1") -> bool:
        """Make the bucket; False when it is there already. ByoaError for an impossible name."""
        if not valid_bucket_name(bucket):
            raise ByoaError(
                "BUCKET_NAME_INVALID",
                f"{bucket!r} is no bucket name",
                expected="3 to 63 of a-z, 0-9, '.' and '-', first and last alphanumeric",
            )
        (self.root / bucket).mkdir(exist_ok=True)
        with self.index.writing() as db:
            made = db.execute(
                "INSERT OR IGNORE INTO buckets (name, created, region) VALUES (?,?,?)",
                (bucket, time.time(), region),
            )
            return made.rowcount == 1

    def exists(self, bucket: str) -> bool:
        """Is there such a bucket (or a folder that a person made for one)?"""
        with self.index.reading() as db:
            if db.execute("SELECT 1 FROM buckets WHERE name=?", (bucket,)).fetchone():
                return True
        return valid_bucket_name(bucket) and (self.root / bucket).is_dir() and self._found(bucket)

    def _found(self, bucket: str) -> bool:
        self.create(bucket)
        return True

    def names(self) -> list[str]:
        """All buckets, sorted."""
        return [name for name, _, _ in self.describe()]

    def describe(self) -> list[tuple[str, float, str]]:
        """Name, creation time and region of every bucket, sorted by name."""
        for entry in self.root.iterdir():
            if valid_bucket_name(entry.name) and entry.is_dir():
                self.exists(entry.name)
        with self.index.reading() as db:
            return db.execute("SELECT name, created, region FROM buckets ORDER BY name").fetchall()

    def require(self, bucket: str) -> None:
        """BucketMissing unless the bucket exists."""
        if not self.exists(bucket):
            raise BucketMissing(bucket)

    def remove(self, bucket: str) -> bool:
        """Delete an empty bucket; False when it holds objects. BucketMissing when not there."""
        self.require(bucket)
        self._files.adopt(bucket)
        with self.index.writing() as db:
            if db.execute("SELECT 1 FROM objects WHERE bucket=? LIMIT 1", (bucket,)).fetchone():
                return False
            uploads = db.execute("SELECT id FROM uploads WHERE bucket=?", (bucket,)).fetchall()
            for (upload,) in uploads:
                db.execute("DELETE FROM parts WHERE upload=?", (upload,))
                db.execute("DELETE FROM uploads WHERE id=?", (upload,))
                shutil.rmtree(self.side / "uploads" / upload, ignore_errors=True)
            db.execute("DELETE FROM buckets WHERE name=?", (bucket,))
            # What is left are empty folders, and links, which were never objects.
            shutil.rmtree(self.root / bucket, ignore_errors=True)
            shutil.rmtree(self.side / "odd" / bucket, ignore_errors=True)
            self._files.forget_directories()
        return True

    # Reading

    def stat(self, bucket: str, key: str) -> ObjectInfo | None:
        """The object, None when there is none."""
        found = self.open(bucket, key)
        if found is None:
            return None
        os.close(found[1])
        return found[0]

    def open(self, bucket: str, key: str) -> tuple[ObjectInfo, int] | None:
        """The object and a descriptor of exactly those bytes, which the caller closes."""
        return self._files.open(bucket, key)

    def file_of(self, bucket: str, info: ObjectInfo) -> Path:
        """Where the file of a known object is."""
        path = self._files.path(bucket, info.key, info)
        if path is None:
            raise ObjectMissing(bucket, info.key)
        return path

    def adopt(self, bucket: str, prefix: str = "") -> None:
        """Make the index follow what a person did to the files below `prefix`."""
        self._files.adopt(bucket, prefix)

    def path(self, bucket: str, key: str) -> Path:
        """The object's file, to read only: a write to it would change the object."""
        info = self.stat(bucket, key)
        path = self._files.path(bucket, key, info) if info is not None else None
        if path is None:
            raise ObjectMissing(bucket, key)
        return path

    def materialise(self, bucket: str, key: str, target: Path) -> ObjectInfo:
        """Copy the object to `target` (shared extents where the filesystem has them): no write to
        `target` ever reaches the object."""
        found = self.open(bucket, key)
        if found is None:
            raise ObjectMissing(bucket, key)
        info, source = found
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            files.unlink_quietly(target)
            copy = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                files.copy_whole(source, copy, info.size)
            finally:
                os.close(copy)
        finally:
            os.close(source)
        return info

    def link(self, bucket: str, key: str, target: Path) -> bool:
        """Give the object's file a second name, which costs nothing and stays when the object is
        replaced or removed; False where that cannot be, or not everybody could read it. Whoever
        may write to `target` writes to the object."""
        path = self.path(bucket, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        files.unlink_quietly(target)
        return files.link_readable(path, target)

    def keys(self, bucket: str, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with `prefix`, in UTF-8 order of the keys."""
        self.require(bucket)
        self._files.adopt(bucket, prefix)
        start, end = prefix, after_prefix(prefix)
        while page := self.index.page(bucket, start, end, PAGE_KEYS):
            yield from page
            start = page[-1].key + "\0"

    # Writing

    def draft(self) -> Draft:
        """A new file to write an object's bytes to; use it in a `with`."""
        with self._count_lock:
            self._count += 1
            number = self._count
        return Draft(self._temp / f"{os.getpid()}-{number}-{time.time_ns()}")

    def commit(
        self, bucket: str, draft: Draft, info: ObjectInfo, *, condition: Condition | None = None
    ) -> ObjectInfo:
        """Make the draft the object `info.key`, at once and whole.

        `condition` sees the object of now (or None) and raises to refuse. Whatever fails, the
        object of before is still there.
        """
        check_key(info.key)
        backup = draft.path.with_name(draft.path.name + ".before")
        with self.index.exclusive():
            old: ObjectInfo | None = None
            target: Path | None = None
            try:
                with self.index.writing():
                    self.require(bucket)
                    old = self._files.current(bucket, info.key)
                    if condition is not None:
                        condition(old)
                    if old is not None:
                        self._keep(bucket, old, backup)
                    odd, target = self._files.place(bucket, info.key, draft.path, old)
                    info = info.with_(odd=odd, identity=files.identity(os.fstat(draft.fd)))
                    self.index.put(bucket, info)
            except BaseException:
                if backup.exists() and target is not None:
                    os.replace(backup, target)
                elif target is not None and old is None:
                    files.unlink_quietly(target)
                raise
            finally:
                files.unlink_quietly(backup)
        return info

    def _keep(self, bucket: str, old: ObjectInfo, backup: Path) -> None:
        path = self._files.path(bucket, old.key, old)
        if path is not None:
            # A second name costs nothing; a filesystem without links has no way back, only the
            # rename itself, which is atomic.
            with contextlib.suppress(OSError):
                os.link(path, backup)

    def put_bytes(
        self, bucket: str, key: str, data: bytes, *, content_type: str | None = None
    ) -> ObjectInfo:
        """Store `data` as an object."""
        with self.draft() as draft:
            draft.write(data)
            etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
            info = ObjectInfo(key, len(data), etag, time.time(), content_type)
            return self.commit(bucket, draft, info)

    def put_file(
        self,
        bucket: str,
        key: str,
        source: Path,
        *,
        content_type: str | None = None,
        move: bool = False,
        condition: Condition | None = None,
    ) -> ObjectInfo:
        """Store a file as an object. `move` gives the file away, at no cost where it is on the
        same filesystem; nobody may write to it any more. `condition` as for `commit`: it is asked
        when the bytes have been read."""
        self.require(bucket)
        check_key(key)
        with self._draft_of(source, move) as draft:
            size = os.fstat(draft.fd).st_size
            info = ObjectInfo(key, size, files.md5_of(draft.fd), time.time(), content_type)
            info = self.commit(bucket, draft, info, condition=condition)
        if move:
            files.unlink_quietly(source)
        return info

    def _draft_of(self, source: Path, move: bool) -> Draft:
        draft = self.draft()
        try:
            if move and not source.is_symlink():
                # A second name, so that a failure later leaves the source where it was.
                with contextlib.suppress(OSError):  # another filesystem, or one without links
                    named = draft.path.with_name(draft.path.name + ".moved")
                    os.link(source, named)
                    draft.close()
                    return Draft(named, existing=True)
            with source.open("rb") as file:
                files.copy_whole(file.fileno(), draft.fd, os.fstat(file.fileno()).st_size)
        except BaseException:
            draft.close()
            raise
        return draft

    def update(
        self, bucket: str, key: str, change: Callable[[ObjectInfo], ObjectInfo]
    ) -> ObjectInfo:
        """Change what the index says of an object (its tags), not its bytes."""
        with self.index.writing():
            info = self.stat(bucket, key)
            if info is None:
                raise ObjectMissing(bucket, key)
            info = change(info)
            self.index.put(bucket, info)
        return info

    def delete(self, bucket: str, key: str, *, condition: Condition | None = None) -> bool:
        """Remove an object; False when there is none. `condition` as for `commit`."""
        return bool(self.delete_many(bucket, [key], condition=condition))

    def delete_many(
        self, bucket: str, keys: Iterable[str], *, condition: Condition | None = None
    ) -> list[str]:
        """Remove objects in one transaction; returns the keys that were there."""
        self.require(bucket)
        gone: list[str] = []
        with self.index.writing():
            for key in keys:
                info = self._files.current(bucket, key)
                if condition is not None:
                    condition(info)
                path = self._files.path(bucket, key, info) if info is not None else None
                if path is not None:
                    # The file first: a row without a file is no object, a file without a row is.
                    files.unlink_quietly(path)
                    gone.append(key)
                    root = self.root / bucket if path.is_relative_to(self.root / bucket) else None
                    if root is not None and path.parent != root:
                        self._files.forget_directories()
                        files.prune(path.parent, root)
                self.index.remove(bucket, key)
        return gone

    def bucket_tags(self, bucket: str) -> dict[str, str]:
        """The bucket's tags."""
        self.require(bucket)
        with self.index.reading() as db:
            row = db.execute("SELECT tags FROM buckets WHERE name=?", (bucket,)).fetchone()
        return json.loads(row[0]) if row and row[0] else {}

    def set_bucket_tags(self, bucket: str, tags: dict[str, str]) -> None:
        """Replace the bucket's tags."""
        self.require(bucket)
        with self.index.writing() as db:
            text = json.dumps(tags) if tags else None
            db.execute("UPDATE buckets SET tags=? WHERE name=?", (text, bucket))


def check_key(key: str) -> None:
    """ByoaError unless the key has 1 to 1,024 bytes of UTF-8."""
    if not 0 < len(key.encode()) <= KEY_LIMIT_BYTES:
        raise ByoaError(
            "KEY_INVALID", "an object's key has the wrong length", expected="1 to 1,024 bytes"
        )
