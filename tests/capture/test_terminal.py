"""What is printed reaches the terminal and the logs, whoever prints it and however the process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from printing import Printed, kill, logged, logged_with_source, read_all, run, run_on_terminal, script, wait_until

from aimlite.capture import terminal
from aimlite.capture.terminal import Log

STRESS = os.environ.get("AIMLITE_STRESS") == "1"
CYCLES = 2000 if STRESS else 200

EVERYTHING = """
    log = open_log()
    print("python")
    sys.stderr.write("error\\n")
    os.system("echo shell; echo 'shell error' >&2")
    subprocess.run([sys.executable, "-c", "print('child')"])
    os.write(1, b"bytes\\n")
    import ctypes
    ctypes.CDLL(None).puts(b"from C")
    ctypes.CDLL(None).fflush(None)
    print("a", "b", 3)
    print("the end", end="")
    print(sys.stdout.write("12345"), file=sys.stderr)
    log.close()
    print(" not logged")
"""
EVERY_LINE = ["python", "error", "shell", "shell error", "child", "bytes", "from C", "a b 3", "the end12345", "5"]


def test_on_pipes(tmp_path: Path) -> None:
    printed = run(EVERYTHING, tmp_path)
    assert printed == Printed(0, "python\nshell\nchild\nbytes\nfrom C\na b 3\nthe end12345 not logged\n", "error\nshell error\n5\n")
    found = logged_with_source(tmp_path)
    errors = ["error", "shell error", "5"]
    assert [line for source, line in found if source == "stderr"] == errors
    assert [line for source, line in found if source == "stdout"] == [line for line in EVERY_LINE if line not in errors]


def test_on_a_terminal(tmp_path: Path) -> None:
    """One channel for both: the order is that of the writes."""
    printed = run_on_terminal(EVERYTHING, tmp_path)
    assert printed.out == run_on_terminal(EVERYTHING.replace("open_log()", "open(os.devnull)"), tmp_path).out
    assert logged_with_source(tmp_path)[:8] == [("terminal", line) for line in EVERY_LINE[:8]]


def test_a_terminal_stays_one_of_its_size(tmp_path: Path) -> None:
    code = """
        log = open_log()
        print(os.isatty(1), sys.stdout.isatty(), os.get_terminal_size(), os.path.exists(os.ttyname(1)))
        subprocess.run([sys.executable, "-c", "import sys; print(sys.stdout.isatty(), sys.stderr.isatty())"])
        log.close()
        print(os.ttyname(0) == os.ttyname(1))
    """
    printed = run_on_terminal(code, tmp_path, 33, 77)
    assert printed.out.splitlines() == ["True True os.terminal_size(columns=77, lines=33) True", "True True", "True"]


def test_order_between_the_streams_of_one_terminal(tmp_path: Path) -> None:
    code = """
        log = open_log()
        for number in range(500):
            print(number, file=(sys.stdout, sys.stderr)[number % 2])
        log.close()
    """
    lines = [str(number) for number in range(500)]
    assert run_on_terminal(code, tmp_path).out.splitlines() == lines
    assert logged(tmp_path) == lines
    with open(tmp_path / "both", "w") as both:
        subprocess.run(script(code), cwd=tmp_path, stdout=both, stderr=subprocess.STDOUT, check=True, timeout=300)
    assert (tmp_path / "both").read_text().splitlines() == lines


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("smart", ["before", "after"]), ("none", ["before", "after"])],
)
def test_tqdm(mode: str, expected: list[str], tmp_path: Path) -> None:
    """Nested bars, messages between them, an unfinished bar: on a terminal and on pipes."""
    code = f"""
        from tqdm import tqdm
        log = open_log(mode={mode!r})
        print("before")
        for epoch in tqdm(range(3), desc="epochs", mininterval=0):
            for batch in tqdm(range(4), desc="batches", leave=False, mininterval=0):
                pass
            tqdm.write(f"epoch {{epoch}} done")
        for _ in tqdm(range(3), desc="second", mininterval=0):
            pass
        bar = tqdm(total=5, desc="unfinished", mininterval=0)
        bar.update(2)
        sys.stderr.flush()
        log.close()
    """
    for printed in (run_on_terminal(code, tmp_path), run(code, tmp_path)):
        assert printed.status == 0
        lines = logged(tmp_path)
        bars = [line for line in lines if "|" in line]
        assert sorted(line for line in lines if "|" not in line) == ["before", "epoch 0 done", "epoch 1 done", "epoch 2 done"]
        assert [line[:12] for line in bars] == ([] if mode == "none" else ["epochs: 100%", "second: 100%", "unfinished: "])


def test_every_state_of_a_bar(tmp_path: Path) -> None:
    code = """
        from tqdm import tqdm
        log = open_log(mode="all")
        for _ in tqdm(range(3), mininterval=0):
            pass
        log.close()
    """
    run_on_terminal(code, tmp_path)
    assert [line[:4] for line in logged(tmp_path)] == ["  0%", " 33%", " 67%", "100%", "100%"]  # tqdm draws the last twice


def test_rich(tmp_path: Path) -> None:
    code = """
        from rich.progress import Progress
        log = open_log()
        none = open_log("none", "none")
        with Progress() as progress:
            one, two = progress.add_task("one", total=50), progress.add_task("two", total=50)
            for number in range(50):
                progress.advance(one)
                progress.advance(two)
                if number % 20 == 0:
                    progress.console.print(f"[red]message {number}[/red]")
                time.sleep(0.005)
        log.close()
        none.close()
    """
    run_on_terminal(code, tmp_path)
    messages = ["message 0", "message 20", "message 40"]
    lines = logged(tmp_path)
    assert lines[:3] == messages
    assert [line[:3] for line in lines[3:]] == ["one", "two"]
    assert all("100%" in line for line in lines[3:])
    assert logged(tmp_path, "none") == messages


def test_captures_end_in_any_order(tmp_path: Path) -> None:
    code = """
        one = open_log("one")
        print("1")
        two = open_log("two", "all")
        print("12")
        one.close()
        print("2")
        three = open_log("three")
        print("23")
        three.close()
        two.close()
        two.close()
        print("-")
        four = open_log("four")
        print("4")
    """
    printed = run(code, tmp_path)
    assert printed == Printed(0, "1\n12\n2\n23\n-\n4\n", "")
    assert [logged(tmp_path, name) for name in ("one", "two", "three", "four")] == [["1", "12"], ["12", "2", "23"], ["23"], ["4"]]


def test_threads_print_whole_lines(tmp_path: Path) -> None:
    code = """
        log = open_log()
        def work(name):
            for number in range(100):
                print(f"thread {name} line {number}")
        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        log.close()
    """
    expected = sorted(f"thread {name} line {number}" for name in range(8) for number in range(100))
    assert sorted(run(code, tmp_path).out.splitlines()) == expected
    assert sorted(logged(tmp_path)) == expected


def test_a_print_from_c_with_the_gil_held_does_not_deadlock(tmp_path: Path) -> None:
    """More than any pipe holds."""
    code = """
        import ctypes
        libc = ctypes.PyDLL(None)
        log = open_log()
        line = b"x" * 999
        for _ in range(3000):
            libc.puts(line)
        libc.fflush(None)
        libc.write(1, b"y" * (2 << 20) + b"\\n", (2 << 20) + 1)
        log.close()
    """
    for printed in (run(code, tmp_path), run_on_terminal(code, tmp_path)):
        assert printed.status == 0
        assert printed.out == ("x" * 999 + "\n") * 3000 + "y" * (2 << 20) + "\n"
    assert "".join(logged(tmp_path)) == "x" * 999 * 3000 + "y" * (2 << 20)


def test_what_a_killed_process_printed(tmp_path: Path) -> None:
    code = """
        log = open_log()
        print("printed")
        os.write(2, b"half a line")
        time.sleep(60)
    """
    process = subprocess.Popen(script(code), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"printed\n"  # at once
    wait_until(lambda: (tmp_path / "log").read_text().count("half") > 0)
    kill(process)
    assert sorted(logged(tmp_path)) == ["half a line", "printed"]
    assert read_all(process.stdout.fileno(), 10) == ""  # nobody is left who holds it open
    process.stdout.close(), process.stderr.close()


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(3)", "os.abort()", "ctypes.string_at(0)"])
def test_last_words_reach_the_terminal(end: str, tmp_path: Path) -> None:
    code = f"""
        import ctypes, faulthandler
        faulthandler.enable()
        log = open_log()
        print("begun", flush=True)
        until_logged("begun")
        os.write(1, b"x" * 60000 + b"last words")
        {end}
    """
    printed = run(code, tmp_path)
    assert printed.status == {"os.kill": -signal.SIGKILL, "os._exi": 3, "os.abor": -signal.SIGABRT, "ctypes.": -signal.SIGSEGV}[end[:7]]
    assert printed.out == "begun\n" + "x" * 60000 + "last words"
    if printed.status in (-signal.SIGABRT, -signal.SIGSEGV):
        assert "Fatal Python error" in printed.err
        assert "Extension modules" in printed.err or 'File "<string>"' in printed.err


def test_a_traceback_is_logged_and_the_exit_code_stays(tmp_path: Path) -> None:
    for code, status in (("raise ValueError('bad')", 1), ("sys.exit(7)", 7), ("sys.exit('said at exit')", 1), ("pass", 0)):
        printed = run(f"log = open_log()\nprint('begun')\n{code}", tmp_path)
        assert printed.status == status
        assert printed.out == "begun\n"
        assert sorted(logged(tmp_path)) == sorted(("begun\n" + printed.err).splitlines())


def test_a_forked_child_prints(tmp_path: Path) -> None:
    """Into its parent's log; one that outlives the parent reaches the terminal still. What it opens itself is its own."""
    code = """
        log = open_log()
        print("parent")
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            print("child", flush=True)
            own = open_log("own")
            print("child's own", flush=True)
            own.close()
            log.close()  # it is not the child's
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(pid, 0)
        print("parent again")
        log.close()
        print("end")
    """
    for printed in (run(code, tmp_path), run_on_terminal(code, tmp_path)):
        assert printed.status == 0
        assert printed.out == "parent\nchild\nchild's own\nparent again\nend\n"
        assert logged(tmp_path) == ["parent", "child", "child's own", "parent again"]
        assert logged(tmp_path, "own") == ["child's own"]


