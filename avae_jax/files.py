"""Files: written whole or not at all, kept in one cache folder, imported when a user wrote them."""

import contextlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows has none: `locked` refuses nobody there.
    fcntl = None


def user_path(path) -> Path:
    """Return a path that a user gave, with ~ for the home folder.

    Raises:
      ValueError: the home folder is of a user who has none.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(
            f"path must begin with a home folder that exists, got {path}: write the folder out"
        ) from None


@contextlib.contextmanager
def written_whole(path, mode: str = "wb") -> Iterator[IO[Any]]:
    r"""Open a file that takes the place of `path` when the block ends, and only if it ends well.

    A reader sees the old file or the whole new one, also beside other writers and after a crash. An
    error in the block leaves what was there before. A file that is replaced keeps its permissions.

    Args:
      path: the file to write; its folder must exist.
      mode: "wb", or "w" for UTF-8 text.

    Yields:
      The open file, under another name in the same folder.

    Raises:
      OSError: the folder is missing or cannot be written, or the disk is full.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     with written_whole(Path(folder) / "x.txt", "w") as file:
      ...         print("whole", file=file)
      ...     (Path(folder) / "x.txt").read_text()
      'whole\n'
    """
    path = Path(path)
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(scratch, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            # The rename must not reach the disk before the contents do.
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(path, scratch)
        os.replace(scratch, path)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        # A full disk names no file.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        scratch.unlink(missing_ok=True)


def write_atomically(path, contents: str | bytes) -> None:
    """Write a file whole or not at all; see `written_whole`.

    Args:
      path: the file to write; its folder must exist.
      contents: text, written as UTF-8, or bytes.

    Raises:
      OSError: as `written_whole`.
    """
    with written_whole(path, "w" if isinstance(contents, str) else "wb") as file:
        file.write(contents)


def check_folder(folder, *, name: str) -> None:
    """Refuse a folder that cannot be written to, before the work whose result it is to hold.

    Args:
      folder: one that is there or is to be made.
      name: what to call it in an error.

    Raises:
      ValueError: it, or where it would be made, is a file or cannot be written to.
    """
    place = Path(folder).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    problem = "" if place.is_dir() else f"{place} is a file"
    if not problem:
        # Permissions alone do not tell: a disk may be read-only, and /proc takes no files.
        try:
            with tempfile.TemporaryFile(dir=place):
                return
        except PermissionError:
            problem = f"no write permission in {place}"
        except OSError as error:
            problem = f"in {place}: {error.strerror}"
    raise ValueError(
        f"{name} must be a folder that can be written to, got {folder} ({problem}): choose another"
    )


@contextlib.contextmanager
def locked(file: Path, *, name: str) -> Iterator[None]:
    """Keep every other process out of what a file stands for, until the block ends.

    The lock is the system's (`flock`): it goes with the process, however that ends. Disks without
    locks, and Windows, refuse nobody.

    Args:
      file: made where it is missing, and left there; it names its last holder.
      name: what to call its folder in an error.

    Raises:
      ValueError: another process has it; the message names that process.
      OSError: the file cannot be made.
    """
    descriptor = _lock(file, name)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _lock(file: Path, name: str) -> int:
    """Return the descriptor of a file that this process alone has locked."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it before may have deleted it: then this is no file any more.
            if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError:
            holder = os.read(descriptor, 300).decode(errors="replace").strip()
            os.close(descriptor)
            raise ValueError(
                f"{name} must be used by one process at a time, got {file.parent}, where "
                f"{holder or 'another process'} is at work: wait for its end, or choose another"
            ) from None
        except OSError:
            return descriptor  # Some network disks have no locks.
        os.close(descriptor)


def cache_dir() -> Path:
    """Return the folder for what can be made again: $AVAE_CACHE_DIR, else the user's cache."""
    chosen = os.environ.get("AVAE_CACHE_DIR")
    if chosen:
        return user_path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("avae_jax"))


def import_file(path, *, again: bool = True) -> ModuleType:
    """Import a Python file of the user's, which may import others of its folder.

    Args:
      path: the file; ~ is the home folder.
      again: whether to run a file again that was imported before.

    Returns:
      The module. It is registered in `sys.modules`, because dataclasses look their module up there.

    Raises:
      ImportError: no such file, no Python, or what the file raised, in one line with its place.
    """
    shown, path = str(path), user_path(path).resolve()
    if not path.is_file():
        raise ImportError(f"file {shown!r} does not exist: give the path of a Python file")
    # The whole path is in the name, so that two files with one base name do not collide.
    stem = str(path.with_suffix(""))
    name = "avae_jax_user_" + "".join(c if c.isalnum() else "_" for c in stem)
    if not again and name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"file {shown!r} cannot be read as Python: give one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # Last, so that no file of the user's hides a library.
    folder, path_before = str(path.parent), list(sys.path)
    if folder not in path_before:
        sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    # A script that exits when it is imported must not end the program with success.
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ImportError(f"could not import {shown!r}: {describe_error(error)}") from error
    finally:
        if folder not in path_before and folder in sys.path:
            sys.path.remove(folder)
    return module


def describe_error(error: BaseException) -> str:
    """Return an error that a user's code raised as one line, with the place that led to it.

    Args:
      error: the error as caught, with its traceback.

    Returns:
      `"KIND: first line of the message (FILE, line N)"`. The place is the first one outside this
      package and the import machinery, and is left out where there is none.
    """
    message = next(iter(str(error).strip().splitlines()), "no message")
    text = f"{type(error).__name__}: {message}"
    if isinstance(error, SyntaxError):
        return text  # its message names the place
    package = str(Path(__file__).parent) + os.sep
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.startswith(package) and "importlib" not in frame.filename:
            return f"{text} ({frame.filename}, line {frame.lineno})"
    return text
