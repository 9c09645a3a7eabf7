"""What the system refuses (descriptors, memory, space, permission, an I/O error) is an OSError with its number, never taken for damage."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from aimlite import CorruptionError, Repo, Run
from aimlite.errors import AimliteError
from aimlite.storage.tree import TreeMoved, _translated

TREE = Path("/a repo/.aimlite/tree")
SST = f"{TREE}/000012.sst"


@pytest.mark.parametrize("number", sorted(errno.errorcode), ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("writing", [False, True])
def test_every_number_is_told_as_it_is(number: int, writing: bool) -> None:
    """As RocksDB words it, as RocksDB words it within a report of damage, and as rocksdict's own calls do."""
    words = os.strerror(number)
    for text in (
        f"IO error: While open a file for random read: {SST}: {words}",
        f"Corruption: Can't access /000012.sst: IO error: While open a file for random read: {SST}: {words}  ",
        f"{words} (os error {number})",
    ):
        error = _translated(Exception(text), TREE, writing=writing)
        if number == errno.ENOENT:
            assert isinstance(error, CorruptionError if writing else TreeMoved)
            continue
        assert isinstance(error, OSError)
        assert not isinstance(error, AimliteError)
        assert error.errno is not None
        assert os.strerror(error.errno) == words
        assert error.filename == (SST if "os error" not in text else str(TREE))
        assert text in str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"IO error: No space left on device: While appending to file: {SST}: No space left on device", errno.ENOSPC),
        ("IO error: Stale file handle", errno.ESTALE),
        ("IO error: Memory limit reached: ", errno.ENOMEM),
        ("IO error: Space limit reached", errno.ENOSPC),
        (f"IO error: While appending to file: {SST}: something new", errno.EIO),
        ("IO error: No space left on device: While appending to file: /x: Auf dem Gerät ist kein Platz mehr", errno.ENOSPC),
    ],
)
def test_words_of_its_own(text: str, expected: int) -> None:
    error = _translated(Exception(text), TREE, writing=True)
    assert isinstance(error, OSError)
    assert error.errno == expected


@pytest.mark.parametrize(
    ("text", "path", "offset"),
    [
        (f"Corruption: block checksum mismatch: stored = 1, computed = 2, type = 1  in {SST} offset 345 size 12", SST, 345),
        (f"Corruption: Bad table magic number: expected 1, found 2 in {SST}", SST, None),
        ("Corruption: VersionEdit: tag", str(TREE), None),
        ("Corruption", str(TREE), None),
    ],
)
def test_damage(text: str, path: str, offset: int | None) -> None:
    error = _translated(Exception(text), TREE)
    assert isinstance(error, CorruptionError)
    assert (error.path, error.offset) == (path, offset)


@pytest.mark.parametrize(
    "text",
    [
        "Invalid argument: Compression type ZSTD is not linked with the binary.",
        "Not implemented: Not supported operation in secondary mode",
        "Operation aborted: ",
        "Resource busy: ",
        "Result incomplete: ",
        "",
    ],
)
def test_all_else_names_the_tree(text: str) -> None:
    error = _translated(Exception(text), TREE)
    assert type(error) is AimliteError
    assert str(TREE) in str(error)
    assert text in str(error)


def test_what_has_its_form_already_stays() -> None:
    known: tuple[Exception, ...] = (PermissionError(errno.EACCES, "no", "/x"), CorruptionError("bad", "/x", 1), TreeMoved("x"))
    for error in known:
        assert _translated(error, TREE) is error
    made = _translated(PermissionError("Permission denied (os error 13)"), TREE)
    assert isinstance(made, PermissionError)
    assert (made.errno, made.filename) == (errno.EACCES, str(TREE))


# -- real causes ---------------------------------------------------------------------------------------------------------------

READ = """
    import json, os, resource, sys
    from pathlib import Path
    import aimlite.storage.tree
    from aimlite import Repo
    from aimlite.storage.layout import Layout
    from aimlite.storage.view import Reader
    repo = Repo(sys.argv[1])
    told, found = [], []
    def look():
        try:
            found.append(Reader(Layout(Path(sys.argv[1]) / ".aimlite")).view().run_count())
        except OSError as error:
            told.append([error.errno, error.filename])
"""

FEW_DESCRIPTORS = """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/dev/fd"))) + 1
    for limit in range(used, used + 40):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        look()
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    told.append(None)
    look()
    print(json.dumps([told, found]))
"""


@pytest.fixture
def merged(repo: Repo, repo_path: str) -> str:
    for k in range(6):
        with Run(f"r{k}", repo=repo) as run:
            run.track(1.0, name="m")
        repo.merge()
    return repo_path


