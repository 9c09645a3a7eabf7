"""Objects tracked and read: from journals and from the tree, single and in lists, by other processes and after a kill."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image as pillow

from aimlite import (
    Audio,
    Audios,
    CorruptionError,
    Distribution,
    Distributions,
    Figure,
    Figures,
    Image,
    Images,
    QueryReportMode,
    QuerySyntaxError,
    Repo,
    Run,
    Text,
    Texts,
)
from aimlite.storage import media

DISABLED = QueryReportMode.DISABLED


def pixels(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape or (6, 8, 3), "uint8")


def of_every_class(seed: int = 0) -> dict[str, Any]:
    buffer = io.BytesIO()
    pillow.new("RGB", (9, 7), (seed, 5, 6)).save(buffer, "jpeg")
    return {
        "pixels": Image(pixels(seed), caption=f"c{seed}"),
        "jpeg of pixels": Image(pixels(seed), format="jpg", quality=30),
        "file": Image(buffer.getvalue()),
        "large": Image(pixels(seed, 700, 600, 3)),
        "wav": Audio(np.arange(300, dtype="int16") + seed, rate=8000),
        "flac": Audio(np.arange(300, dtype="int16") + seed, "flac", rate=8000),
        "text": Text(f"text {seed} \ud800"),
        "distribution": Distribution(np.arange(seed, seed + 30)),
        "figure": Figure({"data": [{"type": "bar", "y": [seed]}]}),
    }


GETTERS: dict[type, Callable[..., Any]] = {
    Image: Run.get_image_sequence,
    Audio: Run.get_audio_sequence,
    Text: Run.get_text_sequence,
    Distribution: Run.get_distribution_sequence,
    Figure: Run.get_figure_sequence,
}
SEQUENCES = {Image: Images, Audio: Audios, Text: Texts, Distribution: Distributions, Figure: Figures}


def get(run: Run, name: str, kind: type, context: Any = None) -> Any:
    return GETTERS[kind](run, name, context)


@pytest.mark.parametrize("as_list", [False, True], ids=["single", "list"])
def test_every_class_comes_back_before_and_after_a_merge(repo: Repo, as_list: bool) -> None:
    run = Run("r", repo=repo)
    given = {name: [found, of_every_class(7)[name]] if as_list else found for name, found in of_every_class().items()}
    for name, value in given.items():
        run.track(value, name=name, step=3, epoch=1.5, context={"subset": "val"})
    heads: dict[str, list[str]] = {}
    for _ in range(2):
        for name, value in given.items():
            kind = type(value[0] if as_list else value)
            sequence = get(Repo(repo.path).get_run("r"), name, kind, {"subset": "val"})  # type: ignore[arg-type]
            assert type(sequence) is SEQUENCES[kind]
            assert sequence.values[3] == value
            assert sequence.values.last() == (3, value)
            assert sequence.record_length() == (2 if as_list else 1)
            assert (sequence.count, sequence.first_step(), sequence.last_step, sequence.epochs[3]) == (1, 3, 3, 1.5)
            read = sequence.values[3][0] if as_list else sequence.values[3]
            heads.setdefault(name, []).append(repr(read.json()) + repr(getattr(read, "data", None)))
        repo.merge()
    assert all(before == after for before, after in heads.values())


def test_a_merge_compresses_pixels_and_leaves_files_alone(repo: Repo) -> None:
    run = Run("r", repo=repo)
    given = of_every_class()
    run.track({name: given[name] for name in ("pixels", "file", "large", "flac")})
    stored = {name: get(run, name, type(given[name])).values[0]._to_item() for name in ("pixels", "file", "large", "flac")}
    assert [media.is_finished(header) for header, _ in stored.values()] == [False, True, False, False]
    repo.merge()
    for name, item in stored.items():
        header, payload = get(run, name, type(given[name])).values[0]._to_item()
        assert (header, payload) == media.finish(*item)
        assert media.is_finished(header)


def test_an_object_read_before_a_merge_is_read_after_it(repo: Repo) -> None:
    run = Run("r", repo=repo)
    for seed in range(3):
        run.track(of_every_class(seed), step=seed)
    found = {name: get(run, name, type(value)).values.tolist() for name, value in of_every_class().items()}
    found["pixels"][0].caption = "mine"
    run.close()
    repo.merge()
    assert found["pixels"][0].caption == "mine"
    found["pixels"][0].caption = "c0"
    for name, objects in found.items():
        assert objects == [of_every_class(seed)[name] for seed in range(3)]


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_objects_come_back(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    objects = st.one_of(
        arrays.arrays(st.sampled_from(["u1", "u2", "?"]), st.tuples(st.integers(5, 9), st.integers(5, 9))).map(Image),
        arrays.arrays(st.sampled_from(["u1", "i2", "i4", "f4", "f8"]), st.integers(1, 50)).map(Audio),
        st.text(max_size=400).map(Text),
        arrays.arrays("f8", st.integers(0, 20)).map(Distribution),
    )
    given_objects = data.draw(st.lists(objects, min_size=1, max_size=12))
    with Repo(tmp_path_factory.mktemp("any")) as repo, Run(repo=repo) as run:
        for step, each in enumerate(given_objects):
            run.track(each, name=type(each).__name__, step=step)
        for _ in range(2):
            for step, each in enumerate(given_objects):
                assert get(run, type(each).__name__, type(each)).values[step] == each
            repo.merge()


def test_a_dict_of_objects_and_numbers_is_one_call(repo: Repo) -> None:
    run = Run("r", repo=repo)
    run.track({"loss": 0.5, "text": Text("a"), "images": [Image(pixels(0)), Image(pixels(1))], "n": 3}, step=2, context={"k": 1})
    run.track({"loss": 0.25, "text": Text("b"), "images": [Image(pixels(2))], "n": 4}, context={"k": 1})
    with pytest.raises(TypeError, match="holds numbers"):
        run.track({"text": Text("c"), "loss": Text("no number")}, context={"k": 1})
    with pytest.raises(TypeError, match="'bad'"):
        run.track({"text": Text("c"), "bad": [Text("x"), 5]}, context={"k": 1})
    with pytest.raises((TypeError, ValueError)):
        run.track({"text": Text("c"), "n": "five"}, context={"k": 1})
    with pytest.raises(ValueError, match="left out"):
        run.track({"text": Text("c")}, name="x")
    with pytest.raises(ValueError, match="needs a name"):
        run.track(Text("c"))
    with pytest.raises(TypeError):
        run.track(Text("c"), name="text", step="x", context={"k": 1})  # type: ignore[arg-type]
    for _ in range(2):
        metric = run.get_metric("loss", {"k": 1})
        assert metric is not None
        assert metric.values.sparse_list() == ([2, 3], [0.5, 0.25])
        assert [str(text) for text in get(run, "text", Text, {"k": 1}).values] == ["a", "b"]
        assert get(run, "images", Image, {"k": 1}).values.indices_list() == [2, 3]
        assert [len(found) for found in get(run, "images", Image, {"k": 1}).values] == [2, 1]
        repo.merge()


def test_a_sequence_holds_one_kind_for_ever(repo: Repo) -> None:
    run = Run("r", repo=repo)
    run.track({"number": 1.0, "text": Text("a"), "texts": [Text("a")]})
    image = Image(pixels(0))

    def refuse(run: Run) -> None:
        for name, value, told in [
            ("number", image, "holds numbers, it does not take single images"),
            ("text", 1.0, "holds single texts, it does not take numbers"),
            ("text", [Text("b")], "holds single texts, it does not take lists of texts"),
            ("texts", Text("b"), "holds lists of texts, it does not take single texts"),
            ("texts", [image], "holds lists of texts, it does not take lists of images"),
        ]:
            with pytest.raises(TypeError, match=told) as caught:
                run.track(value, name=name)
            assert caught.value.__context__ is None
            run.track(value, name=name, context={"other": told})

    refuse(run)
    run.close()
    for _ in range(2):
        with Run("r", repo=repo) as again:
            refuse(again)
        repo.merge()


@pytest.mark.parametrize("value", ["text", b"bytes", None, object(), [], [1.0], ["a"], [None], [[Text("a")]], {1, 2}])
def test_what_is_neither_number_nor_object(repo: Repo, value: Any) -> None:
    with Run("r", repo=repo) as run:
        with pytest.raises(TypeError):
            run.track(value, name="x")
        run.track(1.0, name="x")


def test_read_only_and_closed_runs_take_none(repo: Repo) -> None:
    from aimlite import ReadOnlyError, RunClosedError

    run = Run("r", repo=repo)
    run.close()
    with pytest.raises(RunClosedError):
        run.track(Text("a"), name="x")
    with pytest.raises(ReadOnlyError):
        Run("r", repo=repo, read_only=True).track(Text("a"), name="x")


def test_the_whole_array_view(repo: Repo) -> None:
    run = Run("r", repo=repo)
    for step in (0, 10, 20, 35, 40):
        run.track(Text(str(step)), name="t", step=step, epoch=step / 10)
    run.track(Text("again"), name="t", step=35)
    texts = ["0", "10", "20", "again", "40"]
    for place in ("journal", "tree", "preloaded"):
        sequence = get(run, "t", Text)
        if place == "preloaded":
            sequence.preload()
        view = sequence.values
        steps, column = view.sparse_numpy()
        assert (
            steps.tolist() == view.indices_numpy().tolist() == view.indices_list() == view.keys() == view.indices() == [0, 10, 20, 35, 40]
        )
        assert [str(text) for text in column] == texts
        assert column.dtype == object
        assert [str(text) for text in view] == [str(text) for text in view.values_numpy()] == texts
        assert (
            [str(text) for text in view.tolist()]
            == [str(text) for text in view.values_list()]
            == [str(text) for text in view.values()]
            == texts
        )
        assert [(step, str(text)) for step, text in view.items()] == list(zip(steps.tolist(), texts, strict=True))
        assert [str(text) for text in view.sparse_list()[1]] == texts
        assert len(view) == len(sequence) == 5
        assert (view.first_idx(), view.last_idx(), str(view.first_value()), str(view.last_value())) == (0, 40, "0", "40")
        assert (view.first()[0], str(view.last()[1])) == (0, "40")
        assert str(view[35]) == "again"
        with pytest.raises(KeyError):
            view[36]
        assert [str(text) for text in view[10:36][1]] == ["10", "20", "again"]
        assert [str(text) for text in sequence.values[10:36:10][1]] == ["10", "20"]
        assert sequence.values[40:10][0].tolist() == []
        assert sequence.values.sample(3)[0].tolist() == [0, 20, 40]
        assert view.sample(2)[0].tolist() == [0, 40]
        assert view.sample(9)[0].tolist() == steps.tolist()
        with pytest.raises(ValueError, match="at least 2"):
            view.sample(1)
        assert sequence.epochs.tolist()[:3] == [0.0, 1.0, 2.0]
        assert (np.diff(sequence.timestamps.values_numpy()[[0, 1, 2, 4]]) >= 0).all()
        assert sequence.indices.tolist() == steps.tolist()
        assert sequence
        if place == "journal":
            repo.merge()
    assert repr(get(run, "t", Text)) == "<Texts 't' {} of run r>"
    assert get(run, "other", Text) is None
    assert get(run, "t", Image) is None
    empty = Texts("other", None, run)
    assert not empty
    assert empty.values.tolist() == []
    with pytest.raises(KeyError):
        empty.record_length()


def test_records_by_ranges_and_densities(repo: Repo) -> None:
    run = Run("r", repo=repo)
    for step in range(20):
        run.track([Text(f"{step}.{at}") for at in range(step % 5 + 1)], name="t", step=step, epoch=step * 2)

    def told(**options: Any) -> dict[int, list[str]]:
        return {record.step: [str(text) for text in record.objects] for record in get(run, "t", Text).records(**options)}

    everything = {step: [f"{step}.{at}" for at in range(step % 5 + 1)] for step in range(20)}
    for _ in range(2):
        assert told() == everything
        assert told(record_range=(5, 8)) == {step: everything[step] for step in (5, 6, 7)}
        assert told(record_range=slice(None, 2)) == {0: ["0.0"], 1: ["1.0", "1.1"]}
        assert list(told(record_density=3)) == [0, 9, 19]
        assert list(told(record_density=1)) == [0]
        assert list(told(record_density=99, record_range=[18, None])) == [18, 19]
        assert told(record_range=(2, 5), index_range=(1, 3)) == {2: ["2.1", "2.2"], 3: ["3.1", "3.2"], 4: ["4.1", "4.2"]}
        assert told(record_range=(4, 6), index_density=2) == {4: ["4.0", "4.4"], 5: ["5.0"]}
        assert told(record_range=(0, 4), index_range=(3, None)) == {3: ["3.3"]}
        assert told(record_range=(8, 3)) == {}
        [record] = get(run, "t", Text).records(record_range=(4, 5), index_range=(1, None), index_density=2)
        assert (record.step, record.epoch, record.indices) == (4, 8.0, [1, 4])
        assert abs(record.time - run.creation_time) < 60
        repo.merge()
    for options, error in [
        ({"record_range": 5}, TypeError),
        ({"record_range": (1, 2, 3)}, TypeError),
        ({"record_range": ("a", "b")}, TypeError),
        ({"record_range": slice(1, 5, 2)}, ValueError),
        ({"index_range": (-1, 5)}, ValueError),
        ({"record_density": 0}, ValueError),
        ({"index_density": 1.5}, ValueError),
    ]:
        with pytest.raises(error):
            told(**options)


def test_queries(repo: Repo) -> None:
    for place in ("journal", "tree"):
        for lr in (0.1, 0.2):
            run = Run(f"{place}-{lr}", repo=repo)
            run["lr"] = lr
            run.track(1.0, name="loss")
            for step in range(3):
                run.track(
                    {"shown": Image(pixels(step)), "words": Text("a"), "others": [Image(pixels(0))]}, step=step, context={"at": place}
                )
            run.track(Image(pixels(9)), name="shown", step=9)
            run.close()
        if place == "journal":
            repo.merge()

    def names(found: Any) -> list[tuple[str, str, int]]:
        return [(sequence.run.hash, sequence.name, sequence.count) for sequence in found]

    hashes = ["tree-0.2", "tree-0.1", "journal-0.2", "journal-0.1"]
    assert names(repo.query_images("images.name == 'others'", DISABLED)) == [(run_hash, "others", 3) for run_hash in hashes]
    assert names(repo.query_images("images.context == {'at': 'tree'} and run.lr < 0.15", DISABLED)) == [
        ("tree-0.1", "others", 3),
        ("tree-0.1", "shown", 3),
    ]
    assert names(repo.query_images("images.last_step > 5", DISABLED)) == [(run_hash, "shown", 1) for run_hash in hashes]
    assert names(repo.query_images("images.name.startswith('sh') and images.count == 3", DISABLED)) == [
        (each, "shown", 3) for each in hashes
    ]
    assert len(repo.query_images("", DISABLED)) == 12
    assert names(repo.query_images("images.name == 'shown'", DISABLED, order_by="images.count", descending=True, limit=1)) == [
        ("tree-0.2", "shown", 3)
    ]
    assert names(repo.query_texts("run.lr == 0.1 and texts.first_step == 0", DISABLED)) == [
        ("tree-0.1", "words", 3),
        ("journal-0.1", "words", 3),
    ]
    assert names(repo.query_images("images.name == 'words'", DISABLED)) == []
    for query in (repo.query_audios, repo.query_distributions, repo.query_figure_objects):
        assert list(query("", DISABLED)) == []
    collections = list(repo.query_images("run.lr == 0.2", DISABLED).iter_runs())
    assert [(found.run.hash, len(found), [each.name for each in found.iter()]) for found in collections] == [
        (run_hash, 3, ["others", "shown", "shown"]) for run_hash in ("tree-0.2", "journal-0.2")
    ]
    assert next(collections[0].iter_runs()) is collections[0]
    [(sequence, (number, total)), *_] = repo.query_images("images.name == 'others'", QueryReportMode.PROGRESS_TUPLE)
    assert (sequence.name, number, total) == ("others", 1, 4)
    assert "images: images.name == 'others'" in repo.query_images("images.name == 'others'", DISABLED).explain()
    for wrong in ("images.last > 1", "metric.name == 'a'", "images.nme == 'a'", "images"):
        with pytest.raises(QuerySyntaxError):
            repo.query_images(wrong)
    assert {metric.name for metric in repo.query_metrics("metric.count > 0", DISABLED)} == {"loss"}


def test_sequence_info(repo: Repo) -> None:
    run = Run("r", repo=repo)
    run.track({"i": [Image(pixels(0)), Image(pixels(1))], "t": Text("a"), "loss": 0.5}, step=4, context={"k": 1})
    for _ in range(2):
        info = run.collect_sequence_info(["images", "texts", "audios"])
        assert info == {
            "images": [
                {
                    "name": "i",
                    "context": {"k": 1},
                    "values": {"dtype": "list(image)", "first_step": 4, "last_step": 4, "count": 1, "record_length": 2},
                }
            ],
            "texts": [
                {
                    "name": "t",
                    "context": {"k": 1},
                    "values": {"dtype": "text", "first_step": 4, "last_step": 4, "count": 1, "record_length": 1},
                }
            ],
            "audios": [],
        }
        assert "last_step" not in run.collect_sequence_info("texts", skip_last_value=True)["texts"][0]["values"]
        assert repo.collect_sequence_info(["images", "texts", "metric"]) == {
            "images": {"i": [{"k": 1}]},
            "texts": {"t": [{"k": 1}]},
            "metric": {"loss": [{"k": 1}]},
        }
        assert [(name, context) for name, context, _ in run.iter_sequence_info_by_type(["images", "metric"])] == [
            ("i", {"k": 1}),
            ("loss", {"k": 1}),
        ]
        repo.merge()


def test_headers_are_listed_without_reading_payloads(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 images: what is told of them without their pixels reads none."""
    run = Run("r", repo=repo)
    image = pixels(0, 10, 10, 3)
    for step in range(9_000):
        image[0, 0] = (step & 255, step >> 8, 0)
        run.track(Image(image, caption=str(step)), name="i")
    run.close()
    repo.merge()
    run = Run("r", repo=repo)
    for step in range(9_000, 10_000):
        image[0, 0] = (step & 255, step >> 8, 0)
        run.track(Image(image, caption=str(step)), name="i")
    from aimlite.storage import view as views

    reads: list[str] = []
    for name in ("read_content", "get_blob", "checked_content"):
        found = getattr(views, name)
        monkeypatch.setattr(views, name, lambda *arguments, found=found, name=name: (reads.append(name), found(*arguments))[1])
    with Repo(repo.path) as fresh:
        [sequence] = fresh.query_images("images.name == 'i'", DISABLED)
        captions = [(found.caption, found.size, found.format) for found in sequence.values]
        assert captions == [(str(step), (10, 10), "png") for step in range(10_000)]
        assert sum(len(record.objects) for record in sequence.records()) == 10_000
        assert not reads
        for step in (0, 5_000, 9_500):
            assert sequence.values[step].to_numpy()[0, 0].tolist() == [step & 255, step >> 8, 0]
        assert len(reads) == 3