@pytest.mark.parametrize("end", ["log.close()", "os.kill(os.getpid(), 9)", "os._exit(0)", "pass"])
@pytest.mark.parametrize("how", ["fork", "popen"])
def test_a_child_that_outlives_its_parent(how: str, end: str, tmp_path: Path) -> None:
    child = """
import os, sys, time
os.read({waits}, 1)
for number in range(2000):
    os.write(1, b"child line %d\\n" % number)
os.write(2, b"child ends\\n")
"""
    code = f"""
        child = {child!r}
        waits, goes = os.pipe()
        log = open_log()
        print("parent", flush=True)
        if {how!r} == "fork":
            if os.fork() == 0:
                os.close(goes)
                exec(child.replace("{{waits}}", str(waits)))
                os._exit(0)
        else:
            subprocess.Popen([sys.executable, "-c", child.replace("{{waits}}", str(waits))], pass_fds=[waits])
        until_logged("parent")
        {end}
    """
    for printed in (run(code, tmp_path), run_on_terminal(code, tmp_path)):
        expected = ["parent", *(f"child line {number}" for number in range(2000))]
        assert [line for line in printed.out.splitlines() if line != "child ends"] == expected
        assert "child ends" in printed.out + printed.err
    assert logged(tmp_path) == ["parent"]


