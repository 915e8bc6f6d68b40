"""One process at a time: a file that is locked while it is there.

The system lets go of a lock when its holder ends, however it ends, so nobody waits for the dead.
`filelock` does the same but leaves its files behind, and a model's folder is not to be littered.
"""

import errno
import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

POLL = 0.01  # seconds between two tries
# What another holder looks like, or one that removed the file in between.
BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK, errno.ENOENT, errno.ESTALE)


@contextmanager
def locked(path: Path, wait: float = 0) -> Generator[bool]:
    """Hold a file that no other process or thread holds; it is removed afterwards.

    Args:
        path: the file, in a folder that is there.
        wait: seconds until another holder must have let go.

    Yields:
        Whether it is held: some network file systems know no locks, and saving must work there too.

    Raises:
        TimeoutError: another one holds it.
        OSError: there can be no such file.
    """
    until = time.monotonic() + wait
    while (fd := _open(path)) is None:
        if time.monotonic() >= until:
            raise TimeoutError(errno.ETIMEDOUT, "another process holds the lock", str(path))
        time.sleep(POLL)
    held = fd >= 0
    try:
        yield held
    finally:
        if held:
            with suppress(OSError):  # Windows removes no file that is open
                path.unlink()
            os.close(fd)
            if sys.platform == "win32":
                with suppress(OSError):
                    path.unlink()


def _open(path: Path) -> int | None:
    """The locked file; None while another one holds it; -1 where there are no locks."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(fd)
        # A lock on a file that its last holder removed in between would keep nobody out.
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
    except OSError as error:
        if error.errno not in BUSY:
            os.close(fd)
            path.unlink(missing_ok=True)
            return -1
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> None:
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
