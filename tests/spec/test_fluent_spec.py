"""Spec 003 (the fluent SDK): each example as a test, run as it stands but for the import, and each sentence on behaviour an assertion.

Training, arguments and the libraries of the large example are small stand-ins; nothing is fetched.
"""

from __future__ import annotations

import argparse
import inspect
import logging
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aimlite
from aimlite import FluentRun, NoOpRun, Repo

Script = Callable[..., dict[str, Any]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project's directory, with what the examples find there."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    (tmp_path / "project" / "config.yaml").write_text("lr: 0.1\n")
    for name in ("data/cifar10", "configs", "checkpoints"):
        (tmp_path / "project" / name).mkdir(parents=True)
    (tmp_path / "project" / "data" / "cifar10" / "batch").write_bytes(b"0" * 1000)
    (tmp_path / "project" / "configs" / "a.json").write_text("{}")
    (tmp_path / "project" / "checkpoints" / "best.pth").write_bytes(b"weights")
    yield tmp_path / "project"
    aimlite.set_enabled(True)
    active = aimlite.get_active_run()
    if active is not None:
        active.finish()


@pytest.fixture
def script(here: Path) -> Script:
    """Runs an example; returns its names."""

    def run(code: str, **given: Any) -> dict[str, Any]:
        names = {"__name__": "__main__", **given}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exec(compile(code.replace("import runicorn as rn", "import aimlite as rn"), "example.py", "exec"), names)
        return names

    return run


def points(run: Any, name: str, stage: str | None = None) -> dict[int, float]:
    metric = run.get_metric(name, None if stage is None else {"stage": stage})
    return {} if metric is None else dict(zip(metric.indices.tolist(), metric.values.tolist(), strict=True))


# -- init ----

INIT = """
def init(
    path: str = None,
    storage: str = None,
    run_id: str = None,
    alias: str = None,
    capture_env: bool = False,
    snapshot_code: bool = False,
    workspace_root: str = None,
    snapshot_format: str = "zip",
    force_snapshot: bool = False,
    capture_console: bool = False,
    tqdm_mode: str = "smart"
): ...
def log(self, data: dict = None, *, step: int = None, stage: str = None, **kwargs): ...
def log_text(self, text: str): ...
def get_logging_handler(self, level: int = logging.INFO, fmt: str = None): ...
def log_image(self, key: str, image, step: int = None, caption: str = None, format: str = "png", quality: int = 90): ...
def set_primary_metric(self, metric_name: str, mode: str = "max"): ...
def log_config(self, *, args=None, extra: dict = None, config_files=None): ...
def log_dataset(self, name: str, root_or_uri, *, context: str = "train", save: bool = False, description: str = None,
    force_save: bool = False, max_archive_bytes: int = 5 * 1024**3, max_archive_files: int = 2_000_000): ...
def log_pretrained(self, name: str, *, path_or_uri=None, save: bool = False, source_type: str = "unknown",
    description: str = None, force_save: bool = False): ...
def summary(self, update: dict): ...
def finish(self, status: str = "finished"): ...
"""
SIGNATURES: dict[str, Any] = {"logging": logging}
exec(INIT, SIGNATURES)
METHODS = [name for name, value in SIGNATURES.items() if inspect.isfunction(value) and name != "init"]


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


def test_init_has_the_signature_of_the_spec() -> None:
    assert parameters(aimlite.init) == parameters(SIGNATURES["init"])


@pytest.mark.parametrize("cls", [FluentRun, NoOpRun])
@pytest.mark.parametrize("name", METHODS)
def test_methods_have_the_signatures_of_the_spec(cls: type, name: str) -> None:
    assert parameters(getattr(cls, name)) == parameters(SIGNATURES[name])


INIT_EXAMPLES = """
import runicorn as rn

# Simple
run = rn.init(path="demo")

# With path hierarchy
run = rn.init(path="cv/resnet50/baseline")

# With alias
run = rn.init(path="cv/resnet50/v2", alias="best-model")

# With custom storage
run = rn.init(path="demo", storage="E:\\\\MLData")

# With code snapshot
run = rn.init(path="demo", snapshot_code=True)

# With console capture
run = rn.init(path="demo", capture_console=True, tqdm_mode="smart")
"""


def test_runs_are_opened(script: Script, here: Path) -> None:
    run = script(INIT_EXAMPLES)["run"]
    run.finish()
    runs = list(Repo(here).iter_runs())[::-1]
    assert [(each.path, each.alias) for each in runs] == [
        ("demo", None),
        ("cv/resnet50/baseline", None),
        ("cv/resnet50/v2", "best-model"),
        ("demo", None),
        ("demo", None),
    ]
    assert [each.path for each in Repo("E:\\MLData").iter_runs()] == ["demo"]
    assert (runs[3]["code", "saved"], "code" in runs[4]) == (True, False)
    assert isinstance(run, FluentRun)
    assert run.get_terminal_logs() is not None


# -- log ----

LOG = """
import runicorn as rn

run = rn.init(path="demo")

# Simple logging
run.log({"loss": 0.5, "accuracy": 0.8}, step=10)

# Auto-incrementing step
run.log({"loss": 0.4})  # step=1
run.log({"loss": 0.3})  # step=2

# With stage
run.log({"loss": 0.2}, stage="train")
run.log({"val_loss": 0.3}, stage="eval")

# Using kwargs
run.log(loss=0.1, accuracy=0.95, lr=0.001, step=100)

run.finish()
"""


def test_metrics_are_logged(script: Script) -> None:
    """After step 10 the counter goes on with 11: that is decided so."""
    run = script(LOG)["run"]
    assert points(run, "loss") == {10: 0.5, 11: 0.4, 12: 0.3, 100: 0.1}
    assert points(run, "accuracy") == {10: 0.8, 100: 0.95}
    assert points(run, "loss", "train") == {13: 0.2}
    assert points(run, "val_loss", "eval") == {14: 0.3}
    assert points(run, "lr") == {100: 0.001}
    assert run.status == "finished"


# -- text and logging ----

LOG_TEXT = """
run.log_text("Starting training...")
run.log_text(f"Epoch 1/100, loss=0.5")
run.log_text("✓ Training completed")
"""
HANDLER = """
import runicorn as rn
import logging

run = rn.init(path="demo")

logger = logging.getLogger(__name__)
logger.addHandler(run.get_logging_handler())
logger.setLevel(logging.INFO)

logger.info("Training started")    # Saved to logs.txt
logger.warning("LR is high")      # Saved to logs.txt

run.finish()
"""


def logged(run: Any) -> list[str]:
    return [str(line) for line in run.get_terminal_logs()]


def test_text_is_logged(script: Script, here: Path) -> None:
    run = aimlite.init("demo")
    script(LOG_TEXT, run=run)
    run.finish()
    found = "\n".join(logged(run))
    for text in ("Starting training...", "Epoch 1/100, loss=0.5", "✓ Training completed"):
        assert text in found


def test_python_logging_is_logged(script: Script) -> None:
    names = script(HANDLER)
    logger = names["logger"]
    try:
        found = "\n".join(logged(names["run"]))
        assert "Training started" in found
        assert "LR is high" in found
        logger.info("too late")
        assert "too late" not in "\n".join(logged(names["run"]))
    finally:
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)


