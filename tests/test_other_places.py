"""A run read by another version, on other devices, from another working directory; what starts on other
devices."""

import dataclasses
import json
import logging
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from o1jax.cli import main
from o1jax.config import (
  ConfigError,
  DiagnosticsConfig,
  EvalConfig,
  Gsm8kConfig,
  LogConfig,
  ModelConfig,
  OptimConfig,
  RLConfig,
  SftConfig,
  TextConfig,
  TrainConfig,
)
from o1jax.io.log import read_metrics
from o1jax.io.run_config import load_experiment, read_run_config
from o1jax.parallel import mesh as mesh_module
from o1jax.rollout import setup as preparation
from o1jax.train import train

pytestmark = pytest.mark.full

ROOT = pathlib.Path(__file__).parents[1]
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))
ROWS = pathlib.Path(__file__).parent / "data" / "gsm8k_rows.jsonl"


def config(**changes: Any) -> TrainConfig:
  """A run of relative names alone: its folder, its rows, its data."""
  base = TrainConfig(
    name="tiny", model=ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32),
    task=Gsm8kConfig(path="rows.jsonl", held_out=2, data_dir="prepared", text=TextConfig(vocab=400)),
    sft=SftConfig(steps=2, rows=8, length=512, optim=OptimConfig(lr=2e-3, warmup_steps=1)),
    rl=RLConfig(max_prompt=256),
    eval=EvalConfig(problems=2, final_problems=2, samples=2, control_samples=1, batch=8, max_tokens=8,
                    bootstrap=10),
    diagnostics=DiagnosticsConfig(every=0), log=LogConfig(progress=False),
  )  # fmt: skip
  return dataclasses.replace(base, **changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Iterator[pathlib.Path]:
  """The working directory of a finished run."""
  home = tmp_path_factory.mktemp("home")
  shutil.copy(ROWS, home / "rows.jsonl")
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(home)
    assert train(config(), resume=False) == 0
  return home


@pytest.fixture
def run(made, tmp_path) -> pathlib.Path:
  """A copy of the run's folder, whose rows stay where they were."""
  return shutil.copytree(made / "runs" / "tiny", tmp_path / "tiny")


def edited(run: pathlib.Path, change: Any) -> None:
  """Writes config.json with what `change` makes of its object."""
  path = run / "config.json"
  data = json.loads(path.read_text())
  change(data)
  path.write_text(json.dumps(data))


def parameters(run: pathlib.Path) -> list[bytes]:
  _, params, _ = preparation.load_run(str(run))
  return [np.asarray(a).tobytes() for a in jax.tree.leaves(params)]


# Another version


def without(*names: str) -> Any:
  """A change that takes fields away, by their dotted names."""

  def change(data: dict) -> None:
    for name in names:
      *above, last = name.split(".")
      inner = data
      for part in above:
        inner = inner[part]
      del inner[last]

  return change


def another_field(data: dict) -> None:
  data["rl"]["colour"] = {"hue": 3}
  data["task"]["flavour"] = 1


MISSING = "{config}: of another version: {names} (missing, so that the default holds)"
VERSIONS = {
  "a field": (without("rl.dynamic_sampling"), MISSING.format(config="{config}", names="rl.dynamic_sampling")),
  "fields": (without("eval.top_k", "log.wandb", "model.remat"),
             MISSING.format(config="{config}", names="model.remat, eval.top_k, log.wandb")),
  "a group": (without("diagnostics"), MISSING.format(config="{config}", names="diagnostics")),
  "of the task": (without("task.unverified"), MISSING.format(config="{config}", names="task.unverified")),
  "unknown ones": (another_field,
                   "{config}: of another version: task.flavour, rl.colour (no field, left aside)"),
  "the data's hash": (without("meta.data_hash"),
                      "{config}: meta.data_hash is missing: whether the problems are the run's is not"
                       " known"),
}  # fmt: skip


def old_names(data: dict) -> None:
  data["rl"]["refill"] = data["rl"].pop("dynamic_sampling")


def test_a_run_of_old_names_is_refused(run, caplog, capsys) -> None:
  edited(run, old_names)
  assert main(["eval", str(run)]) == 2
  message = (
    "rl.refill: was written by o1jax 0.1, and is `rl.dynamic_sampling` since: read the run with that version"
  )
  assert capsys.readouterr().err.splitlines() == [f"error: {run / 'config.json'}: {message}"]
  assert not caplog.records


@pytest.mark.parametrize("name", VERSIONS)
def test_a_run_of_another_version_is_read_and_told_in_one_line(run, caplog, name) -> None:
  change, told = VERSIONS[name]
  edited(run, change)
  with caplog.at_level(logging.WARNING):
    assert main(["eval", str(run)]) == 0
  lines = [
    r.getMessage() for r in caplog.records if r.name.startswith("o1jax.") and "config.json" in r.getMessage()
  ]
  assert lines == [told.format(config=run / "config.json")]


def test_a_run_goes_on_under_another_version(made, tmp_path, caplog) -> None:
  home = tmp_path / "home"
  shutil.copytree(made, home)
  run = home / "runs" / "tiny"
  edited(run, without("rl.dynamic_sampling", "diagnostics.samples", "meta.data_hash"))
  before = parameters(run)
  assert train(config(out=str(home / "runs")), resume=True) == 0
  assert parameters(run) == before


def test_what_has_no_default_is_still_missing(run) -> None:
  edited(run, without("model.width"))
  with pytest.raises(ConfigError, match="config.json: model.width: is missing"):
    read_run_config(str(run))


# Other devices


def on(count: int, monkeypatch) -> None:
  """As many devices as that for what makes a mesh of all."""
  some = jax.devices()[:count]
  monkeypatch.setattr(mesh_module.jax, "devices", lambda *args: some)


def trained_elsewhere(data: dict) -> None:
  """Options of training that fit neither these devices nor, by what is refused, this version."""
  data["mesh"] = {"data": 4, "fsdp": 4, "tensor": 1}
  data["rl"] |= {"steps": 3, "prompts": 7, "epochs": 4}
  data["sft"]["rows"] = 5
  data["task"]["sha256"] = ["0" * 64, "1" * 64]
  data["sft"]["optim"]["warmup_steps"] = 50


@pytest.mark.parametrize(("count", "used"), [(1, 1), (2, 2), (3, 2), (7, 4), (8, 8)])
def test_a_run_of_any_devices_is_read_on_any(run, monkeypatch, capsys, count, used) -> None:
  expected = parameters(run)
  assert main(["eval", str(run)]) == 0
  figures = json.loads((run / "eval.json").read_text())
  for change in (lambda data: None, trained_elsewhere):
    edited(run, change)
    on(count, monkeypatch)
    setup, _, _ = preparation.load_run(str(run))
    assert setup.mesh.size == used and parameters(run) == expected
    assert main(["eval", str(run)]) == 0
    again = json.loads((run / "eval.json").read_text())
    assert again["pass@1"] == figures["pass@1"] and again["mean_length"] == pytest.approx(
      figures["mean_length"]
    )
    assert main(["sample", str(run), "--prompt", "How many?"]) == 0
  assert "Error" not in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 2, 4, 8])
