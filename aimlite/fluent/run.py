"""A run with one step counter, stages, a summary and a primary metric, as `init` opens it.

Every point is tracked at an explicit step of the run's own counter, with `{"stage": …}` as context; summary and config are params. So
there is nothing here that `Run`, `Repo` and AimQL do not see.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from aimlite.errors import ReadOnlyError, RunClosedError
from aimlite.fluent.values import MAX_STEP, as_number, as_step
from aimlite.sdk.run import Run
from aimlite.storage.loading import load
from aimlite.storage.writer import warn

if TYPE_CHECKING:
    pass

Call = TypeVar("Call", bound=Callable[..., Any])

STATUSES = {
    **dict.fromkeys(("finished", "completed", "success"), "finished"),
    **dict.fromkeys(("failed", "error", "crashed"), "failed"),
    **dict.fromkeys(("interrupted", "killed", "cancelled", "canceled", "aborted"), "interrupted"),
}
MODES = ("max", "min")
_RESERVED = frozenset(("step", "global_step", "stage"))
_BEST = ("best_metric_value", "best_metric_name", "best_metric_step", "best_metric_mode")

_active: FluentRun | None = None


def get_active_run() -> FluentRun | None:
    """The run that `init` opened last, until it is finished; None when tracking was off then."""
    return None if _active is None or _active._closed else _active


def set_active(run: FluentRun | None) -> None:
    global _active
    _active = run


def while_open(instead: Callable[[], Any] = lambda: None) -> Callable[[Call], Call]:
    """A method that after the end of its run warns once and gives what `instead` does."""

    def decorate(method: Call) -> Call:
        @functools.wraps(method)
        def call(self: FluentRun, *args: Any, **kwargs: Any) -> Any:
            if self._closed:
                self._tell_ignored(method.__name__)
                return instead()
            return method(self, *args, **kwargs)

        return cast(Call, call)

    return decorate


def _null_handler() -> Any:
    load("logging")
    import logging

    return logging.NullHandler()


class FluentRun(Run):
    """A run that `init` opened; also all that a `Run` is."""

    _workspace_root: Path | None = None
    _step = 0  # the last one used
    _last_context: Mapping[str, Any] | None = None  # of the stage used last
    _last_stage: object = None
    _primary: tuple[str, str] | None = None  # name and mode
    _best: float | None = None

    def _start(self, workspace_root: Path, resumed: bool) -> None:
        """What `init` does once the run is open."""
        self._workspace_root = workspace_root
        self._step = self._last_step() if resumed else 0
        self._steps = itertools.count(self._step + 1)
        self._told: set[tuple[str, str]] = set()  # of what was warned already
        self._shown: dict[str, tuple[int | None, list[Any], int | None]] = {}  # by key: the step of its last images, these, greatest step
        self._resumed = resumed

    def _last_step(self) -> int:
        steps = [int(metric.last_step) for metric in self.metrics() if not metric.name.startswith("__system__")]
        return max(steps, default=0)

    # -- what it is ----

    @property
    def id(self) -> str:
        """The hash."""
        return self.hash

    @property
    def is_finished(self) -> bool:
        """Whether this object takes no more."""
        return self._closed

    @property
    def workspace_root(self) -> Path:
        """The directory of the code: as given to `init`, else that of the git repository around the working directory at the time of
        `init`, else the working directory."""
        return self._workspace_root or Path.cwd()

    @property
    def run_dir(self) -> Path:
        """A directory for files of this run that nothing else looks at, in the repo; made when it is asked for. It goes when the run is
        deleted for good."""
        if self._recorder is None and self.repo is None:  # it could not be opened, in safe mode
            load("tempfile")
            import tempfile

            return Path(tempfile.mkdtemp(prefix="aimlite-run-"))
        directory = self.repo._layout.run_dir(self.hash)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    @property
    def storage_root(self) -> Path:
        """The directory that holds the repo."""
        return Path.cwd() if self.repo is None else self.repo._layout.base.parent

    # -- metrics ----

    def log(self, data: Mapping[str, Any] | None = None, *, step: int | None = None, stage: str | None = None, **kwargs: Any) -> None:
        """Records a point of each metric, all at one step.

        data, kwargs: {name: number}; of a name in both that in kwargs counts. `stage` in data is taken for the argument, `step` and
        `global_step` in it are left out. step: an integer; None is one more than the last of this run, 1 at first. stage: becomes the
        context {'stage': stage}: stages do not replace each other's points. The same name, stage and step again replaces the point.

        What is no number is left out with one warning for its name, an unusable step is counted instead. Raises TypeError for data that
        is no mapping, OSError (a full disk: nothing of the call was kept).
        """
        if self._closed:
            self._tell_ignored("log")
            return
        if kwargs or type(data) is not dict or not _RESERVED.isdisjoint(data):
            data, stage = _joined(data, kwargs, stage)
        if step is None:
            number = next(self._steps)
        else:
            number = step if type(step) is int and -MAX_STEP <= step < MAX_STEP else self._checked_step(step)
            self._steps = itertools.count(number + 1)
        self._step = number
        if stage is None:
            context = None
        elif stage is self._last_stage:
            context = self._last_context
        else:
            context = self._context_of(stage)
        if not data:
            return
        try:
            self.track(data, None, number, None, context=context)
        except (TypeError, ValueError) as error:
            if isinstance(error, RunClosedError | ReadOnlyError):  # another thread finished it
                self._tell_ignored("log")
                return
            data = self._track_each(data, number, context)
        if self._primary is not None and self._primary[0] in data:
            self._note_best(data[self._primary[0]], number)

    def _checked_step(self, step: object) -> int:
        number = as_step(step)
        if number is None:
            self._tell("step", repr(type(step)), f"log(step={step!r:.100}): a step is an integer within 64 bits; counted instead")
            return next(self._steps)
        return number

    def _context_of(self, stage: Any) -> Mapping[str, Any] | None:
        self._last_context, self._last_stage = {"stage": stage if isinstance(stage, str | int | float) else str(stage)}, stage
        return self._last_context

    def _track_each(self, data: Mapping[Any, Any], step: int, context: Mapping[str, Any] | None) -> dict[str, Any]:
        """Tracks what can be tracked of some data that cannot be as a whole; returns it."""
        numbers: dict[str, Any] = {}
        for key, value in data.items():
            number = as_number(value)
            if number is None and _is_object(value):
                numbers[str(key)] = value
            elif number is None:
                self._tell("value", str(key), f"log(): {key!r:.100} is left out: {value!r:.100} is no number that can be kept")
            else:
                numbers[key if isinstance(key, str) else str(key)] = number
        try:
            self.track(numbers, None, step, None, context=context)
        except (TypeError, ValueError):
            for name in list(numbers):
                try:
                    self.track(numbers[name], name, step, None, context=context)
                except (TypeError, ValueError) as error:
                    del numbers[name]
                    self._tell("value", name, f"log(): {name!r:.100} is left out: {error}")
        return numbers

    def log_image(
        self, key: str, image: Any, step: int | None = None, caption: str | None = None, format: str = "png", quality: int = 90
    ) -> str:
        """Records an image under a key; several of one key and step are a list.

        image: a Pillow image, an array or tensor, a matplotlib figure, bytes, a binary file or a path: as `Image` takes it. step: the last
        of `log` when None; it is not counted. format: 'png', 'jpg' ('jpeg') or 'webp', of what is given as pixels; a file of png, jpeg,
        webp or gif stays as it is where 'png' is asked for. quality: 1 to 100, of jpg and webp.
        Returns its place: 'images/<key>/<step>/<number in the list>'. Raises TypeError, ValueError, OSError.
        """
        if self._closed:
            self._tell_ignored("log_image")
            return ""
        load("aimlite.objects.image")
        from aimlite.objects.image import Image

        name = key if isinstance(key, str) else str(key)
        number = self._step if step is None else self._checked_image_step(step)
        is_file = isinstance(image, str | bytes | bytearray | os.PathLike) or hasattr(image, "read")
        made = Image(image, caption or "", None if is_file and format == "png" else format, quality)
        at, shown, greatest = self._shown.get(name, (None, [], None))
        if at != number:
            is_new = number > greatest if greatest is not None else not self._resumed
            shown = [] if is_new else self._images_at(name, number)
        self.track([*shown, made], name, number)
        self._shown[name] = (number, [*shown, made], number if greatest is None else max(number, greatest))
        return f"images/{name}/{number}/{len(shown)}"

    def _images_at(self, key: str, step: int) -> list[Any]:
        """Those that were recorded under a key at a step."""
        sequence = self.get_image_sequence(key)
        try:
            held = [] if sequence is None else sequence.values[step]
        except KeyError:
            return []
        return list(held) if isinstance(held, list | tuple) else [held]

    def _checked_image_step(self, step: object) -> int:
        number = as_step(step)
        if number is None:
            self._tell(
                "step", repr(type(step)), f"log_image(step={step!r:.100}): a step is an integer within 64 bits; the last one is used"
            )
            return self._step
        return number

    def set_primary_metric(self, metric_name: str, mode: str = "max") -> None:
        """Names the metric whose best value the summary keeps, from the next `log` on: `best_metric_value`, `best_metric_name`,
        `best_metric_step`, `best_metric_mode`, whatever the stage.

        mode: 'max' or 'min'. Of equal values the first stays, NaN is never best. A run that goes on keeps the best that it had of this
        metric and mode; that of another is taken away. Raises TypeError, ValueError.
        """
        if self._closed:
            self._tell_ignored("set_primary_metric")
            return
        if not isinstance(metric_name, str) or not metric_name:
            raise TypeError(f"the primary metric is named by a string, not {metric_name!r:.100}")
        if mode not in MODES:
            raise ValueError(f"mode is 'max' or 'min', not {mode!r:.100}")
        held = self.get_summary()
        self._best = None
        if (held.get("best_metric_name"), held.get("best_metric_mode")) == (metric_name, mode):
            self._best = as_number(held.get("best_metric_value"))
        else:
            for name in _BEST:
                if name in held:
                    self._delete_param(("summary", name))
        self._primary = (metric_name, mode)

    def _note_best(self, value: Any, step: int) -> None:
        assert self._primary is not None
        number = as_number(value)
        if number is None or number != number:
            return
        (name, mode), best = self._primary, self._best
        if best is None or (number > best if mode == "max" else number < best):
            self._best = number
            self._set_params([(("summary", key), item) for key, item in zip(_BEST, (number, name, step, mode), strict=True)])

    # -- params ----

    def summary(self, update: Mapping[str, Any] | Iterable[tuple[str, Any]] | None) -> None:
        """Adds to the summary, the params `summary`: all keys or none. A key again replaces its value as a whole. What cannot be stored is
        kept as its repr. Raises TypeError, ValueError, OSError."""
        if self._closed:
            self._tell_ignored("summary")
            return
        items = {} if update is None else _mapping("summary()", update)
        if items:
            self._set_params(
                [(("summary", key if isinstance(key, int) else str(key)), value) for key, value in items.items()], strict=False
            )

    def get_summary(self) -> dict[str, Any]:
        """The summary as it is now, best value included; {} when there is none."""
        held = self.get("summary", {})
        return held if isinstance(held, dict) else {}

    def log_config(
        self,
        *,
        args: Any = None,
        extra: Mapping[str, Any] | None = None,
        config_files: Iterable[str | os.PathLike[str]] | None = None,
    ) -> None:
        """Records what the run was told, as the params `config.args`, `config.extra` and `config.files`; a part again replaces that part.

        args: an argparse.Namespace, a mapping, a dataclass, or any object with attributes. config_files: paths, of which the contents are
        kept too; one that cannot be read is recorded without, with one warning. Raises TypeError, ValueError, OSError.
        """
        if self._closed:
            self._tell_ignored("log_config")
            return
        load("aimlite.sdk.archives")
        from aimlite.sdk.archives import archive_config_files

        parts: list[tuple[tuple[str | int, ...], Any]] = []
        if args is not None:
            parts.append((("config", "args"), _arguments(args)))
        if extra is not None:
            parts.append((("config", "extra"), _mapping("log_config(extra=…)", extra)))
        if parts:
            self._set_params(parts, strict=False)
        if config_files is not None:
            archive_config_files(self, config_files)

    log_text = while_open()(Run.log_text)
    get_logging_handler = while_open(_null_handler)(Run.get_logging_handler)
    log_dataset = while_open()(Run.log_dataset)
    log_pretrained = while_open()(Run.log_pretrained)

    # -- the end ----

    def finish(self, status: str = "finished") -> None:
        """Ends the run. status: 'finished' (or 'completed', 'success'), 'failed' ('error', 'crashed') or 'interrupted' ('killed',
        'cancelled', 'aborted'), in any case; another word is a ValueError. The first end stands: ending it again does nothing."""
        word = status.strip().lower() if isinstance(status, str) else status
        if word not in STATUSES:
            raise ValueError(f"a run ends as {', '.join(STATUSES)}, not {status!r:.100}")
        self._end(STATUSES[word])

    def close(self) -> None:
        """Ends the run as 'finished', unless it ended already."""
        self.finish()

    finalize = close

    def _end(self, status: str, error: BaseException | None = None, is_raising: bool = False) -> None:
        try:
            super()._end(status, error, is_raising)
        finally:
            if _active is self:
                set_active(None)

    def __enter__(self) -> FluentRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)

    def _tell_ignored(self, what: str) -> None:
        self._tell("finished", what, f"{what}() is ignored: run {self.hash} is finished")

    def _tell(self, kind: str, what: str, message: str) -> None:
        """Warns, once for each thing."""
        if (kind, what) not in self._told:
            self._told.add((kind, what))
            warn(message, 4)


def _is_object(value: Any) -> bool:
    """Whether it is something else than a number that can be tracked."""
    load("aimlite.objects.tracked")
    from aimlite.objects.tracked import TrackedObject

    return isinstance(value, TrackedObject) or (isinstance(value, list) and bool(value) and isinstance(value[0], TrackedObject))


def _joined(data: Any, kwargs: dict[str, Any], stage: Any) -> tuple[dict[str, Any], Any]:
    """(data and kwargs without reserved names, stage)."""
    found = {**({} if data is None else _mapping("log()", data)), **kwargs}
    inside = found.pop("stage", None)
    found.pop("step", None)
    found.pop("global_step", None)
    return found, inside if stage is None else stage


def _mapping(what: str, data: Any) -> dict[Any, Any]:
    try:
        if isinstance(data, str | bytes):
            raise TypeError
        return dict(data)
    except (TypeError, ValueError):
        raise TypeError(f"{what} takes a dict, not {type(data).__name__} {data!r:.100}") from None


def _arguments(args: Any) -> Any:
    """The arguments as something that params take."""
    if isinstance(args, Mapping | list | tuple):
        return args
    if isinstance(args, str | bytes | int | float):
        raise TypeError(f"log_config(args=…) takes a Namespace, a dict, or an object with attributes, not {args!r:.100}")
    load("aimlite.sdk.params")
    from aimlite.sdk.params import plain

    try:
        known = plain(args, ("config", "args"))
    except TypeError:
        known = None
    if isinstance(known, dict):
        return known
    try:
        return vars(args)
    except TypeError:
        raise TypeError(f"log_config(args=…) takes a Namespace, a dict, or an object with attributes, not {args!r:.100}") from None
