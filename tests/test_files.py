"""Whole-file writes, the cache folder and files of the user's own."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from avae_jax.files import (
    cache_dir,
    check_folder,
    describe_error,
    import_file,
    locked,
    user_path,
    write_atomically,
    written_whole,
)


@pytest.mark.parametrize(
    ("contents", "stored"), [("grün\n", "grün\n".encode()), (b"\x00\xff", b"\x00\xff"), ("", b"")]
)
def test_contents_replace_the_old_file(tmp_path, contents, stored):
    path = tmp_path / "file"
    for _ in range(2):
        write_atomically(str(path), contents)
        assert path.read_bytes() == stored
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def fail_half_way():
        with written_whole(path, "w") as file:
            file.write("new")
            file.flush()
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_a_part(tmp_path):
    path = tmp_path / "file"
    with written_whole(path) as file:
        file.write(b"one")
        file.flush()
        assert not path.exists()
    path.write_bytes(b"one")
    with written_whole(path) as file:
        file.write(b"other")
        file.flush()
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"other"


def test_two_writers_at_once_both_end_with_a_whole_file(tmp_path):
    path = tmp_path / "file"
    with written_whole(path, "w") as first, written_whole(path, "w") as second:
        first.write("1" * 10)
        second.write("2" * 5)
    # The block opened first ends last.
    assert path.read_text() == "1" * 10
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_kept_and_new_files_have_the_usual_ones(tmp_path):
    write_atomically(tmp_path / "new", "")
    (tmp_path / "usual").touch()
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode
    (tmp_path / "usual").chmod(0o640)
    write_atomically(tmp_path / "usual", "")
    assert (tmp_path / "usual").stat().st_mode & 0o777 == 0o640


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "file", "")


def test_the_cache_folder_is_the_chosen_one_or_the_users(monkeypatch):
    platformdirs = pytest.importorskip("platformdirs")
    monkeypatch.setenv("AVAE_CACHE_DIR", "~/cache")
    assert cache_dir() == Path.home() / "cache"
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("AVAE_CACHE_DIR")
        else:
            monkeypatch.setenv("AVAE_CACHE_DIR", unset)
        assert cache_dir() == Path(platformdirs.user_cache_dir("avae_jax"))


def test_a_file_is_imported_where_dataclasses_find_it(tmp_path):
    path = tmp_path / "my nets.py"
    # Dataclasses look text annotations up in the module of that name.
    path.write_text(
        "from __future__ import annotations\nimport dataclasses\n"
        "@dataclasses.dataclass\nclass Net:\n    size: int = 3\n"
    )
    module = import_file(path)
    assert module.Net(size=4).size == 4
    assert sys.modules[module.__name__] is module


def test_files_of_one_name_do_not_collide_and_changes_are_seen(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(f"name = {folder!r}\n")
    first, second = (import_file(tmp_path / folder / "net.py") for folder in "ab")
    assert (first.name, second.name) == ("a", "b")
    assert first.__name__ != second.__name__
    (tmp_path / "a" / "net.py").write_text("name = 'changed'\n")
    assert import_file(str(tmp_path / "a" / "net.py")).name == "changed"


def test_a_file_may_import_those_beside_it_and_hides_no_library(tmp_path):
    (tmp_path / "beside_it.py").write_text("name = 'beside'\n")
    (tmp_path / "json.py").write_text("1 / 0\n")
    path = tmp_path / "main.py"
    path.write_text("import json\nfrom beside_it import name\nassert json.dumps\n")
    before = list(sys.path)
    assert import_file(path).name == "beside"
    assert sys.path == before
    path.write_text("import beside_it\n1 / 0\n")
    with pytest.raises(ImportError, match="ZeroDivisionError"):
        import_file(path)
    assert sys.path == before
    del sys.modules["beside_it"]


def test_a_file_is_not_run_again_where_once_is_enough(tmp_path):
    path = tmp_path / "once.py"
    path.write_text("name = 'first'\n")
    first = import_file(path, again=False)
    path.write_text("name = 'second'\n")
    assert import_file(path, again=False) is first
    assert import_file(path).name == "second"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n1 / 0\n", r"ZeroDivisionError: division by zero \(.*broken.py, line 2\)$"),
        ("class (:\n", r"SyntaxError: invalid syntax \(broken.py, line 1\)$"),
        ("raise ValueError('one\\ntwo')", r"ValueError: one \(.*broken.py, line 1\)$"),
        ("raise ValueError", r"ValueError: no message \("),
        ("import sys\nsys.exit(0)", r"SystemExit: 0 \(.*broken.py, line 2\)$"),
    ],
)
def test_a_file_that_raises(tmp_path, source, message):
    (tmp_path / "broken.py").write_text(source)
    before = set(sys.modules)
    with pytest.raises(ImportError, match=message) as caught:
        import_file(tmp_path / "broken.py")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "broken.py") in str(caught.value)
    assert not [name for name in set(sys.modules) - before if "broken" in name]


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(ImportError, match="'no/such.py' does not exist: give the path"):
        import_file("no/such.py")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ImportError, match=r"notes.txt' cannot be read as Python: give one that"):
        import_file(tmp_path / "notes.txt")
    with pytest.raises(ImportError, match="does not exist"):
        import_file(os.fspath(tmp_path))


def test_an_error_that_was_never_raised_has_no_place():
    assert describe_error(ValueError("x")) == "ValueError: x"


def test_a_folder_that_can_be_made_passes_and_is_not_made(tmp_path):
    check_folder(tmp_path, name="output")
    check_folder(tmp_path / "some" / "where", name="output")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "mine").write_text("")
    for folder in (tmp_path / "mine", tmp_path / "mine" / "deeper"):
        with pytest.raises(ValueError, match=r"output must be .*mine is a file\)"):
            check_folder(folder, name="output")


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ValueError, match="run_dir must .*no write permission"):
        check_folder(tmp_path / "new", name="run_dir")


def test_where_nothing_can_be_written_is_refused(tmp_path, monkeypatch):
    """Permissions alone do not tell: root may write to /proc, and cannot."""

    def full(dir):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(ValueError, match=r"got .*new \(in .*: No space left on device\): choose"):
        check_folder(tmp_path / "new", name="run_dir")


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    write_atomically(path, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("avae_jax.files.os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*x\.txt'"):
        write_atomically(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["x.txt"]
    assert path.read_text() == "old"


def test_a_home_folder_is_expanded_or_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/x") == tmp_path / "x"
    with pytest.raises(ValueError, match="got ~no_such_user/x: write the folder out"):
        user_path("~no_such_user/x")


HOLDER = """
import sys
from pathlib import Path
from avae_jax.files import locked
with locked(Path(sys.argv[1]), name="run_dir"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_names_its_holder_and_goes_with_it(tmp_path):
    file = tmp_path / "run.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(ValueError, match=f"where process {holder.pid} on .* is at work: wait"):
        with locked(file, name="run_dir"):
            pass
    # A crash releases it.
    holder.kill()
    holder.communicate()
    with locked(file, name="run_dir"):
        # Within one process too.
        with pytest.raises(ValueError, match=f"process {os.getpid()} on"):
            with locked(file, name="run_dir"):
                pass
    with locked(file, name="run_dir"):
        pass


def test_a_lock_that_its_holder_deletes_locks_nothing(tmp_path):
    file = tmp_path / "run.lock"
    with locked(file, name="run_dir"):
        file.unlink()
        with locked(file, name="run_dir"):
            assert file.exists()