def test_damage_of_a_payload_is_told(repo_path: str) -> None:
    with Repo(repo_path) as repo:
        run = Run("r", repo=repo)
        payload = pixels(3, 30, 30, 3)
        run.track(Image(payload), name="i")
        image = get(run, "i", Image).values[0]
        [path] = (repo._layout.journal(*name) for name in repo._layout.list_journals())
        data = bytearray(path.read_bytes())
        data[data.index(payload.tobytes()) + 100] ^= 1
        path.write_bytes(data)
        assert image.size == (30, 30)
        with pytest.raises(CorruptionError):
            image.to_numpy()


def test_large_pixels_wait_in_the_journal_and_leave_no_blob(repo: Repo) -> None:
    run = Run("r", repo=repo)
    plain = np.zeros((1000, 1000, 3), "uint8")
    run.track(Image(plain), name="i")
    assert repo.stats()["bytes"]["blobs"] == 0
    assert repo.check() == []
    assert get(run, "i", Image).values[0] == Image(plain)
    repo.merge()
    assert get(run, "i", Image).values[0] == Image(plain)
    assert repo.stats()["bytes"]["blobs"] == 0


def test_pixels_without_pillow_stay_pixels(repo: Repo) -> None:
    """As a merge on a machine without Pillow leaves them."""
    run = Run("r", repo=repo)
    noise = pixels(0, 1000, 700, 3)
    run.track({"small": Image(pixels(1)), "large": Image(noise)})
    script = "import sys; sys.modules['PIL'] = None; from aimlite.storage.merge import merge; from aimlite.storage.layout import Layout\n"
    run.close()
    repo._writer().end_segment()
    subprocess.run(
        [sys.executable, "-c", f"{script}from pathlib import Path; merge(Layout(Path({repo.path!r})), True)"], check=True, timeout=300
    )
    assert repo.stats()["journals"] == {"held": 0, "waiting": 0}
    header, _ = get(run, "large", Image).values[0]._to_item()
    assert not media.is_finished(header)
    assert (get(run, "large", Image).values[0].to_numpy() == noise).all()
    assert get(run, "small", Image).values[0] == Image(pixels(1))


