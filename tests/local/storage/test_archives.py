"""Archives that are unpacked: nothing lands outside, and what is broken is said."""

from __future__ import annotations

import io
import os
import random
import tarfile
from pathlib import Path

import pytest

from byoa.local.storage.archives import ArchiveError, extract
from byoa.local.storage.packing import pack


def tree(root: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def link(name: str, goal: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, goal
    return member


def device(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.CHRTYPE
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../outside"),
        tarfile.TarInfo("a/../../outside"),
        link("link", "/etc/passwd"),
        link("link", "../outside"),
        link("link", "../outside", tarfile.LNKTYPE),
        device("device"),
    ],
    ids=["parent", "winding", "absolute-link", "link-up", "hard-link-up", "device"],
)
def test_a_member_that_would_land_outside_is_refused(
    tmp_path: Path, member: tarfile.TarInfo
) -> None:
    archive = tar(tmp_path / "x.tar.gz", (member, b""))

    with pytest.raises(ArchiveError) as caught:
        extract(archive, tmp_path / "t")
    assert caught.value.code == "ARCHIVE_UNSAFE"
    assert not (tmp_path / "outside").exists()


def test_an_absolute_name_lands_inside(tmp_path: Path) -> None:
    archive = tar(tmp_path / "x.tar.gz", (tarfile.TarInfo("/model/weights"), b"w"))

    extract(archive, tmp_path / "t")
    assert (tmp_path / "t" / "model" / "weights").read_bytes() == b"w"


@pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8b\x08\x00garbage", b"PK\x03\x04"])
def test_what_is_no_archive_is_said_so(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.tar.gz").write_bytes(data)

    with pytest.raises(ArchiveError, match="model.tar.gz is no tar archive"):
        extract(tmp_path / "model.tar.gz", tmp_path / "t")


def test_a_cut_archive_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "data").write_bytes(os.urandom(100_000))
    pack({"algo-1": tmp_path / "s"}, tmp_path / "x.tar.gz")
    whole = (tmp_path / "x.tar.gz").read_bytes()
    (tmp_path / "x.tar.gz").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(ArchiveError) as caught:
        extract(tmp_path / "x.tar.gz", tmp_path / "t")
    assert caught.value.code == "ARCHIVE_INVALID"


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_damaged_archive_is_an_error(place: float, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "data").write_bytes(random.Random(0).randbytes(100_000))
    pack({"algo-1": tmp_path / "s"}, tmp_path / "x.tar.gz")
    damaged = bytearray((tmp_path / "x.tar.gz").read_bytes())
    damaged[int(len(damaged) * place)] ^= 0xFF
    (tmp_path / "x.tar.gz").write_bytes(damaged)

    with pytest.raises(ArchiveError):
        extract(tmp_path / "x.tar.gz", tmp_path / "t")


@pytest.mark.parametrize("mode", ["w", "w:bz2", "w:xz"])
def test_other_compressions_are_unpacked_too(tmp_path: Path, mode: str) -> None:
    with tarfile.open(tmp_path / "x.tar", mode) as archive:  # type: ignore[call-overload]
        archive.addfile(tarfile.TarInfo("file"))

    assert extract(tmp_path / "x.tar", tmp_path / "t") == 1