# -- images ----

IMAGES = """
import runicorn as rn
from PIL import Image
import numpy as np

run = rn.init(path="demo")

# From PIL Image
img = Image.open("prediction.png")
run.log_image("prediction", img, step=100, caption="Model prediction")

# From numpy array
array = np.random.rand(224, 224, 3) * 255
run.log_image("sample", array.astype(np.uint8), step=100)

# From file path
run.log_image("result", "output.jpg", step=100)

run.finish()
"""


def test_images_are_logged(script: Script, here: Path) -> None:
    from PIL import Image

    Image.new("RGB", (4, 3), (255, 0, 0)).save(here / "prediction.png")
    Image.new("RGB", (5, 6), (0, 0, 255)).save(here / "output.jpg")
    run = script(IMAGES)["run"]
    [prediction] = run.get_image_sequence("prediction").values[100]
    [sample] = run.get_image_sequence("sample").values[100]
    [result] = run.get_image_sequence("result").values[100]
    assert (prediction.caption, prediction.width, prediction.height) == ("Model prediction", 4, 3)
    assert (sample.width, sample.height) == (224, 224)
    assert (result.format, result.width, result.height) == ("jpeg", 5, 6)
    assert [each.run.hash for each in run.repo.query_images("images.name == 'sample'").iter_runs()] == [run.hash]


