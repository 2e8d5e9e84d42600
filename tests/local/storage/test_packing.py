"""What a directory holds, as an archive: all of it, readable, and what cannot be kept is said."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from byoa.local.storage import packing
from byoa.local.storage.archives import ArchiveError, extract
from byoa.local.storage.gzip_writer import BLOCK_BYTES, GzipWriter
from byoa.local.storage.packing import pack, survey


def tree(root: Path) -> dict[str, bytes | None]:
    return {
        os.fsdecode(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def unpacked(archive: Path, target: Path) -> dict[str, bytes | None]:
    """By the system's own tar, as whoever downloads it."""
    target.mkdir()
    subprocess.run(["tar", "xzf", str(archive), "-C", str(target)], check=True, timeout=60)
    return tree(target)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    return made


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "model.tar.gz"


def test_what_is_packed_is_unpacked_the_same(source: Path, archive: Path, tmp_path: Path) -> None:
    """TRAIN-130, CHK-33: nested directories, empty files and directories, odd names, links."""
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / "data.bin").write_bytes(os.urandom(70_000))
    (source / "empty.txt").touch()
    (source / "nothing").mkdir()
    (source / "é 数 $(x)").write_text("odd")
    (source / ("n" * 180)).write_text("long")
    deep = source.joinpath(*["d" * 60] * 5)
    deep.mkdir(parents=True)
    (deep / "below").write_text("deep")
    (source / "latest").symlink_to("a/b/data.bin")
    (source / "a" / "up").symlink_to("../empty.txt")
    (source / "run.sh").write_text("#!/bin/sh")
    (source / "run.sh").chmod(0o755)

    assert pack({"algo-1": source}, archive).left_out == []
    assert extract(archive, tmp_path / "target") == 6
    assert tree(tmp_path / "target") == tree(source)
    assert unpacked(archive, tmp_path / "by-tar") == tree(source)
    assert os.readlink(tmp_path / "target" / "latest") == "a/b/data.bin"
    assert (tmp_path / "target" / "run.sh").stat().st_mode & 0o777 == 0o755


def test_members_are_relative_and_belong_to_root(source: Path, archive: Path) -> None:
    """TRAIN-08, TRAIN-130."""
    (source / "d").mkdir()
    (source / "d" / "f").touch()
    pack({"algo-1": source}, archive)

    with tarfile.open(archive) as opened:
        members = opened.getmembers()
    assert [member.name for member in members] == ["d", "d/f"]
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "root", "root")}


def test_what_a_strict_umask_closes_is_readable_by_whoever_unpacks_it(
    source: Path, archive: Path
) -> None:
    """TRAIN-136: a server that is not root has to read what a root with umask 077 wrote."""
    (source / "d").mkdir(mode=0o700)
    (source / "d" / "weights").touch(mode=0o600)
    (source / "d" / "tool").touch(mode=0o700)
    os.utime(source / "d" / "weights", (1.9e9, 1_700_000_000.75))
    pack({"algo-1": source}, archive)

    with tarfile.open(archive) as opened:
        modes = {member.name: member.mode for member in opened}
        assert opened.getmember("d/weights").mtime == 1_700_000_000
    assert modes == {"d": 0o755, "d/weights": 0o644, "d/tool": 0o744}


def test_an_empty_directory_is_an_empty_archive(
    source: Path, archive: Path, tmp_path: Path
) -> None:
    """TRAIN-133."""
    assert pack({"algo-1": source}, archive).entries == []
    assert unpacked(archive, tmp_path / "t") == {}