@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_starts_on_so_many_devices(path, count) -> None:
  started = load_experiment(str(path))
  started.validate()
  mesh = preparation.mesh_of(started, jax.devices()[:count])
  rows = (started.sft.rows, started.rl.prompts // started.rl.chunks, started.eval.batch)
  assert 1 <= mesh.size <= count and not any(n % mesh.size for n in rows)
  one = dataclasses.replace(started, mesh=dataclasses.replace(started.mesh, data=1))
  assert preparation.mesh_of(one, jax.devices()[:count]).size == 1


def test_rows_are_looked_at_before_any_reference_is_verified(monkeypatch) -> None:
  monkeypatch.setattr(preparation, "build_task", lambda cfg: pytest.fail("the task was built"))
  smoke = load_experiment(str(ROOT / "experiments" / "gsm8k_smoke.py"))
  for changes, field in (({"data": 8}, "rl.prompts"), ({"data": 1, "tensor": 8}, "model.kv_heads")):
    asked = dataclasses.replace(smoke, mesh=dataclasses.replace(smoke.mesh, **changes))
    with pytest.raises(ConfigError, match=field):
      preparation.prepare(asked)


# Another working directory


def test_a_run_is_read_from_another_working_directory(made, run, tmp_path, monkeypatch) -> None:
  paths = json.loads((run / "config.json").read_text())["meta"]["paths"]
  assert paths == {"rows.jsonl": str(made / "rows.jsonl"), "prepared": str(made / "prepared")}
  assert read_run_config(str(run)).task.path == "rows.jsonl"
  (tmp_path / "elsewhere").mkdir()
  monkeypatch.chdir(tmp_path / "elsewhere")
  assert main(["eval", str(run)]) == 0 and list((tmp_path / "elsewhere").iterdir()) == []
  assert train(config(out=str(run.parent)), resume=True) == 0
  other = dataclasses.replace(config().task, path=str(ROWS))
  with pytest.raises(ConfigError, match="was started with another `task.path`"):
    train(config(out=str(run.parent), task=other), resume=True)


def test_files_that_have_moved_are_looked_for_here(run, tmp_path, monkeypatch) -> None:
  edited(run, lambda data: data["meta"].update(paths={"rows.jsonl": "/nowhere/rows.jsonl"}))
  monkeypatch.chdir(tmp_path)
  shutil.copy(ROWS, tmp_path / "rows.jsonl")
  assert main(["eval", str(run)]) == 0


def test_a_tilde_is_the_home_folder(made, tmp_path, monkeypatch) -> None:
  shutil.copy(ROWS, tmp_path / "rows.jsonl")
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.chdir(tmp_path)
  task = dataclasses.replace(config().task, path="~/rows.jsonl", data_dir="~/prepared")
  assert train(config(out="~/there", task=task), resume=False) == 0
  assert (tmp_path / "there" / "tiny" / "summary.json").exists() and not (tmp_path / "~").exists()
  assert read_run_config("there/tiny").task.path == str(tmp_path / "rows.jsonl")


# The learning rate


def test_the_learning_rate_of_each_step_is_logged(made) -> None:
  rows = read_metrics(made / "runs" / "tiny" / "metrics.jsonl")
  assert [row["learning_rate"] for row in rows] == pytest.approx([0.0, 2e-3])
