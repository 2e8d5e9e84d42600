"""A private /opt/ml, host name and network for the process that calls `enter`.

Linux namespaces, without root where the kernel allows it. Standard library only; the shim calls
it before it has a second thread. `python -m byoa.local.runners.sandbox` tells whether it works.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

OPT = Path("/opt")
NAMES = Path("/etc/hosts")
ML = OPT / "ml"
PROBE_SECONDS = 20.0

_NEW_MOUNTS, _NEW_USERS, _NEW_NETWORK = 0x00020000, 0x10000000, 0x40000000
_NEW_HOST_NAME = 0x04000000
_BIND, _MOVE, _REC, _PRIVATE = 0x1000, 0x2000, 0x4000, 0x40000
_READ_ONLY, _REMOUNT = 0x1, 0x20
# As statvfs says it, and as mount takes it: nosuid, nodev, noexec, noatime, nodiratime, relatime.
_KEPT = ((2, 2), (4, 4), (8, 8), (0x400, 0x400), (0x800, 0x800), (0x1000, 0x200000))
_MARKER = "byoa-sandbox-probe"


def enter(
    ml: Path,
    scratch: Path,
    *,
    isolated: bool = False,
    network: int | None = None,
    host: str | None = None,
    names: Path | None = None,
    read_only: Sequence[tuple[Path, str]] = (),
) -> None:
    """Show `ml` as /opt/ml to this process and its children, and to nobody else.

    With `isolated` only a loopback interface is left, that of process `network` where one is given.
    For the rest see `show`. Raises OSError where the kernel refuses.
    """
    leave(isolated=isolated, network=network, renamed=host is not None)
    show(ml, scratch, host=host, names=names, read_only=read_only)


def leave(*, isolated: bool = False, network: int | None = None, renamed: bool = True) -> None:
    """Leave this machine's namespaces, for ones in which nothing is different yet; `renamed` where
    the machine is to have another name. To be called before there is a second thread."""
    if network is not None:
        _join_network(network)
    alone = isolated and network is None
    flags = _NEW_MOUNTS | (_NEW_NETWORK if alone else 0)
    _unshare(flags | _NEW_HOST_NAME if renamed else flags)
    _mount(None, "/", None, _REC | _PRIVATE)  # nothing mounted below reaches the host
    if alone:
        _raise_loopback()


def show(
    ml: Path,
    scratch: Path,
    *,
    host: str | None = None,
    names: Path | None = None,
    read_only: Sequence[tuple[Path, str]] = (),
) -> None:
    """Show `ml` as /opt/ml to all that share the namespaces which this process left for.

    /opt keeps its other entries. `scratch` is an empty directory for the mount. `host` becomes
    the machine's name, `names` its /etc/hosts. Each directory of `read_only` appears at its place
    below /opt/ml.
    """
    if host is not None:
        socket.sethostname(host)
    if names is not None:
        _mount(names, NAMES, None, _BIND)
    if ML.is_dir():
        _mount(ml, ML, None, _BIND | _REC)
    else:
        _mount("tmpfs", scratch, "tmpfs", 0)
        for entry in OPT.iterdir():
            _show_entry(entry, scratch / entry.name)
        target = scratch / ML.name
        target.mkdir()
        _mount(ml, target, None, _BIND | _REC)
        _mount(scratch, OPT, None, _MOVE)
    for shown, place in read_only:
        _show_read_only(shown, ML / place)


def leave_network() -> None:
    """Move this process into a network of its own, which has only a loopback interface."""
    _unshare(_NEW_NETWORK)
    _raise_loopback()


def unavailable() -> str | None:
    """Why processes cannot have a private /opt/ml here; None when they can. Takes 50 ms."""
    if sys.platform != "linux":
        return f"{sys.platform} has no mount namespaces"
    try:
        probe = subprocess.run(  # noqa: S603 - an argv of our own
            [sys.executable, "-m", __name__], cwd="/", stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=PROBE_SECONDS, check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if probe.returncode == 0:
        return None
    return (probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"])[-1]


def _unshare(flags: int) -> None:
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        try:
            return _call("unshare", flags)
        except OSError as error:
            if error.errno != errno.EPERM:  # root of a container that may not mount
                raise
    _call("unshare", flags | _NEW_USERS)
    # Root inside is this user outside: the files that the container writes belong to the user.
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "wb") as file:
            file.write(text.encode())


def _join_network(pid: int) -> None:
    """Enter the network of a process, and the users' namespace that it belongs to."""
    kinds = (("user", _NEW_USERS), ("net", _NEW_NETWORK))
    opened = [(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY), kind, flag) for kind, flag in kinds]
    for descriptor, kind, flag in opened:
        if os.fstat(descriptor).st_ino != os.stat(f"/proc/self/ns/{kind}").st_ino:
            _call("setns", descriptor, flag, what=f"setns to the {kind} namespace of {pid}")
        os.close(descriptor)


def _show_entry(entry: Path, target: Path) -> None:
    if entry.is_symlink():
        target.symlink_to(os.readlink(entry))
    elif entry.is_dir():
        target.mkdir()
        _mount(entry, target, None, _BIND | _REC)
    elif entry.exists():
        target.touch()
        _mount(entry, target, None, _BIND)


def _show_read_only(directory: Path, target: Path) -> None:
    _mount(directory, target, None, _BIND)
    # What the filesystem itself is mounted with stays: a user who is not root may not take it off.
    has = os.statvfs(target).f_flag
    kept = sum(flag for said, flag in _KEPT if has & said)
    _mount(None, target, None, _BIND | _REMOUNT | _READ_ONLY | kept)


def _mount(
    source: Path | str | None, target: Path | str, kind: str | None, flags: int
) -> None:
    _call(
        "mount",
        None if source is None else os.fsencode(source),
        os.fsencode(target),
        None if kind is None else kind.encode(),
        ctypes.c_ulong(flags),
        None,
        what=f"mount of {target}",
    )


def _call(name: str, *arguments: object, what: str | None = None) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what or name}: {os.strerror(number)}")


def _raise_loopback() -> None:
    import fcntl
    import struct

    get_flags, set_flags, up = 0x8913, 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(control, get_flags, request))[1]
        fcntl.ioctl(control, set_flags, struct.pack("16sH14x", b"lo", flags | up))


def _probe() -> int:
    with tempfile.TemporaryDirectory() as directory:
        ml, scratch = Path(directory, "ml"), Path(directory, "scratch")
        ml.mkdir()
        scratch.mkdir()
        ml.joinpath(_MARKER).touch()
        # In a child, so that the mounts are gone when the directory is removed.
        child = os.fork()
        if child == 0:
            code = 1
            try:
                enter(ml, scratch, isolated=True, host="algo-1")
                code = 0 if ML.joinpath(_MARKER).exists() else 1
            except OSError as error:
                sys.stderr.write(f"{error.strerror}\n")
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(_probe())