def child(script: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_too_few_descriptors(merged: str) -> None:
    """At every number of descriptors it is either read or refused as what it is, and reads again when there are more."""
    done = child(READ + FEW_DESCRIPTORS, merged)
    assert done.returncode == 0, done.stderr
    told, found = json.loads(done.stdout)
    assert told.pop() is None
    assert len(told) > 5
    assert {number for number, _ in told} == {errno.EMFILE}
    assert set(found) == {6}
    assert len(told) + len(found) == 41


CATCHES_UP_WITH_FEW = """
    import subprocess
    reader = Reader(Layout(Path(sys.argv[1]) / ".aimlite"))
    count = reader.view().run_count()
    more = "import sys; from aimlite import Repo, Run\\nwith Run(repo=sys.argv[1]) as run: pass\\nRepo(sys.argv[1]).merge()"
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/dev/fd"))) + 1
    for fewer in range(8):
        subprocess.run([sys.executable, "-c", more, sys.argv[1]], check=True)
        count += 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + fewer, hard))
        try:
            found.append(reader.view().run_count() == count)
        except OSError as error:
            told.append(error.errno)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        found.append(reader.view().run_count() == count)
    print(json.dumps([told, found]))
"""


def test_too_few_descriptors_to_catch_up(merged: str) -> None:
    done = child(READ + CATCHES_UP_WITH_FEW, merged)
    assert done.returncode == 0, done.stderr
    told, found = json.loads(done.stdout)
    assert set(told) == {errno.EMFILE}
    assert set(found) == {True}


def test_the_merge_helper_passes_on_what_it_was_refused(merged: str) -> None:
    with Run("next", repo=merged):
        pass
    script = (
        "import sys; from aimlite import Repo\ntry: Repo(sys.argv[1]).merge()\nexcept OSError as error: print(error.errno, error.filename)"
    )
    limits: list[Callable[[], None]] = [
        lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (14, resource.getrlimit(resource.RLIMIT_NOFILE)[1])),
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY)),
    ]
    for limit, expected in zip(limits, (errno.EMFILE, errno.EFBIG), strict=True):
        done = child(script, merged, preexec_fn=limit)
        number, _, path = done.stdout.strip().partition(" ")
        assert (done.returncode, number) == (0, str(expected)), done.stdout + done.stderr
        assert path.startswith("/"), done.stdout


def test_a_limit_of_memory_is_no_damage(merged: str) -> None:
    """What does not fit fails; how far that is an exception at all is up to RocksDB, which aborts where it cannot have memory."""
    script = (
        READ
        + """
    size = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[2]), resource.RLIM_INFINITY))
    try:
        look()
    except MemoryError:
        pass
    print(json.dumps([told, found]))
    """
    )
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("SKIPPED: there is no /proc to tell how much memory a process has")
    seen = []
    for more in (0, 1 << 16, 1 << 20, 8 << 20, 64 << 20, 1 << 30):
        done = child(script, merged, str(more))
        assert "CorruptionError" not in done.stderr
        if done.returncode == 0:
            told, found = json.loads(done.stdout)
            seen.append((sorted({number for number, _ in told}), found))
    assert seen[-1] == ([], [6])
    assert {tuple(numbers) for numbers, _ in seen} <= {(), (errno.ENOMEM,), (errno.EAGAIN,)}


# -- the temporary directory ----------------------------------------------------------------------------------------------------


def in_namespace(script: str, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A shell that may mount as it likes."""
    if os.getuid() != 0 or not sys.platform.startswith("linux") or shutil.which("unshare") is None:
        pytest.skip("SKIPPED: mounts of one's own take root on Linux and unshare")
    probe = subprocess.run(["unshare", "-m", "mount", "--make-rprivate", "/"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"SKIPPED: no namespace of mounts can be had here: {probe.stderr.strip()}")
    command = ["unshare", "-m", "sh", "-ec", f"mount --make-rprivate /\n{script}", "sh", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **(environment or {})})


LIST = "from aimlite import Repo; import sys; print(sorted(Repo(sys.argv[1]).list_all_runs()))"
HASHES = str([f"r{k}" for k in range(6)])


@pytest.mark.parametrize("named", ["absent", "a file", "read-only"])
def test_tmpdir_that_is_of_no_use(merged: str, tmp_path: Path, named: str) -> None:
    """Then another one is used."""
    directory = tmp_path / "tmp"
    if named == "a file":
        directory.write_bytes(b"")
    elif named == "read-only":
        directory.mkdir(mode=0o500)
    done = child(LIST, merged, env={**os.environ, "TMPDIR": str(directory)})
    assert done.stdout.strip() == HASHES, done.stderr


READ_ONLY = (
    'for place in / /tmp /var/tmp /usr/tmp "$3"; do mount --bind $place $place && mount -o remount,bind,ro $place || true; done; cd /\n'
)


def test_nothing_but_memory_can_be_written_to(merged: str, tmp_path: Path) -> None:
    done = in_namespace(f'{READ_ONLY}"$1" -c "$2" "$3"', sys.executable, LIST, merged, environment={"TMPDIR": ""})
    assert done.stdout.strip() == HASHES, done.stderr


def test_nothing_can_be_written_to(merged: str) -> None:
    script = "import sys; from aimlite import Repo\ntry: Repo(sys.argv[1]).list_all_runs()\nexcept OSError as error: print(error)"
    shell = f'{READ_ONLY}mount -o ro -t tmpfs tmpfs /dev/shm\n"$1" -c "$2" "$3"'
    done = in_namespace(shell, sys.executable, script, merged, environment={"TMPDIR": "/nowhere"})
    assert "temporary directory" in done.stdout, done.stdout + done.stderr
    assert "'/nowhere'" in done.stdout
    assert "TMPDIR" in done.stdout


@pytest.mark.parametrize("limit", ["nr_inodes=3", "nr_inodes=5", "size=4k", "size=8k", "size=12k", "size=16k", "size=64k"])
def test_a_full_temporary_directory(merged: str, tmp_path: Path, limit: str) -> None:
    """Another one is used, or the refusal names it."""
    full = tmp_path / "full"
    full.mkdir()
    shell = f'mount -t tmpfs -o {limit} tmpfs {full}\n"$1" -c "$2" "$3"'
    listing = "print(sorted(Repo(sys.argv[1]).list_all_runs()))"
    script = f"import sys; from aimlite import Repo\ntry: {listing}\nexcept OSError as error: print(error.errno, error.filename)"
    done = in_namespace(shell, sys.executable, script, merged, environment={"TMPDIR": str(full)})
    number, _, path = done.stdout.strip().partition(" ")
    assert done.stdout.strip() == HASHES or (number == str(errno.ENOSPC) and path.startswith(str(full))), done.stdout + done.stderr
