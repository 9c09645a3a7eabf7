"""Each row of the tables of docs/types.md: what is given comes back as the page says, or is refused as it says."""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aimlite import Context, Metric, Repo, Run
from aimlite.sdk.object_sequences import sequences_of

PAGE = (Path(__file__).parents[2] / "docs" / "types.md").read_text("utf-8")
EXPRESSION = re.compile(r"`([^`]+)`")


def rows() -> list[Any]:
    """(section, expression given, cell that says what comes of it, whether it is refused), for each expression."""
    found, section, refused = [], "", None
    for line in PAGE.splitlines():
        if line.startswith("#"):
            section = line.lstrip("# ")
        if not line.startswith("|"):
            refused = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if refused is None:
            assert cells[:2] in (["given", "comes back as"], ["refused", "error"]), line
            refused = cells[0] == "refused"
        elif not set(cells[0]) <= set("-"):
            expressions = EXPRESSION.findall(cells[0])
            assert expressions, line
            found += [pytest.param(section, given, cells[1], refused, id=f"{section}-{given[:40]}") for given in expressions]
    return found


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the page defines at its end."""
    namespace: dict[str, Any] = {"__name__": "types_page"}
    source = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[-1]
    exec(compile(source, "docs/types.md", "exec", dont_inherit=True), namespace)
    return namespace


def the_metric(run: Run) -> Metric:
    [metric] = run.metrics()
    return metric


def param(run: Run, value: Any) -> Any:
    run["p"] = [value, {"in": value}]
    alone, nested = run["p"]
    assert repr(alone) == repr(nested["in"])
    run["p"] = value
    return run["p"]


def key_of_params(run: Run, key: Any) -> Any:
    run["d"] = {key: 1}
    run[key] = 2
    run["path", key] = 3
    [found] = run["d"]
    assert (run[found], run["path"]) == (2, {found: 3})
    return found


def value(run: Run, value: Any) -> Any:
    run.track(value, name="m")
    return the_metric(run).last


def column(run: Run, values: Any) -> Any:
    run.track_columns("m", values)
    return Metric("m", None, run).values.tolist()


def step(run: Run, step: Any) -> Any:
    run.track(1, name="m", step=step)
    metric = the_metric(run)
    assert metric.values[step] == 1
    assert metric.values[step:][0].tolist() == [metric.last_step]
    return int(metric.last_step)


def steps(run: Run, steps: Any) -> Any:
    run.track_columns("m", [1, 2], steps)
    return the_metric(run).indices.tolist()


def epoch(run: Run, epoch: Any) -> Any:
    run.track(1, name="m", epoch=epoch)
    return the_metric(run).epochs.last_value()


def tracked_object(run: Run, value: Any) -> Any:
    run.track(value, name="m", context={"k": 1})
    [sequence] = sequences_of(run)
    assert sequence.values.last_value() == (list(value) if isinstance(value, tuple) else value)
    return sequence.values.last_value()


def epochs(run: Run, epochs: Any) -> Any:
    run.track_columns("m", [1, 2], epochs=epochs)
    return the_metric(run).epochs.tolist()


def times(run: Run, times: Any) -> Any:
    run.track_columns("m", [1, 2], times=times)
    return the_metric(run).timestamps.tolist()


def name(run: Run, name: Any) -> Any:
    run.track(1, name=name)
    if name is not None:
        run.track({name: 2})
    return the_metric(run).name


def context(run: Run, context: Any) -> Any:
    run.track(1, name="m", context=context)
    assert run.get_metric("m", context) == the_metric(run)
    assert the_metric(run).context == Context(context)
    return the_metric(run).context.to_dict()


def key_of_contexts(run: Run, key: Any) -> Any:
    [found] = context(run, {key: 1})
    return found


READ_BACK: dict[str, Callable[[Run, Any], Any]] = {
    "Params": param,
    "Keys of params": key_of_params,
    "Tracked values": value,
    "Columns": column,
    "Objects": tracked_object,
    "Steps": step,
    "Columns of steps": steps,
    "Epochs": epoch,
    "Columns of epochs": epochs,
    "Times": times,
    "Names": name,
    "Contexts": context,
    "Keys of contexts": key_of_contexts,
}


@pytest.mark.parametrize(("section", "given", "says", "refused"), rows())
def test_a_row(repo: Repo, names: dict[str, Any], section: str, given: str, says: str, refused: bool) -> None:
    run = Run("r", repo=repo)
    if refused:
        [error] = EXPRESSION.findall(says)
        with pytest.raises(getattr(builtins, error)):
            READ_BACK[section](run, eval(given, names))
        assert (run[...], len(run.metrics())) == ({}, 0)
    else:
        expected = given if says == "the same" else EXPRESSION.findall(says)[0]
        assert repr(READ_BACK[section](run, eval(given, names))) == repr(eval(expected, names))  # types count, and NaN is NaN


def test_every_section_has_rows() -> None:
    assert {row.values[0] for row in rows()} == READ_BACK.keys()
