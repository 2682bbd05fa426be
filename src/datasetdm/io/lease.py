"""Locks on storage that has none: an object with its owner and the time of its last sign of life.

The lock `.store.lock` is the object `.store.N.lock` with the highest number N. Whoever makes that object holds the lock, and
only one process can: the storage makes an object only if none is there. The owner renews the time; where it did not for
`EXPIRES` seconds, the next process makes number N + 1. An owner that finds a higher number has lost the lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from datasetdm.errors import OutputError, RemoteError
from datasetdm.io.remote import RemotePath

EXPIRES = 60.0
"""Seconds without a sign of life after which a lock is free. The clocks of the machines may differ by half of it."""
RENEWED = 15.0
"""Seconds between two signs of life."""


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except (OSError, UnicodeDecodeError):
        return ""


@dataclass(frozen=True)
class Owner:
    """Who holds a lock.

    Args:
        process, host: for people.
        machine: of this boot and this container, whose processes can be asked whether they live; empty where unknown.
        seen: the time of its last sign of life, in seconds since 1970.
        token: of this holding alone.
    """

    process: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    machine: str = field(default_factory=_machine)
    seen: float = field(default_factory=time.time)
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    def gone(self) -> bool:
        """Whether it gave no sign of life for too long, or its process has ended."""
        if time.time() - self.seen > EXPIRES:
            return True
        return bool(self.machine) and self.machine == _machine() and not _lives(self.process)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


class Lease:
    """A lock that is held. `check` before anything is written that only its owner may write.

    Args:
        path: of the lock, as `.store.lock`.
        what: what it is for, for messages.
        owner: who holds it.
        number: of its object.
    """

    def __init__(self, path: RemotePath, what: str, owner: Owner, number: int):
        self.path, self.what, self.owner, self.number = path, what, owner, number
        self._turn = threading.Lock()
        self._ended = threading.Event()

    def check(self) -> None:
        """Raises OutputError if another process has taken the lock over since; asks the storage where that is possible."""
        with self._turn:
            if time.time() - self.owner.seen > EXPIRES / 2:
                self._renew()

    def keep(self) -> None:
        """Give signs of life until `end`."""
        while not self._ended.wait(RENEWED):
            with self._turn, contextlib.suppress(OutputError, RemoteError, OSError):  # `check` will say it
                self._renew()

    def end(self) -> None:
        """Give the lock back, if it is still held."""
        self._ended.set()
        with self._turn, contextlib.suppress(RemoteError, OSError):  # it expires
            if self._held():
                _object(self.path, self.number).unlink(missing_ok=True)

    def _renew(self) -> None:
        if not self._held():
            raise OutputError(
                f"another process has taken over this {self.what}",
                where=self.path.parent,
                expected=f"a sign of life of this process within {EXPIRES:.0f} seconds, as its lock needs",
                remedy="let the other process end; the same command then goes on",
            )
        renewed = replace(self.owner, seen=time.time())
        _object(self.path, self.number).write_bytes(_encoded(renewed))
        self.owner = renewed

    def _held(self) -> bool:
        newest = _newest(self.path)
        return newest is not None and newest[0] == self.number and newest[1].token == self.owner.token


@contextlib.contextmanager
def leased(path: RemotePath, what: str, wait: float = 0.0, renew: bool = True) -> Generator[Lease]:
    """Hold the lock `path` while the block runs.

    Args:
        path: its name begins with a dot and ends with `.lock`.
        what: what only one process at a time may write.
        wait: seconds to wait for another owner.
        renew: give signs of life; not needed where the block takes seconds.

    Raises:
        OutputError: another process holds it. RemoteError: the storage fails.
    """
    lease = _acquire(path, what, time.monotonic() + wait)
    keeper = threading.Thread(target=lease.keep, daemon=True)
    if renew:
        keeper.start()
    try:
        yield lease
    finally:
        lease.end()
        if renew:
            keeper.join()


def _acquire(path: RemotePath, what: str, deadline: float) -> Lease:
    while True:
        newest = _newest(path)
        if newest is None or newest[1].gone():
            number, owner = (1 if newest is None else newest[0] + 1), Owner()
            with contextlib.suppress(FileExistsError):  # somebody was quicker, or the first answer was lost on its way
                _object(path, number).create(_encoded(owner))
            lease = Lease(path, what, owner, number)
            if lease._held():
                for old in [n for n in _numbers(path) if n < number]:
                    _object(path, old).unlink(missing_ok=True)
                return lease
        elif time.monotonic() >= deadline:
            left = max(0.0, newest[1].seen + EXPIRES - time.time())
            raise OutputError(
                f"this {what} is being written by another process",
                where=path.parent,
                expected=f"one writer at a time; now it is {newest[1]}",
                remedy=f"wait until it has ended; if it was killed, the {what} is free in {left:.0f} seconds",
            )
        time.sleep(0.2)


def _object(path: RemotePath, number: int) -> RemotePath:
    return path.with_name(f"{path.stem}.{number:06d}.lock")


def _numbers(path: RemotePath) -> list[int]:
    found = (re.fullmatch(rf"{re.escape(path.stem)}\.(\d+)\.lock", p.name) for p in path.parent.iterdir())
    return sorted(int(match[1]) for match in found if match)


def _newest(path: RemotePath) -> tuple[int, Owner] | None:
    for number in reversed(_numbers(path)):
        try:
            return number, Owner(**json.loads(_object(path, number).read_bytes()))
        except FileNotFoundError:  # given back meanwhile
            continue
        except (ValueError, TypeError):  # no lock of ours: it never expires by itself
            return number, Owner(0, "an unknown machine", "", time.time(), "")
    return None


def _encoded(owner: Owner) -> bytes:
    return json.dumps(asdict(owner)).encode()
