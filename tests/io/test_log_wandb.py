"""What wandb would be told, and the one line where it cannot be."""

import json
import sys
import types

import pytest

from o1jax.config import ConfigError
from o1jax.io.log import RunLog, read_metrics


class FakeError(Exception):
  """Stands in for wandb.Error."""


class FakeWandb(types.ModuleType):
  """A wandb that remembers what it is told, or refuses."""

  Error = FakeError

  def __init__(self, refusal: str | None = None):
    super().__init__("wandb")
    self.refusal, self.options, self.logged, self.finished = refusal, {}, [], 0

  def init(self, **options):
    if self.refusal:
      raise FakeError(self.refusal)
    self.options = options
    return self

  def log(self, values, step):
    self.logged.append((step, values))

  def finish(self):
    self.finished += 1


@pytest.fixture
def folder(tmp_path):
  path = tmp_path / "run"
  path.mkdir()
  (path / "config.json").write_text(json.dumps({"seed": 3}))
  return path


def test_wandb_is_told_the_runs_name_its_configuration_and_each_step(folder, monkeypatch) -> None:
  fake = FakeWandb()
  monkeypatch.setitem(sys.modules, "wandb", fake)
  with RunLog(folder, resume_step=None, wandb="project") as log:
    log.metrics(1, "sft", {"loss": 2.0})
    log.metrics(2, "rl", {"reward": 0.5})
  options = {"project": "project", "id": "run", "name": "run", "dir": str(folder), "config": {"seed": 3}}
  assert fake.options == {**options, "resume": "never"}
  assert fake.logged == [(1, {"sft/loss": 2.0}), (2, {"rl/reward": 0.5})]
  assert fake.finished == 1
  with RunLog(folder, resume_step=0, wandb="project"):
    pass
  assert fake.options["resume"] == "allow"


def test_without_a_project_wandb_is_not_even_imported(folder, monkeypatch) -> None:
  monkeypatch.setitem(sys.modules, "wandb", None)
  with RunLog(folder, resume_step=None) as log:
    log.metrics(1, "sft", {"loss": 2.0})
  assert [row["loss"] for row in read_metrics(folder / "metrics.jsonl")] == [2.0]


@pytest.mark.parametrize(
  ("module", "match"),
  [
    (None, r"log.wandb: needs the package: pip install 'o1jax\[wandb\]'"),
    (FakeWandb("not logged in"), "log.wandb: not logged in"),
  ],
)
def test_what_wandb_cannot_do_is_one_line(folder, monkeypatch, module, match) -> None:
  monkeypatch.setitem(sys.modules, "wandb", module)
  with pytest.raises(ConfigError, match=match):
    RunLog(folder, resume_step=None, wandb="project")
