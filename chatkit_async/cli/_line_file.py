"""A file of lines that a run writes, from which the run can be resumed after any end.

A line is one write to a file that is open for appending, so a process that is killed at any point
leaves whole lines and at most one torn line at the end, which the next run removes. `sync` flushes
the file to disk, for power cuts. Only its owner can read the file, and it is locked while it is
open. A deleted or changed file is noticed at the next line, and ends the run.
"""

import os
import stat
import sys
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import BinaryIO, Self

import click

from chatkit_async.cli._output import note, reason

_OWNER_ONLY = 0o600
_GROUP_AND_OTHERS = 0o077


class LineFileError(click.ClickException):
    """The file cannot be used, or not written any further."""


class LineFile(ABC):
    """An open file of lines, locked against other processes.

    Attributes:
        size: The bytes that the file has.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Open the file.

        Args:
            path: The file.
            resume: True if it may exist already, and continues.

        Raises:
            click.UsageError: it exists already.
            LineFileError: it cannot be opened, has other content, or is in use.
        """
        self.size = 0
        self._path = path
        self._failure: str | None = None
        self._syncing = threading.Lock()
        self._descriptor = self._open(resume=resume)
        try:
            self._prepare(resume=resume)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, line: bytes) -> None:
        """Write a line.

        Raises:
            LineFileError: it cannot be written.
        """
        self._failure = self._failure or self._damage()
        if self._failure is not None:
            raise self._error(self._failure)
        try:
            written = 0
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError as error:
            self.take_back(self.size)  # after half a line nothing could be read
            raise self._error(reason(error)) from None
        self.size += len(line)

    def take_back(self, size: int) -> None:
        """Cut the file back to an earlier size. The next `append` raises if that failed."""
        try:
            os.ftruncate(self._descriptor, size)
            self.size = size
        except OSError as error:
            self._failure = reason(error)

    def sync(self) -> None:
        """Flush to disk what was written, in any thread. The next `append` raises if that failed."""
        with self._syncing:
            if self._descriptor < 0:
                return
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                self._failure = reason(error)

    def close(self) -> None:
        """Flush the file to disk, and unlock it.

        Raises:
            LineFileError: it could not be written completely.
        """
        self.sync()
        self._failure = self._failure or self._damage()
        with self._syncing:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._failure is not None:
            raise self._error(self._failure)

    # For subclasses -------------------------------------------------------------------------------

    @abstractmethod
    def _load(self, file: BinaryIO) -> int:
        """Read the file, and return the size of its complete lines.

        Raises:
            click.ClickException: the file has other content. It is not changed.
        """

    @abstractmethod
    def _begin(self) -> None:
        """Write what an empty file begins with."""

    # Opening --------------------------------------------------------------------------------------

    def _open(self, *, resume: bool) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        try:
            return os.open(self._path, flags if resume else flags | os.O_EXCL, _OWNER_ONLY)
        except FileExistsError:
            raise click.UsageError(
                f"{self._path} already exists. Use --resume to continue that run, or choose "
                "another file."
            ) from None
        except OSError as error:
            raise LineFileError(f"cannot open {self._path}: {reason(error)}") from None

    def _prepare(self, *, resume: bool) -> None:
        try:
            lock(self._descriptor)
            status = os.fstat(self._descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise LineFileError(f"{self._path} is not a regular file")
            # Root could open it. Its owner could then read the secrets written to it.
            if resume and os.name == "posix" and status.st_uid != os.geteuid():
                raise LineFileError(
                    f"{self._path} belongs to another user. Resume it as that user, or choose "
                    "another file."
                )
            with os.fdopen(os.dup(self._descriptor), "rb") as file:
                end = self._load(file)
                file.seek(max(0, end - 1))
                lacks_newline = end > 0 and file.read(1) != b"\n"
            os.ftruncate(self._descriptor, end)
            self.size = end
            if lacks_newline:  # the whole line was written, except for its end
                self.append(b"\n")
            # Not before: a file with other content is left as it is, its mode included.
            if os.name == "posix" and status.st_mode & _GROUP_AND_OTHERS:
                os.fchmod(self._descriptor, _OWNER_ONLY)
                note(f"Warning: others could read {self._path}; now only you can.")
        except BlockingIOError:
            raise LineFileError(f"{self._path} is in use by another run") from None
        except OSError as error:
            raise LineFileError(f"cannot use {self._path}: {reason(error)}") from None
        if not self.size:
            self._begin()
            self.sync()
            _sync_directory(self._path.parent)

    # Writing --------------------------------------------------------------------------------------

    def _damage(self) -> str | None:
        """Return what another program did to the file. None: nothing."""
        status = os.fstat(self._descriptor)
        if not status.st_nlink:
            return "it was deleted during the run"
        if status.st_size != self.size:
            return "it was changed by another program during the run"
        return None

    def _error(self, said: str) -> LineFileError:
        return LineFileError(f"cannot write {self._path}: {said}")


def lock(descriptor: int, *, shared: bool = False) -> None:
    """Lock a file for as long as it is open, without waiting.

    Raises:
        BlockingIOError: another process has it locked.
        OSError: it cannot be locked.
    """
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - Windows has no other

        # One byte, far behind what is written: others may read what is before it.
        os.lseek(descriptor, 0x7FFFFFFE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(*error.args) from None
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        import fcntl  # noqa: PLC0415 - see above

        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def _sync_directory(directory: Path) -> None:
    """Flush the file's name to disk, where the system has a way to."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
