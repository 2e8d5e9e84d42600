"""S3 against moto, both over a socket, with the same boto3 calls in the same run.

    python tests/bench/s3.py [--size-mib 256] [--small 2000] [--only ours|moto]

Prints a row for each operation (seconds of wall clock, ours and moto's, and the ratio), then the
servers' peak memory. 10,000 small objects and 1,024 MiB are what the project's goals speak of.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

MIB = 1 << 20

OURS = """
import sys
from pathlib import Path
from byoa.local.api.http import HttpServer
from byoa.local.api.s3 import S3Handler
from byoa.local.storage.buckets import Buckets
server = HttpServer(S3Handler(Buckets(Path(sys.argv[1]))), "127.0.0.1", 0)
server.start()
print(server.port, flush=True)
sys.stdin.read()
"""
MOTO = """
import sys, logging
from werkzeug.serving import make_server, WSGIRequestHandler
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
logging.getLogger("werkzeug").setLevel(logging.ERROR)
WSGIRequestHandler.protocol_version = "HTTP/1.1"
app = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", 0, app, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


class Peer:
    """A server process and a client of it."""

    def __init__(self, code: str, home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        port = int(self.process.stdout.readline())
        config = Config(max_pool_connections=16, retries={"total_max_attempts": 1})
        config = config.merge(Config(read_timeout=900))
        self.client = boto3.client(
            "s3",
            region_name="us-east-1",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=config,
        )
        self.client.create_bucket(Bucket="bench")

    def peak_bytes(self) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if "VmHWM" in line).split()[1]) * 1024

    def close(self) -> None:
        self.client.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@contextlib.contextmanager
def timed(rows: dict[str, float], name: str) -> Iterator[None]:
    os.sync()  # dirty pages of the step before are not this one's
    begin = time.monotonic()
    yield
    rows[name] = time.monotonic() - begin
    print(f"    {name}: {rows[name]:.2f} s", file=sys.stderr, flush=True)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(4 * MIB):
            digest.update(data)
    return digest.hexdigest()


def count_keys(url: str) -> int:
    """The keys of the listing, counted in the answers' text: what the server alone takes."""
    found, token = 0, ""
    while True:
        query = f"list-type=2&prefix=small/{token and '&continuation-token=' + quote(token)}"
        request = urllib.request.Request(
            f"{url}/bench?{query}",
            headers={"Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/"
                     "aws4_request, SignedHeaders=host, Signature=0"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read().decode()
        found += text.count("<Key>")
        more = re.search("<NextContinuationToken>(.*?)</", text)
        if more is None:
            return found
        token = more[1]


def measure(peer: Peer, source: Path, work: Path, small: int) -> dict[str, float]:
    """Seconds by row; "peak RSS" is bytes after the large objects."""
    rows: dict[str, float] = {}
    s3, size, wanted = peer.client, source.stat().st_size, sha256(source)
    target = work / "download"

    def small_objects(call: Callable[[int], object], threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(call, range(small)):
                pass

    with timed(rows, f"{small} small puts, 1 client"):
        for index in range(small):
            key = f"small/{index // 100:04}/{index:06}"
            s3.put_object(Bucket="bench", Key=key, Body=b"x" * 256)
    with timed(rows, f"{small} small puts, 4 threads"):
        small_objects(
            lambda i: s3.put_object(Bucket="bench", Key=f"more/{i:06}", Body=b"x" * 256), 4
        )
    with timed(rows, f"{small} small gets, 1 client"):
        for index in range(small):
            s3.get_object(Bucket="bench", Key=f"more/{index:06}")["Body"].read()
    with timed(rows, f"list {small}"):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket="bench", Prefix="small/")
        assert sum(page["KeyCount"] for page in pages) == small
    with timed(rows, f"list {small}, without boto3's parsing"):
        assert count_keys(s3.meta.endpoint_url) == small
    with timed(rows, f"list {small} by folder"):
        pages = s3.get_paginator("list_objects_v2").paginate(
            Bucket="bench", Prefix="small/", Delimiter="/"
        )
        assert sum(page["KeyCount"] for page in pages) == -(-small // 100)
    with timed(rows, "put_object"), source.open("rb") as file:
        s3.put_object(Bucket="bench", Key="whole", Body=file)
    with timed(rows, "upload_file (multipart)"):
        s3.upload_file(str(source), "bench", "parts")
    with timed(rows, "get_object stream"):
        total = 0
        with s3.get_object(Bucket="bench", Key="whole")["Body"] as stream:
            while data := stream.read(MIB):
                total += len(data)
        assert total == size
    with timed(rows, "download_file (ranged)"):
        s3.download_file("bench", "parts", str(target), Config=TransferConfig())
    assert sha256(target) == wanted, "the download differs from the upload"
    target.unlink()
    with timed(rows, "copy (managed, by parts)"):
        s3.copy({"Bucket": "bench", "Key": "parts"}, "bench", "copy")
    with timed(rows, "copy_object"):
        s3.copy_object(Bucket="bench", Key="copy2", CopySource={"Bucket": "bench", "Key": "whole"})
    rows["peak RSS"] = peer.peak_bytes()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mib", type=int, default=256, help="size of the large object")
    parser.add_argument("--small", type=int, default=2000, help="number of small objects")
    parser.add_argument("--only", choices=("ours", "moto"), help="measure one of the two")
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="byoa-bench-") as folder:
        work = Path(folder)
        source = work / "source"
        with source.open("wb") as file:
            for _ in range(options.size_mib):
                file.write(os.urandom(MIB))
        for name, code in (("ours", OURS), ("moto", MOTO)):
            if options.only in (None, name):
                print(f"  {name}", file=sys.stderr, flush=True)
                peer = Peer(code, work / name)
                try:
                    results[name] = measure(peer, source, work, options.small)
                finally:
                    peer.close()
    names = ", ".join(f"{each} {version(each)}" for each in ("byoa", "moto", "boto3", "werkzeug"))
    print(f"{names}; Python {platform.python_version()}; {os.cpu_count()} CPUs")
    print(f"object of {options.size_mib} MiB, {options.small} small objects of 256 bytes\n")
    print("| | " + " | ".join(results) + (" | moto / ours |" if len(results) == 2 else " |"))
    print("|---" * (len(results) + (2 if len(results) == 2 else 1)) + "|")
    for row in next(iter(results.values())):
        values = [each[row] for each in results.values()]
        if row == "peak RSS":
            cells = [f"{value / MIB:.0f} MiB" for value in values]
        else:
            cells = [f"{value:.2f} s" for value in values]
        if len(values) == 2:
            cells.append(f"{values[1] / values[0]:.1f}")
        print(f"| {row} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
