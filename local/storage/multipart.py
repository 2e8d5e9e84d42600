"""Multipart uploads: parts are files aside, joined by the kernel when the upload completes.

A part that is a range of another object is a second name of that object's file and a range: its
bytes are copied once, at completion. That is safe because objects are never written in place.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byoa.container.errors import ByoaError
from byoa.local.storage import checksums, files
from byoa.local.storage.buckets import Buckets, Condition
from byoa.local.storage.files import Draft
from byoa.local.storage.object_index import ObjectInfo, extra_to_json, object_from_extra

__all__ = [
    "ChecksumMismatch",
    "Part",
    "PartMismatch",
    "PartTooSmall",
    "Upload",
    "UploadMissing",
    "Uploads",
]

PART_MINIMUM_BYTES = 5 << 20  # of every part but the last
COMPLETED_REMEMBERED = 1000


class UploadMissing(ByoaError):
    """There is no such upload; it may have been completed or aborted."""

    def __init__(self, upload: str) -> None:
        super().__init__("UPLOAD_MISSING", "there is no such multipart upload", where=upload)


class PartMismatch(ByoaError):
    """A part that is to be joined was not uploaded, or has another ETag or checksum."""

    def __init__(self, number: int) -> None:
        super().__init__("PART_MISMATCH", "the part is not there as named", where=f"part {number}")
        self.number = number


class PartTooSmall(ByoaError):
    """A part before the last has less than 5 MiB."""

    def __init__(self, part: Part) -> None:
        super().__init__("PART_TOO_SMALL", "the part is too small", where=f"part {part.number}")
        self.part = part


class ChecksumMismatch(ByoaError):
    """The joined parts have another checksum than the client says."""

    def __init__(self, name: str) -> None:
        super().__init__("CHECKSUM_MISMATCH", f"the {name} of the whole is another")
        self.name = name


@dataclass(frozen=True)
class Part:
    """One uploaded part: `size` bytes from `start` of `file`, in the upload's folder."""

    number: int
    file: str
    start: int
    size: int
    etag: str
    modified: float
    checksums: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Upload:
    """An upload under way; `info` holds what the object will have besides its bytes.

    `algorithm` and `kind` (COMPOSITE or FULL_OBJECT) are of the checksum asked for, or "".
    """

    id: str
    bucket: str
    created: float
    info: ObjectInfo
    algorithm: str = ""
    kind: str = ""


