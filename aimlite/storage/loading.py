"""Late imports that a signal's handler or a finalizer may run into.

Code that interrupts a thread in the middle of an import finds a module that is half there, and cannot wait for the rest: the thread that
would bring it is its own. So modules that are imported late are imported by a short-lived thread, for which the caller waits. A handler
that runs meanwhile waits for a thread of its own, which waits for the first one.

These threads are never interrupted: signals come to the main thread alone, and no garbage is collected meanwhile, whose finalizers would
run in them. A fork waits until they are done: a module whose import was cut in half by a fork could never be imported in the child.
"""

from __future__ import annotations

import _thread
import gc
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from types import FrameType

_LOOK_S = 0.05
_importing = _thread.allocate_lock()
_loaded: set[str] = set()

_forking = 0  # the thread that forks


def load(*names: str) -> None:
    """Imports modules, so that an import statement finds them whole.

    Raises what importing one raises; ImportError also when this thread was interrupted in the middle of importing what one of them needs.
    """
    for name in names:
        if name not in _loaded:
            if not _is_whole(name):
                _import_elsewhere(name)
            _loaded.add(name)


def _is_whole(name: str) -> bool:
    module = sys.modules.get(name)
    return module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False)


def _import_elsewhere(name: str) -> None:
    errors: list[BaseException] = []
    done = _thread.allocate_lock()
    done.acquire()

    def work() -> None:
        try:
            with _importing:
                collects = gc.isenabled()
                gc.disable()
                try:
                    import_module(name)
                finally:
                    if collects:
                        gc.enable()
        except BaseException as error:  # for whoever waits
            errors.append(error)
        finally:
            done.release()

    if _forking == _thread.get_ident():  # interrupted in a fork, which keeps all others from importing
        import_module(name)
        return
    try:
        # Not a threading.Thread: what starts one in Python holds a lock that the start of another one, in a handler, would wait for.
        thread = _thread.start_new_thread(work, ())
    except RuntimeError:  # no thread is to be had, at the end of the interpreter say
        import_module(name)
        return
    if any(_imports_in_progress(sys._getframe())):
        while not done.acquire(timeout=_LOOK_S):
            _demand_progress(name, thread)
    else:
        done.acquire()  # a signal's handler may interrupt this
    if errors:
        raise errors[0]


def _imports_in_progress(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load" and frame.f_globals.get("__name__") == "importlib._bootstrap":
            yield frame
        frame = frame.f_back


def _demand_progress(name: str, thread: int) -> None:
    """Raises ImportError when the thread waits for a module that the present one is in the middle of importing."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        lock = frame.f_locals.get("self") if frame.f_globals.get("__name__") == "importlib._bootstrap" else None
        if type(lock).__name__ == "_ModuleLock" and getattr(lock, "owner", None) == _thread.get_ident():
            raise ImportError(
                f"{name} needs the module {getattr(lock, 'name', '')!r}, in the middle of whose import this thread was interrupted:"
                " a signal's handler that is to read can be called then only where that module was imported before the handler was set",
                name=name,
            )
        frame = frame.f_back


def _before_fork() -> None:
    global _forking
    _forking = _thread.get_ident()
    _importing.acquire()


def _after_fork() -> None:
    global _forking
    _importing.release()
    _forking = 0


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