@pytest.mark.parametrize("count", [3000 if os.environ.get("AIMLITE_STRESS") == "1" else 60])
def test_acknowledged_images_survive_sigkill(repo: Repo, count: int) -> None:
    """A burst of images, ended by SIGKILL: what was acknowledged is read back bit for bit."""
    script = textwrap.dedent(f"""
        import numpy as np
        from aimlite import Image, Run
        run = Run("r", repo={repo.path!r})
        for k in range(100_000):
            array = np.random.default_rng(k).integers(0, 256, (64, 64 + k % 3, 3), "uint8")
            value = [Image(array), Image(array[::-1], format="webp")] if k % 4 == 0 else Image(array, caption=str(k))
            run.track(value, name=f"i{{k % 4 == 0}}", step=k)
            print(k, flush=True)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= count:
                break
        process.send_signal(signal.SIGKILL)
        last = max([int(line), *map(int, process.stdout.read().split())])
    for _ in range(2):
        with Repo(repo.path) as fresh:
            run = fresh.get_run("r")
            assert run is not None
            single, several = get(run, "iFalse", Image), get(run, "iTrue", Image)
            steps = sorted([*single.indices.tolist(), *several.indices.tolist()])
            assert steps in (list(range(last + 1)), list(range(last + 2)))
            for step, image in single.values.items():
                assert (image.to_numpy() == pixels(step, 64, 64 + step % 3, 3)).all()
                assert image.caption == str(step)
            for step, (image, other) in several.values.items():
                assert (image.to_numpy() == pixels(step, 64, 64 + step % 3, 3)).all()
                assert other == Image(pixels(step, 64, 64 + step % 3, 3)[::-1], format="webp")
            assert run.status == "interrupted"
        repo.merge()


def test_several_processes_track_one_sequence(repo: Repo) -> None:
    run = Run("r", repo=repo)
    script = textwrap.dedent(f"""
        import sys, numpy as np
        from aimlite import Image, Run
        with Run("r", repo={repo.path!r}) as run:
            for k in range(20):
                run.track(Image(np.full((8, 8), k, "uint8"), caption=sys.argv[1]), name="i", step=100 * int(sys.argv[1]) + k)
    """)
    children = [subprocess.Popen([sys.executable, "-c", script, str(k)]) for k in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    for _ in range(2):
        found = {step: (image.caption, int(image.to_numpy()[0, 0])) for step, image in get(run, "i", Image).values.items()}
        assert found == {100 * process + k: (str(process), k) for process in range(3) for k in range(20)}
        repo.merge()


def test_a_number_after_a_failed_object_call(repo: Repo) -> None:
    """All or nothing: a call that is refused leaves no trace of any of its names."""
    run = Run("r", repo=repo)
    run.track(1.0, name="loss")
    with pytest.raises(TypeError):
        run.track({"first": Text("a"), "loss": Text("b")})
    assert get(run, "first", Text) is None
    run.track(2.0, name="first")
    assert [metric.name for metric in run.metrics()] == ["first", "loss"]


def test_deleting_the_last_user_of_a_content_frees_it(repo: Repo) -> None:
    from aimlite.storage import keys
    from aimlite.storage.view import Reader

    def kept() -> list[int]:
        view = Reader(repo._layout).view()
        return [len(list(view.tree.scan(keys.prefix_range(space)))) for space in (keys.OBJECT, keys.CONTENT, keys.REFERENCE)]

    large = Image(pixels(0, 800, 800, 3))
    for number, run_hash in enumerate("ab"):
        with Run(run_hash, repo=repo, capture_terminal_logs=False) as run:
            run.track({"shared": Image(pixels(5, 40, 40, 3)), "own": Image(pixels(number, 40, 40, 3)), "large": large})
    repo.merge()
    assert kept() == [6, 3, 6]
    assert repo.stats()["bytes"]["blobs"] > 1 << 20
    repo.delete_run("a")
    assert {sequence.run.hash for sequence in repo.query_images("", DISABLED)} == {"b"}
    repo.delete_run("a", permanent=True)
    assert kept() == [3, 2, 3]
    assert repo.stats()["bytes"]["blobs"] > 1 << 20
    repo.delete_run("b", permanent=True)
    assert kept() == [0, 0, 0]
    assert repo.stats()["bytes"]["blobs"] == 0


def test_pixels_that_wait_for_a_merge_are_copied_and_moved(repo: Repo, tmp_path: Path) -> None:
    given = {**of_every_class(), "noise": Image(pixels(0, 800, 800, 3))}
    for run_hash in ("copied", "moved"):
        with Run(run_hash, repo=repo, capture_terminal_logs=False) as run:
            run.track(given)
    with Repo(tmp_path / "other") as other:
        repo.copy_runs(["copied"], other)
        repo.move_runs(["moved"], other)
        for run_hash in ("copied", "moved"):
            found = other.get_run(run_hash)
            assert found is not None
            assert {name: get(found, name, type(value)).values[0] for name, value in given.items()} == given
        assert other.check() == []