def test_pipes_and_sockets_are_left_out_and_named(
    source: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRAIN-136."""
    os.mkfifo(source / "pipe")
    monkeypatch.chdir(source)  # a socket's path may have 107 bytes
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        (source / "kept").touch()
        packed = pack({"algo-1": source}, archive)

    assert packed.left_out == ["pipe: a pipe", "socket: a socket"]
    assert [entry.name for entry in packed.entries] == ["kept"]


@pytest.mark.parametrize(
    ("goal", "why"),
    [("/etc/passwd", "by an absolute path"), ("../outside", "outside the directory"),
     ("d/../../outside", "outside the directory")],
)
def test_a_link_out_of_the_directory_is_left_out_and_named(
    source: Path, archive: Path, goal: str, why: str
) -> None:
    """TRAIN-136, TRAP-21."""
    (source / "link").symlink_to(goal)
    packed = pack({"algo-1": source}, archive)

    assert packed.entries == []
    assert packed.left_out == [
        f"link: a link to {goal}, {why}; copy the file, or link to it relatively"
    ]


def test_hard_links_are_stored_once(source: Path, archive: Path, tmp_path: Path) -> None:
    (source / "a").write_bytes(random.Random(0).randbytes(500_000))
    os.link(source / "a", source / "b")
    pack({"algo-1": source}, archive)

    assert archive.stat().st_size < 600_000
    assert unpacked(archive, tmp_path / "t") == tree(source)
    assert extract(archive, tmp_path / "u") == 2
    assert tree(tmp_path / "u") == tree(source)


def test_a_name_that_is_no_utf_8_is_kept_byte_by_byte(
    source: Path, archive: Path, tmp_path: Path
) -> None:
    name = b"\xff\xfe-weights"
    Path(os.fsdecode(os.fsencode(source) + b"/" + name)).write_text("w")
    pack({"algo-1": source}, archive)

    assert unpacked(archive, tmp_path / "t") == {os.fsdecode(name): b"w"}
    assert extract(archive, tmp_path / "u") == 1
    assert os.listdir(os.fsencode(tmp_path / "u")) == [name]


def test_names_are_shown_as_one_line_of_text() -> None:
    assert packing.shown("a\nb\udcffé") == "a\\nb\\udcffé"


def test_a_file_that_grows_while_it_is_packed_is_kept_as_it_was_and_said(
    source: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "log").write_bytes(b"1" * 1000)
    _when_opened(monkeypatch, lambda path: os.truncate(path, 1500))
    packed = pack({"algo-1": source}, archive)

    assert unpacked(archive, tmp_path / "t") == {"log": b"1" * 1000}
    assert packed.left_out == [
        "log: what was added to it after byte 1,000, while it was packed"
    ]


def _when_opened(monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], Any]) -> None:
    """Change a file between the moment when its size is read and the moment when its bytes are."""
    original, opened = packing._member, packing.open_file
    paths: list[Path] = []

    def remember(path: Path) -> int:
        paths.append(path)
        return opened(path)

    def member(info: tarfile.TarInfo) -> tarfile.TarInfo:
        change(paths[-1])
        return original(info)

    monkeypatch.setattr(packing, "open_file", remember)
    monkeypatch.setattr(packing, "_member", member)


def test_a_file_that_is_cut_while_it_is_packed_fails_and_leaves_no_archive(
    source: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "log").write_bytes(b"1" * 1000)
    _when_opened(monkeypatch, lambda path: os.truncate(path, 10))

    with pytest.raises(ArchiveError, match="log was cut to 10 bytes while it was packed"):
        pack({"algo-1": source}, archive)
    assert not archive.exists()


def test_a_file_that_vanishes_while_others_are_packed_is_said(
    source: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (source / name).write_text(name)
    _when_opened(monkeypatch, lambda path: (source / "b").unlink(missing_ok=True))
    packed = pack({"algo-1": source}, archive)

    assert unpacked(archive, tmp_path / "t") == {"a": b"a", "c": b"c"}
    assert packed.left_out == ["b: removed while it was packed"]
    assert [entry.name for entry in packed.entries] == ["a", "c"]


def test_a_directory_that_is_written_to_all_the_time_is_packed(
    source: Path, archive: Path, tmp_path: Path
) -> None:
    (source / "kept").write_text("kept")
    over = threading.Event()

    def write() -> None:
        for number in iter(int, 1):
            path = source / f"{number % 20}-{len(os.listdir(source)) % 7}"
            path.write_bytes(b"x" * 100_000)
            path.unlink()
            if over.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            try:
                pack({"algo-1": source}, archive)
            except ArchiveError as error:
                assert error.code == "ARCHIVE_CHANGED"
    finally:
        over.set()
        writer.join()
    pack({"algo-1": source}, archive)
    assert unpacked(archive, tmp_path / "t") == {"kept": b"kept"}


def test_directories_of_hosts_are_merged_and_what_differs_is_named(
    tmp_path: Path, archive: Path
) -> None:
    """TRAIN-132, TRAP-22: SageMaker leaves open which of two files of one name stays."""
    for name, files in (("one", {"same": "1", "d/a": "1", "x": "1", "equal": "e"}),
                        ("two", {"same": "2", "d/b": "2", "x/below": "2", "equal": "e"})):
        for file, text in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(text)
    packed = pack({"algo-1": tmp_path / "one", "algo-2": tmp_path / "two"}, archive)

    assert unpacked(archive, tmp_path / "t") == {
        "d": None, "d/a": b"1", "d/b": b"2", "equal": b"e", "same": b"1", "x": b"1",
    }
    assert packed.left_out == [
        "same of algo-2: algo-1 has written something else under this name, which is kept",
        "x of algo-2: algo-1 has written something else under this name, which is kept",
        "x/below of algo-2: another host has written something else under this name, which is kept",
    ]


def test_files_for_a_store_of_objects_are_regular_ones_and_links_to_them(source: Path) -> None:
    """TRAIN-134."""
    (source / "d").mkdir()
    (source / "d" / "f").touch()
    (source / "f").symlink_to("d/f")
    (source / "e").symlink_to("d")
    found = survey({"algo-1": source})

    assert [entry.name for entry in found.files()] == ["d/f", "f"]
    assert found.left_out == ["e: a link to no file"]


def test_a_member_beyond_8_gib_has_a_header_that_tar_reads(tmp_path: Path) -> None:
    """A sparse file; only the archive's headers are made of it."""
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate((8 << 30) + 5)
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as opened:
        member = packing._member(opened.gettarinfo(large, arcname="large"))
        header = member.tobuf(opened.format, opened.encoding, opened.errors)

    (tmp_path / "header").write_bytes(header + b"\0" * 1024)
    listed = subprocess.run(
        ["tar", "tvf", str(tmp_path / "header")], capture_output=True, text=True, timeout=60,
    )
    assert str((8 << 30) + 5) in listed.stdout


def test_the_memory_that_packing_takes_does_not_grow_with_the_model(
    source: Path, archive: Path
) -> None:
    with (source / "weights").open("wb") as file:
        file.truncate(400 << 20)
    program = (
        "import pathlib, resource, sys\n"
        "from byoa.local.storage.packing import pack\n"
        "most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = most()\n"
        "pack({'algo-1': pathlib.Path(sys.argv[1])}, pathlib.Path(sys.argv[2]))\n"
        "print((most() - before) * (1 if sys.platform == 'darwin' else 1024))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(source), str(archive)], capture_output=True, text=True,
        timeout=120, check=True,
    )

    assert int(ran.stdout) < 150 << 20
    assert archive.stat().st_size < 4 << 20


@pytest.mark.parametrize(
    "kind", ["nothing", "zeros", "random", "text", "float16", "mixed", "a-block", "one-byte-more"]
)
def test_what_is_compressed_in_blocks_is_one_plain_gzip_file(kind: str, tmp_path: Path) -> None:
    generator = random.Random(1)
    noise = generator.randbytes(BLOCK_BYTES)
    data = {
        "nothing": b"",
        "zeros": bytes(3 * BLOCK_BYTES + 17),
        "random": generator.randbytes(2 * BLOCK_BYTES + 1),
        "text": b"".join(b"%d,%f\n" % (i, generator.random()) for i in range(200_000)),
        "float16": b"".join(bytes([each, 60 + each % 5]) for each in noise),
        "mixed": bytes(BLOCK_BYTES) + noise + b"text," * BLOCK_BYTES,
        "a-block": noise,
        "one-byte-more": noise + b"!",
    }[kind]
    path = tmp_path / "x.gz"
    with path.open("wb") as file, GzipWriter(file) as writer:
        view = memoryview(data)
        while view:
            written = writer.write(bytes(view[: generator.randint(1, 700_000)]))
            view = view[written:]
        assert writer.tell() == len(data)

    assert gzip.decompress(path.read_bytes()) == data
    gunzip = shutil.which("gunzip")
    assert gunzip is not None
    shown = subprocess.run([gunzip, "--stdout", str(path)], capture_output=True, timeout=60)
    assert (shown.returncode, shown.stderr) == (0, b"") and shown.stdout == data
    assert path.stat().st_size < 1.001 * len(data) + 100