# -- primary metric ----

PRIMARY = """
import runicorn as rn
run = rn.init(path="demo")
run.set_primary_metric("accuracy", mode="max")

for step in range(100):
    acc = train_step()
    run.log({"accuracy": acc}, step=step)

# Best accuracy is automatically saved to summary
run.finish()
"""


def test_the_best_value_is_in_the_summary(script: Script) -> None:
    values = iter([0.1, 0.9, float("nan"), 0.9, *[0.5] * 96])
    run = script(PRIMARY, train_step=lambda: next(values))["run"]
    assert run.get_summary() == {
        "best_metric_value": 0.9,
        "best_metric_name": "accuracy",
        "best_metric_step": 1,
        "best_metric_mode": "max",
    }
    assert run.repo.query_runs("run.summary.best_metric_value > 0.8").hashes() == [run.hash]


# -- config, datasets, models ----

CONFIG = """
import argparse
import runicorn as rn

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.001)
parser.add_argument("--epochs", type=int, default=100)
args = parser.parse_args()

run = rn.init(path="demo")

# Log argparse args + extra config + config file paths
run.log_config(
    args=args,
    extra={"model": "ResNet50", "dataset": "CIFAR-10"},
    config_files=["config.yaml"]
)

run.finish()
"""
DATASET = """
import runicorn as rn
run = rn.init(path="cv/resnet50")

# Log dataset metadata (no copy)
run.log_dataset("cifar10", "./data/cifar10", context="train", description="CIFAR-10 training set")

# Log and archive dataset
run.log_dataset("config", "./configs", context="config", save=True)

run.finish()
"""
PRETRAINED = """
import runicorn as rn
run = rn.init(path="nlp/bert-finetuning")

# Log HuggingFace model reference
run.log_pretrained(
    "bert-base",
    path_or_uri="bert-base-uncased",
    source_type="huggingface",
    description="BERT base model (uncased)"
)

# Log and archive local checkpoint
run.log_pretrained(
    "my-checkpoint",
    path_or_uri="./checkpoints/best.pth",
    save=True,
    source_type="local"
)

run.finish()
"""


def test_config_is_logged(script: Script) -> None:
    run = script(CONFIG)["run"]
    assert run["config", "args"] == {"lr": 0.001, "epochs": 100}
    assert run["config", "extra"] == {"model": "ResNet50", "dataset": "CIFAR-10"}
    assert run["config", "files", "config.yaml", "content"] == "lr: 0.1\n"
    assert run.repo.query_runs("run.config.args.lr < 0.01 and run.config.extra.model == 'ResNet50'").hashes() == [run.hash]


def test_datasets_are_logged(script: Script, tmp_path: Path) -> None:
    run = script(DATASET)["run"]
    entry = run["datasets", "cifar10", "train"]
    assert (entry["uri"], entry["description"], entry["saved"], entry["bytes"]) == (
        "./data/cifar10",
        "CIFAR-10 training set",
        False,
        1000,
    )
    assert run["datasets", "config", "config", "saved"] is True
    run.restore_dataset("config", tmp_path / "back")
    assert (tmp_path / "back" / "a.json").read_text() == "{}"
    assert run.repo.query_runs("run.datasets.cifar10.train.bytes == 1000").hashes() == [run.hash]


def test_pretrained_models_are_logged(script: Script, tmp_path: Path) -> None:
    run = script(PRETRAINED)["run"]
    entry = run["pretrained", "bert-base"]
    assert (entry["uri"], entry["source_type"], entry["saved"]) == ("bert-base-uncased", "huggingface", False)
    assert run["pretrained", "my-checkpoint", "saved"] is True
    run.restore_pretrained("my-checkpoint", tmp_path / "back")
    assert [path.read_bytes() for path in (tmp_path / "back").iterdir()] == [b"weights"]


# -- summary, finish ----

