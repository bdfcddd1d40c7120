"""Members whose task only the host can verify: one after the other, with one compiled step, as `o1jax train` runs them."""

import collections
import contextlib
import io
import signal

import jax
import numpy as np
import pytest
from compilations import compiled

from o1jax.cli import main
from o1jax.io.run_config import load_sweep
from o1jax.parallel.hosts import EXIT_PREEMPTED, Preemption
from o1jax.rl.learner import rl_learner
from o1jax.rollout import collect as collect_module
from o1jax.rollout import setup as preparation
from o1jax.sweep import host
from o1jax.sweep.cold import cold_starts
from o1jax.sweep.members import RLStart, members_of
from o1jax.sweep.population import MemberGroup

pytestmark = pytest.mark.full

# Programs that all members share, and how often each may be compiled behind the cold starts.
MOST = {
  "jit(first_state)": 1,
  "jit(_run_epochs)": 1,
  "jit(credit_and_experience)": 1,
  "jit(token_scores)": 1,
  "jit(_scores)": 1,
  "jit(_stepped)": 1,
  "jit(_gradient)": 1,
  "jit(_norm_and_product)": 2,  # KL and entropy
  "jit(_noise)": 1,
  "jit(generate)": 3,  # it rolls out, and tests in two ways
}


@pytest.fixture(scope="module", autouse=True)
def no_device_verifier():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("o1jax.tasks.countdown.make_device", lambda *args: None)
    yield


@pytest.fixture(scope="session")
def experiment(experiment):
  """The sweep without what cannot act here: members take a step at a time."""
  return lambda folder, sweep="declared", **more: experiment(
    folder, sweep=f"dataclasses.replace({sweep}, chunk=0)", **more
  )


@pytest.fixture(scope="module")
def swept(tmp_path_factory, experiment):
  """(folder of a sweep, programs compiled behind its cold starts, what it printed, completions that it verified)."""
  folder, before, run_members = tmp_path_factory.mktemp("swept"), collections.Counter(), host.run_members
  verified: list[int] = []

  def after_cold_starts(*args):
    before.update(compiled())
    verified.clear()
    return run_members(*args)

  def counting(runtime, problems, tokens, lengths):
    verified.append(len(tokens))
    return grade(runtime, problems, tokens, lengths)

  grade = collect_module.grade
  with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
    patch.setattr(host, "run_members", after_cold_starts)
    patch.setattr(collect_module, "grade", counting)
    assert main(["sweep", experiment(folder)]) == 0
  return folder / "runs" / "tiny", compiled() - before, " ".join(out.getvalue().split()), sum(verified)


def test_all_members_share_their_compiled_programs(swept) -> None:
  _, made, *_ = swept
  assert {name: made[name] for name, most in MOST.items() if not 0 < made[name] <= most} == {}


def test_what_is_chosen_and_the_expected_time_are_told(swept) -> None:
  _, _, out, _ = swept
  assert "chosen: 4 members one after the other, verified by the host: one in memory " in out
  assert "s a step, about" in out


def test_no_completion_is_verified_to_be_thrown_away(swept, experiment, tmp_path) -> None:
  *_, verified = swept
  members = members_of(load_sweep(experiment(tmp_path), full=False))
  rl = members[0].config.rl
  steps = rl.steps + (
    members[0].config.diagnostics.every > 0
  )  # the last state is diagnosed by a rollout of its own
  assert verified == len(members) * steps * rl.prompts * rl.samples


def test_a_member_is_its_lone_run_bit_for_bit(swept, alone, logged) -> None:
  folder, *_ = swept
  assert logged(folder)["weak-seed1"] == logged(alone.parent)["weak-seed1"][60:]


def test_results_tell_the_last_state_too(swept, found) -> None:
  folder, *_ = swept
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


def test_a_stopped_sweep_goes_on_bitwise(swept, tmp_path, experiment, logged, found, monkeypatch) -> None:
  name, at = "weak-seed1", 63
  folder, *_ = swept
  step_of = host.rl_step

  def stopping(setup, learner, state, step, progress, **rest):
    if (setup.config.name, step) == (name, at):
      signal.raise_signal(signal.SIGTERM)
    return step_of(setup, learner, state, step, progress, **rest)

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
  folder, *_ = swept
  arms = "(Arm('bad', {'rl.optim.lr': 1e30}, 0.5), declared.arms[1])"
  change = f"dataclasses.replace(declared, arms={arms}, seeds=(1,), claim=dataclasses.replace(declared.claim, checks=()))"
  assert main(["sweep", experiment(tmp_path, sweep=change)]) == 0
  rows = logged(tmp_path / "runs" / "tiny")
  assert rows["strong-seed1"] == logged(folder)["strong-seed1"]
  last = rows["bad-seed1"][-1]
  assert not np.isfinite([last["loss"], last["grad_norm"]]).all()
  assert [row["bad_step"] for row in found(tmp_path / "runs" / "tiny")["members"]] == [last["step"], None]


def test_an_adaptive_coefficient_begins_as_the_members_own(tmp_path, experiment) -> None:
  rl = "dataclasses.replace(base.rl, kl=KLConfig(0.1, target=0.1, horizon=100))"
  config = f"dataclasses.replace(base, rl={rl}, sft=SftConfig())"
  members = members_of(load_sweep(experiment(tmp_path, config=config), full=False))
  setup = preparation.prepare(members[0].config, jax.devices()[:1])
  block = MemberGroup(setup, rl_learner(setup.config), tuple(members))
  colds = cold_starts(block, tmp_path, Preemption())
  coefficients = [
    host.begin(block, member, RLStart(colds, {member.name: None})).state.controllers["kl.coef"]
    for member in (members[0], members[2])
  ]
  assert coefficients == [np.float32(0.01), 1.0]
