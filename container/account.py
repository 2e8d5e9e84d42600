"""The user that this process runs as: any uid gets a HOME and a TMPDIR that it can write.

SageMaker starts images as root; others start them with --user, --read-only or without a passwd
entry, and the server's workers give root up. All of that ends here.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from byoa.container.errors import ContractError

ROOT_NAME = "root"
STATUS = Path("/proc/self/status")
USER_MAP = Path("/proc/self/uid_map")
GROUP_MAP = Path("/proc/self/gid_map")
# Writable in a container whose root file system is not: /dev/shm always, /tmp where it is mounted.
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - looked for, never trusted
# From linux/capability.h: chown, to signal another user's processes, setgid, setuid.
_CAPABILITIES = (0, 5, 6, 7)


@dataclass(frozen=True)
class Account:
    """A user as the container's passwd file has it."""

    name: str
    uid: int
    gid: int
    home: str

    def __str__(self) -> str:
        number = f"uid {self.uid}"
        return number if self.name == str(self.uid) else f"{self.name} ({number})"


def find(name: str) -> Account | None:
    """The account called `name`, None where there is none."""
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


def own() -> Account:
    """The account of this process; a uid without an entry has its number as its name."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Account(str(uid), uid, gid, "")
    return Account(entry.pw_name, uid, gid, entry.pw_dir)


def obstacle(account: Account) -> str | None:
    """Why this process cannot become `account`; None where it can.

    A root without capabilities cannot, nor one in a user namespace that does not know the user.
    """
    if os.geteuid() != 0:
        return f"only root may change users, and this is uid {os.geteuid()}"
    with contextlib.suppress(OSError, ValueError):  # no /proc: nothing restrains root
        for line in STATUS.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "CapEff" and any(not int(value, 16) >> each & 1 for each in _CAPABILITIES):
                return "this root has no capability to change users"
    for table, number in ((USER_MAP, account.uid), (GROUP_MAP, account.gid)):
        if not _mapped(table, number):
            return f"this user namespace has no id {number}"
    return None


def _mapped(table: Path, number: int) -> bool:
    try:
        rows = [[int(word) for word in line.split()] for line in table.read_text().splitlines()]
    except (OSError, ValueError):
        return True
    return any(first <= number < first + count for first, _, count in rows)


def become(account: Account, environ: MutableMapping[str, str] = os.environ) -> None:
    """Give root up for `account`, for good, and settle there."""
    for descriptor in (1, 2):
        # So that /dev/stdout can be opened: the engine does the same for --user.
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            with contextlib.suppress(OSError):
                os.fchown(descriptor, account.uid, -1)
    os.initgroups(account.name, account.gid)
    os.setgid(account.gid)
    os.setuid(account.uid)
    for name in ("HOME", "USER", "LOGNAME"):  # root's
        environ.pop(name, None)
    settle(environ)


def settle(environ: MutableMapping[str, str] = os.environ) -> None:
    """Make HOME and TMPDIR directories that this process can write, where they are not, and give
    a uid without a passwd entry a name: libraries keep caches there and ask for the name."""
    account = own()
    places = (environ.get("TMPDIR", ""), *TEMPORARY)
    temporary = next((place for place in places if place and _writable(place)), None)
    if temporary and (temporary != TEMPORARY[0] or environ.get("TMPDIR")):
        environ["TMPDIR"] = temporary
    if not account.home:
        environ.setdefault("USER", account.name)
    for home in (environ.get("HOME", ""), account.home):
        if home and _writable(home):
            environ["HOME"] = home
            return
    if temporary:
        made = os.path.join(temporary, f"home-{account.uid}")
        with contextlib.suppress(OSError):
            os.mkdir(made, 0o700)
        if _writable(made) and os.stat(made).st_uid == account.uid:
            environ["HOME"] = made


def _writable(path: str) -> bool:
    return os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)


# --- what this process may write and read ---------------------------------------------------------


def make_writable(directory: Path) -> None:
    """Make `directory` where it is missing; raises ContractError where nothing can be written to
    it, saying to whom it belongs and what to do."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ContractError(
            "DIRECTORY_EXPECTED", f"{directory} is a file", expected="a directory"
        ) from None
    except OSError as error:
        raise _unwritable(directory, error.strerror) from None
    if not _writable(str(directory)):
        raise _unwritable(directory, None)


def _unwritable(directory: Path, cause: str | None) -> ContractError:
    there = directory
    while not there.exists() and there != there.parent:
        there = there.parent
    read_only = os.statvfs(there).f_flag & os.ST_RDONLY
    reason = "it is mounted read-only" if read_only else cause or "permission denied"
    place = describe(there) if there == directory else f"{there}: {describe(there)}"
    user, group = os.geteuid(), os.getegid()
    if read_only:
        remedy = f"mount {directory} for writing; the job leaves its results there"
    else:
        remedy = (
            "run the container as root, as SageMaker does, or give the directory to this user"
            f" where it is mounted from: chown -R {user}:{group} DIRECTORY"
        )
    return ContractError(
        "DIRECTORY_NOT_WRITABLE",
        f"uid {user} (gid {group}) cannot write to {directory}: {reason} ({place})",
        expected="a directory that this user can write",
        remedy=remedy,
    )


def unreadable(directory: Path) -> Path | None:
    """The first file or directory in `directory` that this process may not read; one that is not
    there is no such."""
    if not directory.exists() and os.access(directory.parent, os.X_OK):
        return None
    if not os.access(directory, os.R_OK | os.X_OK):
        return directory
    for place, directories, files in os.walk(directory):
        for names, mode in ((directories, os.R_OK | os.X_OK), (files, os.R_OK)):
            for name in sorted(names):
                path = Path(place, name)
                if path.exists() and not os.access(path, mode):
                    return path
    return None


def closed_to(account: Account, directory: Path) -> Path | None:
    """What `account`, another user than this, may not read by its mode: the first directory on the
    way to `directory`, or the first file or directory in it."""
    groups = {account.gid, *os.getgrouplist(account.name, account.gid)}
    for parent in reversed(directory.parents):
        if not _open_to(account, groups, parent, search=True, read=False):
            return parent
    for place, _, files in os.walk(directory):
        if not _open_to(account, groups, Path(place), search=True):
            return Path(place)
        for name in sorted(files):
            if not _open_to(account, groups, Path(place, name)):
                return Path(place, name)
    return None


def _open_to(
    account: Account, groups: set[int], path: Path, *, search: bool = False, read: bool = True
) -> bool:
    try:
        found = path.stat()
    except OSError:
        return True  # a link to nothing is closed to nobody
    shift = 6 if found.st_uid == account.uid else 3 if found.st_gid in groups else 0
    wanted = (4 if read else 0) | (1 if search else 0)
    return (found.st_mode >> shift) & wanted == wanted


def describe(path: Path) -> str:
    """Owner and mode: `of uid 0, mode 0600`."""
    try:
        found = path.stat()
    except OSError as error:
        return error.strerror or "unknown"
    return f"of uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}"


