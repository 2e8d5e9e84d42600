"""Where a script's code comes from (TK-02, TK-03, TRAIN-45)."""

import io
import os
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from byoa.container.contract import Layout
from byoa.container.errors import AlgorithmError, UnsupportedError
from byoa.container.script_source import fetch


@pytest.fixture
def layout(tmp_path):
    made = Layout(tmp_path / "ml")
    made.create()
    return made


def archive(files, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, text in files.items():
            data = text.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_a_directory_is_copied_into_the_code_directory(layout, tmp_path):
    source = tmp_path / "src"
    (source / "lib").mkdir(parents=True)
    (source / "train.py").write_text("1")
    (source / "lib" / "a.py").write_text("2")
    fetch(str(source), layout, {})
    assert (layout.code / "lib" / "a.py").read_text() == "2"


def test_a_directory_of_the_contract_is_found_in_the_layout(layout):
    channel = layout.channel("code")
    channel.mkdir()
    (channel / "train.py").write_text("1")
    fetch("/opt/ml/input/data/code", layout, {})
    assert (layout.code / "train.py").exists()


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_an_archive_is_unpacked(layout, tmp_path, form):
    path = tmp_path / "source dir.tar.gz"
    path.write_bytes(archive({"train.py": "1"}))
    fetch(form.format(path), layout, {})
    assert (layout.code / "train.py").read_text() == "1"


def test_what_is_in_the_code_directory_already_is_used(layout, tmp_path):
    """TK-03"""
    (layout.code / "train.py").write_text("mine")
    fetch("s3://bkt/nowhere.tar.gz", layout, {})
    assert (layout.code / "train.py").read_text() == "mine"


def test_an_archive_that_would_leave_the_directory_is_refused(layout, tmp_path):
    path = tmp_path / "evil.tar.gz"
    path.write_bytes(archive({"../outside.py": "1"}))
    with pytest.raises(AlgorithmError, match="SOURCE_INVALID"):
        fetch(str(path), layout, {})
    assert not (layout.root / "outside.py").exists()


def test_a_source_that_is_no_archive_or_does_not_exist_is_named(layout, tmp_path):
    (tmp_path / "x").write_text("not a tar")
    with pytest.raises(AlgorithmError, match="SOURCE_INVALID"):
        fetch(str(tmp_path / "x"), layout, {})
    with pytest.raises(AlgorithmError, match="SOURCE_MISSING"):
        fetch(str(tmp_path / "nowhere"), layout, {})


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """An HTTP server that answers GET and HEAD of one bucket's objects, as S3 does."""
    objects = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            data = objects.get(self.path)
            self.send_response(200 if data is not None else 404)
            self.send_header("Content-Length", str(len(data or b"")))
            self.send_header("ETag", '"e"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data or b"")

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    yield objects, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_object_in_s3_is_downloaded_and_unpacked(layout, s3):
    """TRAIN-45, TK-08: S3_ENDPOINT_URL and the Region are honoured."""
    objects, url = s3
    objects["/bkt/job-1/source/sourcedir.tar.gz"] = archive({"train.py": "from s3"})
    environ = {"S3_ENDPOINT_URL": url, "AWS_REGION": "us-west-2"}
    fetch("s3://bkt/job-1/source/sourcedir.tar.gz", layout, environ)
    assert (layout.code / "train.py").read_text() == "from s3"


def test_an_object_that_is_not_there_is_named(layout, s3):
    environ = {"S3_ENDPOINT_URL": s3[1]}
    with pytest.raises(AlgorithmError, match="SOURCE_DOWNLOAD_FAILED") as caught:
        fetch("s3://bkt/none.tar.gz", layout, environ, region="us-west-2")
    assert caught.value.message.startswith("s3://bkt/none.tar.gz: ")


@pytest.mark.parametrize("name", ["train.py", "run.sh"])
def test_one_file_is_a_source(layout, s3, tmp_path, name):
    """As the toolkit copies what is no archive."""
    objects, url = s3
    objects[f"/bkt/{name}"] = b"print(1)"
    fetch(f"s3://bkt/{name}", layout, {"S3_ENDPOINT_URL": url, "AWS_REGION": "us-west-2"})
    assert (layout.code / name).read_bytes() == b"print(1)"
    (layout.code / name).unlink()
    (tmp_path / name).write_text("local")
    fetch(str(tmp_path / name), layout, {})
    assert (layout.code / name).read_text() == "local"


def test_a_tar_in_a_channel_is_unpacked(layout):
    """What the SDK sends under network isolation: the code as a channel."""
    channel = layout.channel("code")
    channel.mkdir()
    (channel / "sourcedir.tar.gz").write_bytes(archive({"train.py": "1", "lib/a.py": "2"}))
    fetch("/opt/ml/input/data/code/sourcedir.tar.gz", layout, {})
    assert (layout.code / "lib" / "a.py").read_text() == "2"


def test_a_source_by_another_protocol_is_refused_by_name(layout):
    with pytest.raises(UnsupportedError, match="SOURCE_UNSUPPORTED") as caught:
        fetch("https://example.com/source.tar.gz", layout, {})
    assert "https" in caught.value.message
