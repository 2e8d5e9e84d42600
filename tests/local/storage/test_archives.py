"""Archives: relative members out, nothing outside in."""

from __future__ import annotations

import io
import os
import random
import socket
import tarfile
from pathlib import Path

import pytest

from byoa.local.storage.archives import ArchiveError, extract, pack


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


def test_what_is_packed_is_unpacked_the_same(tmp_path: Path) -> None:
    """TRAIN-130, CHK-33: nested directories, empty files and directories, odd names, links."""
    source = tmp_path / "source"
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / "data.bin").write_bytes(os.urandom(70_000))
    (source / "empty.txt").touch()
    (source / "nothing").mkdir()
    (source / "é 数 $(x)").write_text("odd")
    (source / ("n" * 180)).write_text("long")
    (source / "latest").symlink_to("a/b/data.bin")
    (source / "a" / "up").symlink_to("../empty.txt")
    (source / "run.sh").write_text("#!/bin/sh")
    (source / "run.sh").chmod(0o755)

    packed = pack(source, tmp_path / "model.tar.gz")
    assert packed.files == 5 and packed.left_out == ()
    assert extract(tmp_path / "model.tar.gz", tmp_path / "target") == 5
    assert tree(tmp_path / "target") == tree(source)
    assert os.readlink(tmp_path / "target" / "latest") == "a/b/data.bin"
    assert (tmp_path / "target" / "run.sh").stat().st_mode & 0o777 == 0o755


def test_members_are_relative_and_belong_to_root(tmp_path: Path) -> None:
    """TRAIN-08, TRAIN-130."""
    (tmp_path / "s" / "d").mkdir(parents=True)
    (tmp_path / "s" / "d" / "f").touch()
    pack(tmp_path / "s", tmp_path / "x.tar.gz")

    with tarfile.open(tmp_path / "x.tar.gz") as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == ["d", "d/f"]
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "root", "root")}


def test_an_empty_directory_is_an_empty_archive(tmp_path: Path) -> None:
    """TRAIN-133."""
    (tmp_path / "s").mkdir()

    assert pack(tmp_path / "s", tmp_path / "x.tar.gz").files == 0
    assert extract(tmp_path / "x.tar.gz", tmp_path / "t") == 0
    assert tree(tmp_path / "t") == {}


def test_pipes_and_sockets_are_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRAIN-136."""
    (tmp_path / "s").mkdir()
    os.mkfifo(tmp_path / "s" / "pipe")
    monkeypatch.chdir(tmp_path / "s")  # a socket's path may have 107 bytes
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        (tmp_path / "s" / "kept").touch()
        packed = pack(tmp_path / "s", tmp_path / "x.tar.gz")

    assert packed.left_out == ("pipe: a pipe", "socket: a socket")
    assert packed.files == 1


@pytest.mark.parametrize("goal", ["/etc/passwd", "../outside", "d/../../outside"])
def test_a_link_out_of_the_directory_is_refused(tmp_path: Path, goal: str) -> None:
    """TRAIN-136."""
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "link").symlink_to(goal)

    with pytest.raises(ArchiveError, match="link links to .*copy the file"):
        pack(tmp_path / "s", tmp_path / "x.tar.gz")


def test_directories_are_merged_and_what_the_first_has_stays(tmp_path: Path) -> None:
    """TRAIN-132: SageMaker leaves open which of two files of one name stays."""
    for name, files in (("one", {"same": "1", "d/a": "1", "x": "1"}),
                        ("two", {"same": "2", "d/b": "2", "x/below": "2"})):
        for file, text in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(text)
    packed = pack(tmp_path / "one", tmp_path / "x.tar.gz", tmp_path / "two")
    extract(tmp_path / "x.tar.gz", tmp_path / "t")

    assert tree(tmp_path / "t") == {
        "d": None, "d/a": b"1", "d/b": b"2", "same": b"1", "x": b"1",
    }
    assert [each.partition(":")[0] for each in packed.left_out] == ["same", "x", "x/below"]


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
    pack(tmp_path / "s", tmp_path / "x.tar.gz")
    whole = (tmp_path / "x.tar.gz").read_bytes()
    (tmp_path / "x.tar.gz").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(ArchiveError) as caught:
        extract(tmp_path / "x.tar.gz", tmp_path / "t")
    assert caught.value.code == "ARCHIVE_INVALID"


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_damaged_archive_is_an_error(place: float, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "data").write_bytes(random.Random(0).randbytes(100_000))
    pack(tmp_path / "s", tmp_path / "x.tar.gz")
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
