"""Members whose task only the host can verify: one after the other, with one compiled step, as `o1jax train` runs them."""

import json
import signal

import jax
import numpy as np
import pytest

from o1jax.cli import main
from o1jax.dist.hosts import EXIT_PREEMPTED
from o1jax.evaluate.tests import look
from o1jax.io.run_config import load_sweep
from o1jax.rl.batch import credit_and_experience, token_scores
from o1jax.rl.sample import generate
from o1jax.rl.update import learn
from o1jax.sweep import host
from o1jax.sweep.members import members_of
from o1jax.train import train

COMPILED = {
  "learn": learn,
  "credit": credit_and_experience,
  "scores": token_scores,
  "look": look,
  "generate": generate,
}


@pytest.fixture(scope="module", autouse=True)
def no_device_verifier():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("o1jax.tasks.countdown.make_device", lambda *args: None)
    yield


@pytest.fixture(scope="module")
def swept(tmp_path_factory, experiment):
  """(folder of a sweep, programs that were compiled for it)."""
  folder = tmp_path_factory.mktemp("swept")
  before = {name: program._cache_size() for name, program in COMPILED.items()}
  assert main(["sweep", experiment(folder)]) == 0
  made = {name: program._cache_size() - before[name] for name, program in COMPILED.items()}
  return folder / "runs" / "tiny", made


def test_all_members_share_their_compiled_programs(swept) -> None:
  _, made = swept
  assert made["learn"] == 2  # of the cold start, and of RL
  assert (made["credit"], made["look"], made["scores"]) == (1, 1, 1)
  assert made["generate"] <= 3  # rollouts, tests between steps, final tests


def test_a_member_is_its_lone_run_bit_for_bit(swept, tmp_path, experiment, logged, monkeypatch) -> None:
  folder, _ = swept
  member = members_of(load_sweep(experiment(tmp_path), full=False))[3]
  prepare = host.ev.prepare
  monkeypatch.setattr(host.ev, "prepare", lambda config: prepare(config, jax.devices()[:1]))
  assert train(member.config, resume=False) == 0
  lone = logged(tmp_path / "runs")["strong-seed1"]
  assert logged(folder)["strong-seed1"] == lone[60:]


def test_results_tell_the_last_state_too(swept, found) -> None:
  folder, _ = swept
  rows = found(folder)["members"]
  assert [(row["arm"], row["seed"]) for row in rows] == [
    ("weak", 0),
    ("weak", 1),
    ("strong", 0),
    ("strong", 1),
  ]
  assert all(row["final"]["kl_reverse"] > 0 and "held_out/pass@1" in row["final"] for row in rows)
  assert found(folder)["layout"] == "one member after the other, verified by the host"
  assert found(folder)["findings"][0]["measured"] != "not tested"


@pytest.mark.parametrize(("name", "at"), [("weak-seed1", 63), ("strong-seed0", 61)])
def test_a_stopped_sweep_goes_on_bitwise(
  swept, tmp_path, experiment, logged, found, monkeypatch, name, at
) -> None:
  folder, _ = swept
  step_of = host.rl_step

  def stopping(setup, stage, state, step, cursor, **rest):
    if (setup.config.name, step) == (name, at):
      signal.raise_signal(signal.SIGTERM)
    return step_of(setup, stage, state, step, cursor, **rest)

  monkeypatch.setattr(host, "tell_time", lambda block, colds: None)
  monkeypatch.setattr(host, "rl_step", stopping)
  path = experiment(tmp_path)
  assert main(["sweep", path]) == EXIT_PREEMPTED
  assert logged(tmp_path / "runs" / "tiny")[name][-1]["step"] == at
  monkeypatch.setattr(host, "rl_step", step_of)
  assert main(["sweep", path, "--resume"]) == 0
  assert logged(tmp_path / "runs" / "tiny") == logged(folder)
  assert found(tmp_path / "runs" / "tiny") == found(folder)


def test_a_member_that_is_not_finite_ends_alone(
  swept, tmp_path, experiment, logged, found, monkeypatch
) -> None:
  folder, _ = swept
  monkeypatch.setattr(host, "tell_time", lambda block, colds: None)
  arms = "(Arm('bad', {'rl.optim.lr': 1e30}, 0.5), declared.arms[1])"
  change = f"dataclasses.replace(declared, arms={arms}, seeds=(1,), claim=dataclasses.replace(declared.claim, checks=()))"
  assert main(["sweep", experiment(tmp_path, sweep=change)]) == 0
  rows = logged(tmp_path / "runs" / "tiny")
  assert rows["strong-seed1"] == logged(folder)["strong-seed1"]
  last = rows["bad-seed1"][-1]
  assert not np.isfinite([last["loss"], last["grad_norm"]]).all()
  assert [row["bad_step"] for row in found(tmp_path / "runs" / "tiny")["members"]] == [last["step"], None]


def test_an_adaptive_coefficient_begins_as_the_members_own(tmp_path, experiment, logged, monkeypatch) -> None:
  monkeypatch.setattr(host, "tell_time", lambda block, colds: None)
  kl = "dataclasses.replace(base.rl, kl=KLConfig(0.1, target=0.1, horizon=100))"
  config = f"dataclasses.replace(base, rl={kl}, diagnostics=DiagnosticsConfig(every=0))"
  path = experiment(tmp_path, config=config, sweep="dataclasses.replace(declared, seeds=(0,))")
  assert main(["sweep", path]) == 0
  rows = logged(tmp_path / "runs" / "tiny")
  assert [rows[f"{arm}-seed0"][0]["kl/coef"] for arm in ("weak", "strong")] == [np.float32(0.01), 1.0]


def test_the_expected_time_is_told_before_it_starts(tmp_path, experiment, capsys) -> None:
  path = experiment(tmp_path, sweep="dataclasses.replace(declared, seeds=(0,))")
  assert main(["sweep", path, "--rl.steps", "2", "--sft.steps", "1"]) == 0
  out = " ".join(capsys.readouterr().out.split())
  assert "chosen: 2 members one after the other, verified by the host: one in memory;" in out
  assert json.loads((tmp_path / "runs" / "tiny" / "results.json").read_text())["steps"] == 2