def test_a_process_that_becomes_another_program(tmp_path: Path) -> None:
    code = """
        log = open_log()
        print("begun", flush=True)
        until_logged("begun")
        print("before", flush=True)
        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(0.2); print('after')"])
    """
    for printed in (run(code, tmp_path), run_on_terminal(code, tmp_path)):
        assert (printed.status, printed.out) == (0, "begun\nbefore\nafter\n")


def test_a_daemon_holds_nothing_open(tmp_path: Path) -> None:
    code = """
        log = open_log()
        if os.fork() == 0:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for fd in range(3):
                os.dup2(nowhere, fd)
            os.setsid()
            open("pid", "w").write(str(os.getpid()))
            time.sleep(60)
        while not os.path.exists("pid") or not open("pid").read():
            time.sleep(0.01)
        print("parent ends")
    """
    assert run(code, tmp_path).out == "parent ends\n"  # at the end of file, while the daemon lives
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_who_reads_has_enough(tmp_path: Path) -> None:
    code = """
        log = open_log()
        for number in range(100000):
            print(number)
    """
    (tmp_path / "module.py").write_text(script(code)[2])
    piped = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m module | head -3; echo ${{PIPESTATUS[0]}}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert piped.stdout.split()[:3] == ["0", "1", "2"]
    assert piped.stdout.split()[3] in ("1", "120")  # as without a capture: 120 where stdout cannot be flushed at exit either
    assert "BrokenPipeError" in piped.stderr