class Uploads:
    """The uploads of a store. Parts survive a restart of the server."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._index = buckets.index
        self._root = buckets.side / "uploads"
        self._completed: dict[str, tuple[str, str, str]] = {}  # id → bucket, key, etag
        self._completing: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def create(self, bucket: str, info: ObjectInfo, algorithm: str = "", kind: str = "") -> Upload:
        """Begin an upload of the object `info.key`."""
        self._buckets.require(bucket)
        upload = Upload(secrets.token_urlsafe(48), bucket, time.time(), info, algorithm, kind)
        extra = json.dumps([extra_to_json(info), algorithm, kind])
        (self._root / upload.id).mkdir()
        with self._index.writing() as db:
            db.execute(
                "INSERT INTO uploads VALUES (?,?,?,?,?,?)",
                (upload.id, bucket, info.key, upload.created, info.content_type, extra),
            )
        return upload

    def get(self, bucket: str, key: str, upload: str) -> Upload:
        """The upload; UploadMissing when it is not one of this bucket and key."""
        with self._index.reading() as db:
            row = db.execute(
                "SELECT id, bucket, key, created, content_type, extra FROM uploads WHERE id=?",
                (upload,),
            ).fetchone()
        if row is None or row[1:3] != (bucket, key):
            raise UploadMissing(upload)
        return _upload(row)

    def list(self, bucket: str, prefix: str = "") -> list[Upload]:
        """The bucket's uploads under way, by key and then by time."""
        self._buckets.require(bucket)
        with self._index.reading() as db:
            rows = db.execute(
                "SELECT id, bucket, key, created, content_type, extra FROM uploads"
                " WHERE bucket=? ORDER BY key, created",
                (bucket,),
            ).fetchall()
        return [_upload(row) for row in rows if row[2].startswith(prefix)]

    def parts(self, upload: Upload) -> dict[int, Part]:
        """The parts that are there, in order of their numbers."""
        with self._index.reading() as db:
            rows = db.execute(
                "SELECT number, file, start, size, etag, modified, checksums FROM parts"
                " WHERE upload=? ORDER BY number",
                (upload.id,),
            ).fetchall()
        return {
            number: Part(number, file, start, size, etag, modified, json.loads(sums or "{}"))
            for number, file, start, size, etag, modified, sums in rows
        }

    def put_part(
        self, upload: Upload, number: int, draft: Draft, etag: str, sums: Mapping[str, str]
    ) -> Part:
        """Make the draft the part `number`, in place of an earlier one."""
        size = os.fstat(draft.fd).st_size
        part = Part(number, f"{number}-{secrets.token_hex(4)}", 0, size, etag, time.time(), sums)
        return self._keep(upload, part, lambda path: os.rename(draft.path, path))

    def copy_part(
        self, upload: Upload, number: int, source: int, path: Path, start: int, size: int
    ) -> Part:
        """Make a range of an object, open as `source` at `path`, the part `number`."""
        digest = hashlib.md5(usedforsecurity=False)
        sums = {upload.algorithm: checksums.new(upload.algorithm)} if upload.algorithm else {}
        files.feed(source, start, size, [digest.update, *(each.update for each in sums.values())])
        texts = {key: base64.b64encode(each.digest()).decode() for key, each in sums.items()}
        part_of = (start, size, digest.hexdigest(), time.time(), texts)
        name = f"{number}-{secrets.token_hex(4)}"

        def link(target: Path) -> None:
            try:
                os.link(path, target)
                same = os.stat(target).st_ino == os.fstat(source).st_ino
            except OSError:  # replaced or removed meanwhile, or a filesystem without links
                same = False
            if not same:
                files.unlink_quietly(target)
                with self._buckets.draft() as draft:
                    # Sparse before `start`, so that the range keeps its place.
                    files.copy_range(source, start, draft.fd, start, size)
                    os.rename(draft.path, target)

        return self._keep(upload, Part(number, name, *part_of), link)

    def _keep(self, upload: Upload, part: Part, make: Callable[[Path], None]) -> Part:
        folder = self._root / upload.id
        try:
            make(folder / part.file)
        except FileNotFoundError:
            raise UploadMissing(upload.id) from None
        with self._index.writing() as db:
            if not db.execute("SELECT 1 FROM uploads WHERE id=?", (upload.id,)).fetchone():
                files.unlink_quietly(folder / part.file)
                raise UploadMissing(upload.id)
            before = db.execute(
                "SELECT file FROM parts WHERE upload=? AND number=?", (upload.id, part.number)
            ).fetchone()
            db.execute(
                "INSERT OR REPLACE INTO parts VALUES (?,?,?,?,?,?,?,?)",
                (
                    upload.id,
                    part.number,
                    part.file,
                    part.start,
                    part.size,
                    part.etag,
                    part.modified,
                    json.dumps(dict(part.checksums)) if part.checksums else None,
                ),
            )
        if before:
            files.unlink_quietly(folder / before[0])
        return part

    def complete(
        self,
        upload: Upload,
        wanted: Sequence[tuple[int, str, Mapping[str, str]]],
        *,
        condition: Condition | None = None,
        expected: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """Join the parts (number, ETag, checksums; in this order) into the object.

        `expected` are checksums that the whole must have. PartMismatch, PartTooSmall and
        ChecksumMismatch leave the upload as it is. Asked again meanwhile or afterwards, by a
        client that lost patience, it waits and gives the object of the first time.
        """
        with self._lock:
            turn = self._completing.setdefault(upload.id, threading.Lock())
        try:
            with turn:
                done = self.completed(upload.bucket, upload.info.key, upload.id)
                return done or self._join(upload, wanted, condition, expected or {})
        finally:
            with self._lock:
                self._completing.pop(upload.id, None)

    def _join(
        self,
        upload: Upload,
        wanted: Sequence[tuple[int, str, Mapping[str, str]]],
        condition: Condition | None,
        expected: Mapping[str, str],
    ) -> ObjectInfo:
        there = self.parts(upload)
        chosen: list[Part] = []
        for number, etag, sums in wanted:
            part = there.get(number)
            if (
                part is None
                or part.etag != etag
                or any(part.checksums.get(name, value) != value for name, value in sums.items())
            ):
                raise PartMismatch(number)
            chosen.append(part)
        for part in chosen[:-1]:
            if part.size < PART_MINIMUM_BYTES:
                raise PartTooSmall(part)
        digest = hashlib.md5(usedforsecurity=False)
        for part in chosen:
            digest.update(bytes.fromhex(part.etag))
        info = upload.info.with_(
            size=sum(part.size for part in chosen),
            etag=f"{digest.hexdigest()}-{len(chosen)}",
            modified=time.time(),
            parts=tuple(part.size for part in chosen),
            checksums=_joined_checksums(upload, chosen),
        )
        for name, value in expected.items():
            if info.checksums.get(name, value) != value:
                raise ChecksumMismatch(name)
        with self._buckets.draft() as draft:
            at = 0
            for part in chosen:
                source = os.open(self._root / upload.id / part.file, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    files.copy_range(source, part.start, draft.fd, at, part.size)
                finally:
                    os.close(source)
                at += part.size
            info = self._buckets.commit(upload.bucket, draft, info, condition=condition)
        self._remember(upload, info)
        self.abort(upload)
        return info

    def completed(self, bucket: str, key: str, upload: str) -> ObjectInfo | None:
        """The object of an upload that was completed just now: a client that missed the answer
        asks again."""
        with self._lock:
            known = self._completed.get(upload)
        info = self._buckets.stat(bucket, key) if known else None
        return info if info and known == (bucket, key, info.etag) else None

    def _remember(self, upload: Upload, info: ObjectInfo) -> None:
        with self._lock:
            self._completed[upload.id] = (upload.bucket, info.key, info.etag)
            while len(self._completed) > COMPLETED_REMEMBERED:
                del self._completed[next(iter(self._completed))]

    def abort(self, upload: Upload) -> None:
        """Forget the upload and its parts."""
        with self._index.writing() as db:
            db.execute("DELETE FROM parts WHERE upload=?", (upload.id,))
            db.execute("DELETE FROM uploads WHERE id=?", (upload.id,))
        shutil.rmtree(self._root / upload.id, ignore_errors=True)


def _upload(row: tuple[Any, ...]) -> Upload:
    ident, bucket, key, created, content_type, text = row
    extra, algorithm, kind = json.loads(text)
    info = object_from_extra(key, content_type, extra)
    return Upload(ident, bucket, created, info, algorithm, kind)


def _joined_checksums(upload: Upload, parts: Sequence[Part]) -> dict[str, str]:
    """The object's checksum from its parts': of the whole by combining CRCs, or of the list."""
    name = upload.algorithm
    if not name or any(name not in part.checksums for part in parts):
        return {}
    raw = [base64.b64decode(part.checksums[name]) for part in parts]
    if upload.kind == "FULL_OBJECT":
        whole = checksums.combine(name, list(zip(raw, (part.size for part in parts), strict=True)))
        return {name: base64.b64encode(whole).decode()}
    digest = checksums.new(name)
    digest.update(b"".join(raw))
    return {name: f"{base64.b64encode(digest.digest()).decode()}-{len(parts)}"}