SUMMARY = """
run.summary({
    "final_accuracy": 0.95,
    "final_loss": 0.05,
    "total_epochs": 100,
    "model": "ResNet50",
    "notes": "Baseline with default hyperparameters"
})
"""
FINISH = """
try:
    for step in range(100):
        run.log({"loss": 0.1}, step=step)
        work(step)
    run.finish(status="finished")
except KeyboardInterrupt:
    run.finish(status="interrupted")
except Exception as e:
    run.log_text(f"Error: {e}")
    run.finish(status="failed")
"""
CONTEXT_MANAGER = """
import runicorn as rn

with rn.init(path="demo") as run:
    run.log({"loss": 0.5}, step=1)
    run.log({"loss": 0.3}, step=2)
    work()
# Automatically calls run.finish()
# If exception occurs, status is set to "failed"
"""


def test_a_summary_is_saved(script: Script) -> None:
    with aimlite.init() as run:
        script(SUMMARY, run=run)
        assert run.get_summary()["notes"] == "Baseline with default hyperparameters"
        assert run.repo.query_runs("run.summary.final_accuracy == 0.95 and run.summary.model == 'ResNet50'").hashes() == [run.hash]


def raising(error: BaseException, at: int = 3) -> Callable[..., None]:
    def work(step: int = at) -> None:
        if step == at:
            raise error

    return work


@pytest.mark.parametrize(
    ("work", "status", "count"),
    [
        (lambda step: None, "finished", 100),
        (raising(KeyboardInterrupt()), "interrupted", 4),
        (raising(ValueError("bad")), "failed", 4),
    ],
)
def test_a_run_is_finished(script: Script, here: Path, work: Any, status: str, count: int) -> None:
    run = aimlite.init()
    script(FINISH, run=run, work=work)
    assert (run.status, len(points(run, "loss")), run.is_finished) == (status, count, True)
    assert status != "failed" or "Error: bad" in "\n".join(logged(run))


@pytest.mark.parametrize(("error", "status"), [(None, "finished"), (ValueError("bad"), "failed"), (KeyboardInterrupt(), "interrupted")])
def test_the_context_manager_finishes(script: Script, here: Path, error: BaseException | None, status: str) -> None:
    if error is None:
        script(CONTEXT_MANAGER, work=lambda: None)
    else:
        with pytest.raises(type(error)):
            script(CONTEXT_MANAGER, work=raising(error))
    [run] = Repo(here).iter_runs()
    assert (run.status, points(run, "loss")) == (status, {1: 0.5, 2: 0.3})
    assert status != "failed" or run.error["message"] == "bad"


# -- on and off ----

ENABLED = """
import runicorn as rn

# Disable tracking
rn.set_enabled(False)

run = rn.init(path="demo")  # Returns NoOpRun (no-op, zero overhead)
run.log({"loss": 0.1})      # Does nothing
run.finish()                 # Does nothing

# Re-enable
rn.set_enabled(True)

# Check status
print(rn.is_enabled())  # True
"""