def test_closed_from_the_start(tmp_path: Path) -> None:
    """What was closed is neither opened nor taken for what has its number by now."""
    code = """
        try:
            log = open_log()  # its file is descriptor 1
            assert sys.stdout is None and os.fstat(1).st_ino == os.stat("log").st_ino
            print("nowhere")
            print("to stderr", file=sys.stderr)
            log.close()
        except BaseException as error:
            open("error", "w").write(repr(error))
    """
    printed = run(code, tmp_path, preexec_fn=lambda: os.close(1))
    assert printed == Printed(0, "", "to stderr\n")
    assert not (tmp_path / "error").exists()
    assert logged(tmp_path) == ["to stderr"]
    printed = run(code.replace("sys.stdout is None and", "sys.stdout is None or"), tmp_path, preexec_fn=lambda: os.closerange(0, 3))
    assert printed.status == 0


def test_descriptors_and_threads_are_given_back(tmp_path: Path) -> None:
    code = f"""
        def held():
            return sorted(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), threading.active_count()
        before = [os.fstat(fd) for fd in (1, 2)], sys.stdout.line_buffering
        Log(lambda lines: None).close()
        first = held()
        for number in range({CYCLES}):
            logs = [Log(lambda lines: None) for _ in range(3)]
            print(number)
            for log in logs:
                log.close()
        assert held() == first, (held(), first)
        assert ([os.fstat(fd) for fd in (1, 2)], sys.stdout.line_buffering)[0][0].st_ino == before[0][0].st_ino
        assert sys.stdout.line_buffering == before[1]
    """
    if not os.path.exists("/proc/self/task"):
        pytest.skip("no /proc here that tells")
    printed = run(code, tmp_path)
    assert (printed.status, printed.err) == (0, "")
    assert printed.out.split() == [str(number) for number in range(CYCLES)]


def test_forks_beside_a_busy_log(tmp_path: Path) -> None:
    """No child hangs on a lock of the thread that it does not have."""
    code = f"""
        log = open_log()
        going = True
        def chatter():
            while going:
                os.write(1, b"chatter\\n")
                time.sleep(0.0005)
        thread = threading.Thread(target=chatter)
        thread.start()
        for number in range({200 if STRESS else 40}):
            pid = os.fork()
            if pid == 0:
                own = Log(lambda lines: None)
                os.write(1, b"child\\n")
                own.close()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        going = False
        thread.join()
        log.close()
    """
    assert run(code, tmp_path).status == 0
    assert logged(tmp_path).count("child") == (200 if STRESS else 40)


