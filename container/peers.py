"""The hosts of a job as one group, a process each: gather, broadcast, barrier, and who has ended.

The first host is the hub: every other one holds a connection to it, and each collective goes
through it. That is for states of megabytes and for agreeing on things; tensors have torch's own
ways. A single host opens no socket. A host that ends early is named to all others at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable

from byoa.container import network_interface, peer_link
from byoa.container.contract import ResourceConfig
from byoa.container.errors import ContractError, PeerError
from byoa.container.hosts import wait_for_hosts
from byoa.container.peer_link import Frame, Kind, Link, Operation

PORT = 7776  # beside torchrun's 7777 (DIST-10)
MEET_SECONDS = 900.0  # hosts start at different times (TRAIN-65)
UNREACHABLE_SECONDS = 60.0  # for a host that is not merely late: no route, or no answer at all
WAIT_SECONDS = 1800.0  # for the others to come to a collective
TELL_SECONDS = 30.0  # between two lines that say who is waited for
HELLO_SECONDS = 5.0
NOTICE_SECONDS = 3.0  # for the hub's word to arrive
LOOK_SECONDS = 0.1  # between two looks at whether the job is to stop
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0
REASON_LIMIT_CHARACTERS = 500
_HUB = 0


class Peers:
    """`rank` is this host's index in the job's hosts, `size` their number (TRAIN-62).

    The first collective, or `open`, connects the hosts. To be used by one thread.
    """

    def __init__(
        self,
        resources: ResourceConfig,
        *,
        job: str = "",
        stopping: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda text: print(text, flush=True),
    ) -> None:
        self.hosts = resources.hosts
        self.rank = resources.rank
        self.size = len(resources.hosts)
        self.timeout = WAIT_SECONDS
        self._resources = resources
        # Keeps hosts of another job out, should they find the way here. It is no secret.
        self._job = hashlib.sha256("\n".join([job, *self.hosts]).encode()).hexdigest()
        self._stopping = stopping
        self._say = say
        self.absent: list[str] = []  # after a meeting that failed, the hosts that did not come
        self._links: dict[int, Link] = {}
        self._state = threading.Condition()
        self._parts: dict[int, Frame] = {}  # at the hub, by rank
        self._whole: Frame | None = None  # elsewhere
        self._left: set[int] = set()  # those that are done
        self._lost: PeerError | None = None
        self._relayed = threading.Event()  # by the hub, to the others
        self._watchers: list[Callable[[PeerError], None]] = []
        self._number = 0
        self._open = self._closed = False
        self._reader: threading.Thread | None = None

    # --- what an algorithm uses ---

    def all_gather(self, data: bytes) -> list[bytes]:
        """What every host gives, in the order of ranks."""
        if self.size == 1:
            return [data]
        return peer_link.unpack(self._collective(Operation.ALL_GATHER, data))

    def broadcast(self, data: bytes | None = None) -> bytes:
        """What the first host gives; the others may pass None."""
        if self.rank == _HUB and data is None:
            raise ValueError("the first host broadcasts, so it must have data")
        if self.size == 1:
            return data or b""
        return self._collective(Operation.BROADCAST, (data or b"") if self.rank == _HUB else b"")

    def barrier(self) -> None:
        """Return when every host has come here."""
        if self.size > 1:
            self._collective(Operation.BARRIER, b"")

    def close(self) -> None:
        """Part from the others, who may go on among themselves; a second call does nothing."""
        self._part(lambda link: link.notify(Kind.BYE))

    # --- what byoa uses ---

    def open(self) -> bool:
        """Connect the hosts; False when the job was asked to stop before all had met.

        Raises PeerError or ContractError saying which host is missing, and why.
        """
        if self._open or self.size == 1:
            return True
        wait_for_hosts(self._resources, stopping=self._stopping, say=self._say)
        met = self._listen() if self.rank == _HUB else self._connect()
        if met:
            self._open = True
            self._reader = threading.Thread(target=self._read, name="peers", daemon=True)
            self._reader.start()
        return met

    def fail(self, reason: str) -> None:
        """Tell the others why this host ends, and part."""
        first = reason.partition("\n")[0][:REASON_LIMIT_CHARACTERS]
        document = {
            "rank": self.rank, "reason": f"{self.hosts[self.rank]} has failed: {first}"
        }
        self._part(lambda link: link.notify(Kind.GONE, document))

    def watch(self, on_lost: Callable[[PeerError], None]) -> None:
        """Call `on_lost` once, in another thread, when a host has ended too early."""
        with self._state:
            if self._lost is None:
                self._watchers.append(on_lost)
                return
            lost = self._lost
        on_lost(lost)

    def lost(self, timeout: float = 0.0) -> PeerError | None:
        """The first host that ended too early, if one does within so many seconds."""
        with self._state:
            self._state.wait_for(lambda: self._lost is not None, timeout)
            return self._lost

    # --- a collective ---

    def _collective(self, operation: Operation, data: bytes) -> bytes:
        if self._closed:
            raise RuntimeError("the peers have been closed")
        if not self.open():
            raise PeerError(
                "PEERS_NOT_MET", "the job was asked to stop before all hosts had met"
            )
        self._number += 1
        try:
            if self.rank == _HUB:
                return self._as_hub(operation, data)
            link = self._links[_HUB]
            link.send(Kind.PART, data, operation=operation, number=self._number)
            self._wait(lambda: self._whole is not None, lambda: [_HUB], operation)
            with self._state:
                whole, self._whole = self._whole, None
            return b"" if whole is None else whole.payload
        except OSError as error:  # sending failed: the reader knows, or soon will, why
            raise self.lost(NOTICE_SECONDS) or PeerError(
                "PEER_LOST", f"the connection to another host broke: {error}"
            ) from error

    def _as_hub(self, operation: Operation, data: bytes) -> bytes:
        others = range(1, self.size)
        self._wait(
            lambda: len(self._parts) == self.size - 1,
            lambda: [rank for rank in others if rank not in self._parts], operation,
        )
        with self._state:
            parts, self._parts = self._parts, {}
        for rank, frame in parts.items():
            if (frame.operation, frame.number) != (operation, self._number):
                reason = (
                    f"{self.hosts[rank]} is at {_step(frame.operation, frame.number)} while"
                    f" {self.hosts[_HUB]} is at {_step(operation, self._number)}"
                )
                self.fail(reason)
                raise PeerError(
                    "PEERS_OUT_OF_STEP", reason,
                    expected="every host calls the same collectives in the same order",
                    remedy="let no host leave one out, whatever data it has",
                )
        if operation is Operation.ALL_GATHER:
            data = peer_link.pack([data, *(parts[rank].payload for rank in others)])
        elif operation is Operation.BARRIER:
            data = b""
        for rank in others:
            self._links[rank].send(Kind.WHOLE, data, operation=operation, number=self._number)
        return data

    def _wait(
        self, done: Callable[[], bool], missing: Callable[[], list[int]], operation: Operation
    ) -> None:
        started = told = time.monotonic()
        # The hub knows who is missing, so it speaks first.
        limit = self.timeout + (0.0 if self.rank == _HUB else NOTICE_SECONDS)
        with self._state:
            while not done():
                if self._lost is not None:
                    raise self._lost
                waited_for = missing()
                gone = [rank for rank in waited_for if rank in self._left]
                now = time.monotonic()
                what = _step(operation, self._number)
                if gone:
                    raise self._give_up(
                        gone, f"{self._names(gone)} has ended and does not come to {what}"
                    )
                if now - started >= limit:
                    raise self._give_up(waited_for, f"{self._names(waited_for)} did not come to"
                                        f" {what} within {self.timeout:g} s", "PEER_TIMEOUT")
                if now - told >= TELL_SECONDS:
                    told = now
                    self._say(f"still waiting for {self._names(waited_for)} to come to {what},"
                              f" {now - started:.0f} s so far")
                self._state.wait(min(TELL_SECONDS, limit - (now - started)))

    def _give_up(self, ranks: list[int], reason: str, code: str = "PEER_LOST") -> PeerError:
        """Remember the loss, and as the hub tell the others of it."""
        self._lost = _lost(code, reason)
        if self.rank == _HUB:
            self._relay(ranks[0], reason, code)
        return self._lost

    def _names(self, ranks: list[int]) -> str:
        return ", ".join(self.hosts[rank] for rank in ranks)

    # --- who is there: a thread of its own ---

    def _read(self) -> None:
        with selectors.DefaultSelector() as selector:
            for rank, link in self._links.items():
                selector.register(link.socket, selectors.EVENT_READ, (rank, link))
            while selector.get_map():
                for key, _ in selector.select(1.0):
                    rank, link = key.data
                    try:
                        for frame in link.receive():
                            self._take(rank, frame)
                    except (OSError, EOFError, ValueError) as error:
                        selector.unregister(link.socket)
                        self._ended(rank, error)
                if self._closed:
                    return

    def _take(self, rank: int, frame: Frame) -> None:
        if frame.kind is Kind.GONE:
            document = frame.document()
            gone = int(document.get("rank", rank))
            self._lose(gone, str(document["reason"]), str(document.get("code", "PEER_LOST")))
            return
        with self._state:
            if frame.kind is Kind.BYE:
                self._left.add(rank)
            elif frame.kind is Kind.PART:
                self._parts[rank] = frame
            elif frame.kind is Kind.WHOLE:
                self._whole = frame
            self._state.notify_all()

    def _ended(self, rank: int, error: Exception) -> None:
        if rank in self._left or self._closed:
            return
        how = "its connection ended" if isinstance(error, EOFError) else str(error)
        self._lose(rank, f"{self.hosts[rank]} ended without a word ({how}): it was killed or"
                         " crashed, see its log")

    def _lose(self, rank: int, reason: str, code: str = "PEER_LOST") -> None:
        with self._state:
            if self._lost is not None or self._closed:
                return
            self._lost = lost = _lost(code, reason)
            watchers, self._watchers = self._watchers, []
            self._state.notify_all()
        if self.rank == _HUB:
            self._relay(rank, reason, code)
        for watcher in watchers:
            watcher(lost)

    def _relay(self, gone: int, reason: str, code: str) -> None:
        for rank, link in self._links.items():
            if rank != gone and rank not in self._left:
                link.notify(Kind.GONE, {"rank": gone, "reason": reason, "code": code})
        self._relayed.set()

    def _part(self, farewell: Callable[[Link], None]) -> None:
        with self._state:
            if self._closed:
                return
            self._closed = True
        if self._lost is None:
            for rank, link in self._links.items():
                if rank not in self._left:
                    farewell(link)
        elif self.rank == _HUB:  # the reader may still be telling the others who was lost
            self._relayed.wait(HELLO_SECONDS)
        for link in self._links.values():
            with contextlib.suppress(OSError):
                link.socket.shutdown(socket.SHUT_RDWR)  # ends the reader's wait, too
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join(HELLO_SECONDS)
        for link in self._links.values():
            link.close()

    # --- meeting ---

    def _listen(self) -> bool:
        if self._stopping():  # names may not resolve yet
            return False
        interface = network_interface.find(self._resources, self._say)
        # The others come to wherever this host's name leads. Hosts that are processes of one
        # machine have an address each, and its ports in common.
        own = network_interface.is_loopback(interface)
        address = network_interface.address_of(self._resources, interface) if own else ""
        try:
            listener = socket.create_server(
                (address, PORT), backlog=self.size,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
            )
        except OSError as error:
            raise ContractError(
                "PEERS_PORT_TAKEN",
                f"{self.hosts[_HUB]} cannot listen on {address}:{PORT}: {error.strerror}",
                expected=f"port {PORT} free on the first host, where the hosts of the job meet",
                remedy="let the algorithm use another port",
            ) from None
        started = told = time.monotonic()
        with listener:
            listener.settimeout(LOOK_SECONDS)
            while len(self._links) < self.size - 1:
                if self._stopping():
                    return self._dismiss()
                with contextlib.suppress(TimeoutError):
                    self._admit(listener.accept()[0])
                now = time.monotonic()
                missing = [rank for rank in range(1, self.size) if rank not in self._links]
                if missing and now - started >= MEET_SECONDS:
                    self._dismiss()
                    self.absent = [self.hosts[rank] for rank in missing]
                    raise _absent(
                        f"{self._names(missing)} did not connect to {self.hosts[_HUB]}:{PORT}"
                        f" within {MEET_SECONDS:g} s"
                    )
                if missing and now - told >= TELL_SECONDS:
                    told = now
                    self._say(f"still waiting for {self._names(missing)} to connect,"
                              f" {now - started:.0f} s so far")
        for link in self._links.values():
            with contextlib.suppress(OSError):  # whoever has ended meanwhile is noticed later
                link.send(Kind.WELCOME)
        return True

    def _admit(self, sock: socket.socket) -> None:
        """Take a connection of one of the other hosts; anybody else's is closed."""
        sock.settimeout(HELLO_SECONDS)
        link = Link(sock, HELLO_SECONDS)
        try:
            document = link.hello()
            rank = int(document["rank"])
            if document["job"] != self._job or not 0 < rank < self.size:
                raise ValueError("of another job")
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            link.close()
            return
        sock.settimeout(self.timeout)
        if rank in self._links:  # it has begun again
            self._links[rank].close()
        self._links[rank] = link

    def _dismiss(self) -> bool:
        for link in self._links.values():
            link.close()
        self._links = {}
        return False

    def _connect(self) -> bool:
        """Connect to the hub, which may not listen yet, and wait until it has everybody."""
        hub, started = self.hosts[_HUB], time.monotonic()
        self.absent = [hub]
        told, pause = started, FIRST_PAUSE_SECONDS
        unreachable: float | None = None
        reason: OSError
        while True:
            if self._stopping():
                return False
            try:
                sock = socket.create_connection((hub, PORT), HELLO_SECONDS)
                break
            except ConnectionRefusedError as error:  # the machine is there, the program not yet
                reason, unreachable = error, None
            except OSError as error:
                reason = error
                unreachable = unreachable or time.monotonic()
            now = time.monotonic()
            if unreachable is not None and now - unreachable >= UNREACHABLE_SECONDS:
                raise _absent(f"{hub}:{PORT} cannot be reached for {now - unreachable:.0f} s:"
                              f" {reason}")
            if now - started >= MEET_SECONDS:
                raise _absent(f"{hub} did not listen on port {PORT} within {MEET_SECONDS:g} s:"
                              f" {reason}")
            if now - told >= TELL_SECONDS:
                told = now
                self._say(f"still waiting for {hub} to listen on port {PORT},"
                          f" {now - started:.0f} s so far ({reason})")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        link = Link(sock, self.timeout)
        self._links[_HUB] = link
        self.absent = []
        link.send(Kind.HELLO, json.dumps({"rank": self.rank, "job": self._job}).encode())
        return self._welcomed(link, started)

    def _welcomed(self, link: Link, started: float) -> bool:
        hub = self.hosts[_HUB]
        with selectors.DefaultSelector() as selector:
            selector.register(link.socket, selectors.EVENT_READ)
            while time.monotonic() - started < MEET_SECONDS + HELLO_SECONDS:
                if self._stopping():
                    return self._dismiss()
                if not selector.select(LOOK_SECONDS):
                    continue
                try:
                    if any(frame.kind is Kind.WELCOME for frame in link.receive()):
                        return True
                except (OSError, EOFError, ValueError):
                    self._dismiss()
                    raise _absent(f"{hub} closed the connection before all hosts had met: it has"
                                  " ended, or its job is another") from None
        self._dismiss()
        raise _absent(f"{hub} did not see all hosts within {MEET_SECONDS:g} s")


def of_job(
    resources: ResourceConfig, *, stopping: Callable[[], bool] = lambda: False
) -> Peers:
    """The peers of the job that this process is part of."""
    name = os.environ.get("TRAINING_JOB_ARN") or os.environ.get("TRAINING_JOB_NAME", "")
    return Peers(resources, job=name, stopping=stopping)


def _step(operation: Operation, number: int) -> str:
    return f"{operation.name.lower()} {number}"


def _lost(code: str, reason: str) -> PeerError:
    return PeerError(
        code, reason, expected="every host of the job works until all are done",
        remedy="look at that host's log first: this one ended because of it",
    )


def _absent(reason: str) -> PeerError:
    return PeerError(
        "PEER_ABSENT", reason,
        expected=f"every host reaches the first one on port {PORT} (TCP)",
        remedy="see in the log streams of these hosts whether they have started; in a VPC the"
        " security group must let its members reach each other",
    )