def test_tracking_is_turned_off_and_on(script: Script, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(script(ENABLED)["run"], NoOpRun)
    assert capsys.readouterr().out == "True\n"
    assert not (here / ".aimlite").exists()


# -- the large examples ----

COMPLETE = """
import runicorn as rn
import torch
import torch.nn as nn
import torch.optim as optim
from torchvision import datasets, transforms

# Initialize with code snapshot and console capture
run = rn.init(
    path="cv/mnist/cnn_baseline",
    snapshot_code=True,
    capture_console=True,
    tqdm_mode="smart"
)

run.log_text("Starting MNIST training...")
run.set_primary_metric("test_accuracy", mode="max")

# Log config
run.log_config(extra={
    "model": "SimpleCNN",
    "epochs": 10,
    "optimizer": "Adam",
    "lr": 0.001
})

# Log dataset
run.log_dataset("mnist", "./data", context="train")

# Define model
model = nn.Sequential(
    nn.Conv2d(1, 32, 3, 1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(5408, 10)
)
optimizer = optim.Adam(model.parameters(), lr=0.001)
criterion = nn.CrossEntropyLoss()

train_loader = torch.utils.data.DataLoader(
    datasets.MNIST('./data', train=True, download=True,
                   transform=transforms.ToTensor()),
    batch_size=64, shuffle=True
)

# Training loop
for epoch in range(10):
    model.train()
    total_loss = 0
    for data, target in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(data), target)
        loss.backward()
        optimizer.step()
        total_loss += loss.item()
    
    avg_loss = total_loss / len(train_loader)
    run.log({"epoch_loss": avg_loss}, step=epoch)
    run.log_text(f"Epoch {epoch+1}/10, loss={avg_loss:.4f}")

# Summary
run.summary({
    "final_loss": avg_loss,
    "total_epochs": 10,
    "model_path": "mnist_model.pth"
})

run.finish()
print(f"✓ Experiment completed: {run.id}")
"""  # noqa: W293 - as the document has it


class Anything:
    """Stands for whatever of torch is called: a model, a loss that falls, a loader of two batches."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.value = 1.0

    def __call__(self, *args: Any, **kwargs: Any) -> Anything:
        return self

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self

    def item(self) -> np.float32:
        self.value *= 0.9
        return np.float32(self.value)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(0, 0), (1, 1)])

    def __len__(self) -> int:
        return 2


class AnyModule(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small stand-ins for torch and torchvision."""
    for name in ("torch", "torch.nn", "torch.optim", "torch.utils", "torch.utils.data", "torchvision"):
        module = AnyModule(name)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    for name in ("torchvision.datasets", "torchvision.transforms"):
        monkeypatch.setitem(sys.modules, name, AnyModule(name))
        setattr(sys.modules["torchvision"], name.rpartition(".")[2], sys.modules[name])


def test_the_complete_example(script: Script, here: Path, torch: None, capfd: pytest.CaptureFixture[str]) -> None:
    run = script(COMPLETE)["run"]
    assert f"✓ Experiment completed: {run.id}" in capfd.readouterr().out
    assert (run.path, run.status, len(points(run, "epoch_loss"))) == ("cv/mnist/cnn_baseline", "finished", 10)
    assert run["config", "extra", "optimizer"] == "Adam"
    assert run.get_summary()["total_epochs"] == 10
    assert "best_metric_value" not in run.get_summary()
    assert run["code", "saved"] is True
    assert run["datasets", "mnist", "train", "files"] == 1
    assert sum("Epoch" in line for line in logged(run)) == 10


PATTERN_1 = """
import runicorn as rn

run = rn.init(path="cv/resnet50/baseline")
run.set_primary_metric("accuracy", mode="max")

for epoch in range(100):
    loss, acc = train_one_epoch(model)
    run.log({"loss": loss, "accuracy": acc}, step=epoch)

run.finish()
"""
PATTERN_2 = """
import runicorn as rn

run = rn.init(path="training/multi-stage")

for step in range(10):
    run.log({"loss": 1.0}, step=step, stage="warmup")

for step in range(10, 100):
    run.log({"loss": 0.5}, step=step, stage="train")

for step in range(100, 110):
    run.log({"val_loss": 0.3}, step=step, stage="eval")

run.finish()
"""
PATTERN_3 = """
import runicorn as rn

with rn.init(path="training/safe") as run:
    run.set_primary_metric("loss", mode="min")
    
    for epoch in range(100):
        loss = train_one_epoch(model)
        run.log({"loss": loss}, step=epoch)
    
    run.summary({"final_loss": loss})
# Automatically finishes — "failed" if exception, "finished" otherwise
"""  # noqa: W293
PATHS = """
import runicorn as rn
# Good
rn.init(path="cv/classification/resnet50/baseline")
rn.init(path="cv/classification/resnet50/augmented")
rn.init(path="nlp/sentiment/bert-finetuning")

# Avoid
rn.init(path="test")  # Not descriptive
"""
REMEMBER = """
import runicorn as rn
# Option 1: try/finally
run = rn.init(path="demo")
try:
    run.log({"loss": 0.1})
finally:
    run.finish()

# Option 2: context manager (recommended)
with rn.init(path="demo") as run:
    run.log({"loss": 0.1})
"""
QUICK = """
import runicorn as rn

# Initialize
run = rn.init(path="cv/resnet50/v1", alias="baseline")

# Set primary metric
run.set_primary_metric("accuracy", mode="max")

# Log metrics
run.log({"loss": 0.1, "accuracy": 0.95}, step=100, stage="train")

# Log text
run.log_text("Training started")

# Log image
run.log_image("prediction", image_array, step=100)

# Log config, dataset, pretrained model
run.log_config(args=args, extra={"model": "ResNet50"})
run.log_dataset("cifar10", "./data", context="train")
run.log_pretrained("base-model", path_or_uri="resnet50", source_type="torchvision")

# Summary
run.summary({"final_accuracy": 0.95})

# Finish
run.finish()
"""


def test_a_simple_loop(script: Script) -> None:
    run = script(PATTERN_1, train_one_epoch=lambda model: (0.5, 0.7), model=None)["run"]
    assert (len(points(run, "loss")), run.get_summary()["best_metric_step"]) == (100, 0)


def test_stages(script: Script) -> None:
    run = script(PATTERN_2)["run"]
    assert list(points(run, "loss", "warmup")) == list(range(10))
    assert list(points(run, "loss", "train")) == list(range(10, 100))
    assert list(points(run, "val_loss", "eval")) == list(range(100, 110))
    found = run.repo.query_metrics("metric.name == 'loss' and metric.context.stage == 'train'")
    assert [metric.count for metric in found.iter()] == [90]


def test_a_context_manager_with_an_error(script: Script, here: Path) -> None:
    losses = iter([3.0, 2.0, 2.5])
    with pytest.raises(RuntimeError):
        script(PATTERN_3, train_one_epoch=lambda model: next(losses, None) or raising(RuntimeError("nan"))(), model=None)
    [run] = Repo(here).iter_runs()
    assert (run.status, run["summary", "best_metric_value"], "final_loss" in run["summary"]) == ("failed", 2.0, False)


def test_paths_make_a_hierarchy(script: Script, here: Path) -> None:
    script(PATHS)
    repo = Repo(here)
    assert len(repo.query_runs("run.path.startswith('cv/classification/')").hashes()) == 2
    assert len(repo.query_runs("run.experiment == 'nlp/sentiment/bert-finetuning'").hashes()) == 1


def test_a_run_is_not_left_open(script: Script, here: Path) -> None:
    script(REMEMBER)
    assert [run.status for run in Repo(here).iter_runs()] == ["finished"] * 2


def test_the_quick_reference(script: Script) -> None:
    run = script(QUICK, image_array=np.zeros((4, 4, 3), np.uint8), args=argparse.Namespace(lr=0.1))["run"]
    assert points(run, "accuracy", "train") == {100: 0.95}
    assert run["pretrained", "base-model", "source_type"] == "torchvision"
    assert (run["config", "args"], run.get_summary()["final_accuracy"]) == ({"lr": 0.1}, 0.95)


# -- storing once ----

STORING = """
import runicorn as rn
run = rn.init(path="demo", snapshot_code=True)
run.log_dataset("cifar10", "./data", save=True)
run.finish()
"""


@pytest.mark.parametrize("gone", [0, 1])
def test_the_bytes_of_two_runs_are_stored_once_and_either_can_go(script: Script, here: Path, tmp_path: Path, gone: int) -> None:
    (here / "train.py").write_text("print('trained')\n")
    (here / "data" / "cifar10" / "large").write_bytes(bytes(range(256)) * 8192)
    first = script(STORING)["run"]
    blobs = sorted(path for path in (here / ".aimlite" / "blobs").rglob("*") if path.is_file())
    second = script(STORING)["run"]
    assert sorted(path for path in (here / ".aimlite" / "blobs").rglob("*") if path.is_file()) == blobs
    assert first["code", "manifest"] == second["code", "manifest"]
    repo = Repo(here)
    runs = [first, second]
    repo.delete_run(runs.pop(gone).hash, permanent=True)
    [kept] = runs
    kept.restore_code(tmp_path / "code")
    kept.restore_dataset("cifar10", tmp_path / "data")
    assert (tmp_path / "code" / "train.py").read_text() == "print('trained')\n"
    assert (tmp_path / "data" / "cifar10" / "large").stat().st_size == 256 * 8192
    assert repo.check() == []
    repo.delete_run(kept.hash, permanent=True)
    assert [path for path in (here / ".aimlite" / "blobs").rglob("*") if path.is_file()] == []