class Notebook:
    """A stream that has nothing to do with descriptors, as a notebook's."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


@pytest.fixture
def _no_capture() -> None:
    """A run that an earlier test left open has a capture of its own, of the streams that there were then."""
    terminal._close_all()


@pytest.mark.usefixtures("_no_capture")
def test_streams_without_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Notebook(), Notebook()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    lines: dict[int, tuple[str, str | None]] = {}
    log = Log(lambda told: lines.update({line.id: (line.source, line.text) for line in told}))
    print("in a cell")
    print("\r1/2", end="", file=err)
    print("\r2/2", file=err)
    assert sys.stdout.write("four") == 4
    assert sys.stdout is out
    log.close()
    print("not logged")
    assert sorted(lines.values(), key=str) == [("stderr", "2/2"), ("stdout", "four"), ("stdout", "in a cell")]
    assert (out.text, err.text) == ("in a cell\nfournot logged\n", "\r1/2\r2/2\n")
    assert "write" not in vars(out)


def test_redirected_output_is_not_the_terminals(tmp_path: Path) -> None:
    code = """
        import contextlib, io
        log = open_log()
        with contextlib.redirect_stdout(io.StringIO()) as kept:
            print("kept from the terminal")
            other = open_log("other")
            print("while redirected")
        other.close()
        print("shown")
        log.close()
        with contextlib.redirect_stdout(io.StringIO()) as kept:
            inner = open_log("inner")
            print("from a StringIO")
            inner.close()
        assert kept.getvalue() == "from a StringIO\\n"
    """
    assert run(code, tmp_path) == Printed(0, "shown\n", "")
    assert logged(tmp_path) == ["shown"]
    assert logged(tmp_path, "inner") == ["from a StringIO"]


def test_a_stream_that_passes_on_is_not_logged_twice(tmp_path: Path) -> None:
    code = """
        class Tee:
            def __init__(self):
                self.terminal, self.file = sys.stdout, open("tee", "w")
            def write(self, text):
                self.terminal.write(text)
                self.file.write(text)
            def flush(self):
                self.terminal.flush()
        sys.stdout = Tee()
        log = open_log()
        print("once")
        log.close()
    """
    assert run(code, tmp_path).out == "once\n"
    assert logged(tmp_path) == ["once"]


def test_somebody_else_redirects_meanwhile(tmp_path: Path) -> None:
    """And ends in the order that suits him."""
    code = """
        log = open_log()
        print("one", flush=True)
        saved = os.dup(1)
        file = os.open("theirs", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        print("theirs", flush=True)
        log.close()
        print("theirs too", flush=True)
        os.dup2(saved, 1)
        os.close(saved)
        print("two", flush=True)
    """
    assert run(code, tmp_path) == Printed(0, "one\ntwo\n", "")
    assert (tmp_path / "theirs").read_text() == "theirs\ntheirs too\n"
    assert logged(tmp_path) == ["one"]


def test_a_sink_that_fails_ends_its_log_with_a_warning(tmp_path: Path) -> None:
    code = """
        def sink(lines):
            raise OSError("no room")
        log, other = Log(sink), open_log()
        print("one")
        catch_up()
        print("two")
        catch_up()
        log.close()
        other.close()
    """
    printed = run(code, tmp_path)
    assert printed.status == 0
    assert printed.out == "one\ntwo\n"
    assert printed.err.count("no longer recorded: OSError: no room") == 1
    assert [line for line in logged(tmp_path) if line in ("one", "two")] == ["one", "two"]


def test_what_was_printed_so_far_can_be_had_at_once(tmp_path: Path) -> None:
    code = """
        log = open_log()
        for number in range(200):
            print(number)
            catch_up()
            assert json.loads(open("log").read().splitlines()[-1])[3] == str(number)
        log.close()
    """
    assert run(code, tmp_path).status == 0


def test_the_modes_have_names() -> None:
    with pytest.raises(ValueError, match=r"'smart', 'all', 'none', not 'clever'"):
        Log(print, "clever")
