"""Tars of others, with Python's own filter and without one."""

import io
import os
import tarfile

import pytest

from byoa.container.unpack import unpack


@pytest.fixture(params=["filter", "no filter"])
def unpacked(request, tmp_path, monkeypatch):
    """Unpacks members, given as (name, type, text or target, mode); the directory."""
    if request.param == "no filter":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)

    def run(*members):
        directory = tmp_path / "code"
        directory.mkdir(exist_ok=True)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, kind, content, mode in members:
                info = tarfile.TarInfo(name)
                info.type, info.mode, info.uid, info.gid = kind, mode, 12345, 12345
                data = b""
                if kind == tarfile.REGTYPE:
                    data = content.encode()
                    info.size = len(data)
                else:
                    info.linkname = content
                tar.addfile(info, io.BytesIO(data))
        buffer.seek(0)
        with tarfile.open(fileobj=buffer) as tar:
            unpack(tar, directory)
        return directory

    return run


def file(name, mode=0o644):
    return (name, tarfile.REGTYPE, name, mode)


def test_files_directories_and_links_within_are_there(unpacked):
    directory = unpacked(
        file("./train.py"), ("lib", tarfile.DIRTYPE, "", 0o700), file("lib/a.py"),
        ("lib/b.py", tarfile.SYMTYPE, "a.py", 0o777), ("c.py", tarfile.LNKTYPE, "lib/a.py", 0o644),
        file("run.sh", 0o6777), file("/absolute.py"),
    )
    assert (directory / "train.py").read_text() == "./train.py"
    assert (directory / "lib" / "b.py").read_text() == "lib/a.py"
    assert (directory / "c.py").read_text() == "lib/a.py"
    assert (directory / "absolute.py").exists()
    status = (directory / "run.sh").stat()
    assert status.st_mode & 0o7777 == 0o755
    assert status.st_uid == os.getuid()


@pytest.mark.parametrize("members", [
    [file("../outside.py")],
    [file("lib/../../outside.py")],
    [("link", tarfile.SYMTYPE, "..", 0o777), file("link/outside.py")],
    [("link", tarfile.SYMTYPE, "/tmp", 0o777)],
    [("link", tarfile.LNKTYPE, "../outside.py", 0o777)],
    [("device", tarfile.CHRTYPE, "", 0o644)],
])
def test_what_would_get_outside_is_refused(unpacked, members, tmp_path):
    with pytest.raises(tarfile.TarError):
        unpacked(*members)
    assert not (tmp_path / "outside.py").exists()


def test_links_that_lead_outside_only_together_are_refused(unpacked, tmp_path):
    with pytest.raises((tarfile.TarError, OSError)):
        unpacked(
            ("a", tarfile.DIRTYPE, "", 0o755), ("a/up", tarfile.SYMTYPE, "..", 0o777),
            ("out", tarfile.SYMTYPE, "a/up/..", 0o777), file("out/outside.py"),
        )
    assert not (tmp_path / "outside.py").exists()
