"""A sweep from its members to its report: each member is its lone run, whatever lies beside it and however."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from xla_flags import as_users_have_it

from o1jax.cli import main
from o1jax.io.checkpoint import Checkpoints
from o1jax.io.run_config import read_run_config
from o1jax.rl.learner import first_state, rl_learner, sft_learner
from o1jax.rollout import setup as preparation
from o1jax.sweep import placement

# A diagnosis draws its step's rollout anew in a sweep, and the words of completions are the host's alone.
OF_THE_LOOP = ("flops/diagnostics", "repetition_rate", "reflection/")
PLAIN = "dataclasses.replace(base, diagnostics=DiagnosticsConfig(every=0))"
MEMBERS = [("weak", 0), ("weak", 1), ("strong", 0), ("strong", 1)]


def assert_near(ours: list[dict], theirs: list[dict], tolerance: float = 1e-5) -> None:
  """Every line of `theirs` in every metric that a sweep logs."""
  for one, other in zip(ours, theirs, strict=True):
    for name in one.keys() & other.keys() - {"stage"}:
      if not name.startswith(OF_THE_LOOP):
        np.testing.assert_allclose(one[name], other[name], rtol=tolerance, atol=tolerance, err_msg=name)


def saved_states(folder: pathlib.Path, block: str, step: int, rows: int):
  """The states of a block's members, as its checkpoint holds them."""
  _, like = lone_state(folder / "weak-seed0")
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  place = lambda a: jax.ShapeDtypeStruct((rows, *a.shape), a.dtype, sharding=here)
  with Checkpoints(folder / "checkpoints" / block, keep=1) as saved:
    return jax.device_get(saved.restore(step, jax.tree.map(place, like))[0])


def lone_state(run: pathlib.Path):
  """(setup on one device, shapes of its state in the RL stage)."""
  setup = preparation.prepare(read_run_config(str(run)), jax.devices()[:1])
  learner = rl_learner(setup.config)
  params = jax.eval_shape(lambda: preparation.fresh_state(setup, learner, None).params)
  return setup, jax.eval_shape(functools.partial(first_state, learner), params)


def test_a_sweep_writes_what_a_report_reads(whole, logged, found) -> None:
  assert [(row["arm"], row["seed"]) for row in found(whole)["members"]] == MEMBERS
  for member, rows in logged(whole).items():
    assert [row["step"] for row in rows] == [61, 62, 63, 64], member
    assert [row["step"] for row in rows if "kl_reverse" in row] == [61, 63]
    assert rows[0]["kl_reverse"] == 0 < rows[2]["kl_reverse"]
    assert all(row["grad_norm"] > 0 for row in rows) and any(row["accuracy"] > 0 for row in rows), member
  first = found(whole)["members"][0]
  assert first["bad_step"] is None and len(first["by_problem"]["held_out"]) == 8
  assert {"kl_reverse", "held_out/pass@1", "last/reward", "train_flops"} <= first["final"].keys()
  assert [f["check"].partition(":")[0] for f in found(whole)["findings"]] == ["kl_reverse", "held_out/pass@1"]
  assert (whole / "report.html").stat().st_size > 10_000
  assert (whole.parents[1] / "RESULTS.md").read_text().count("| `experiment` |") == 2


@pytest.mark.full
def test_a_member_is_its_lone_run(whole, alone, logged) -> None:
  rows = logged(alone.parent)["weak-seed1"]
  assert_near(logged(whole)["weak-seed1"], rows[60:])
  assert rows[-1]["num_tokens"] > rows[59]["num_tokens"] > 0  # the cold start's count too


@pytest.mark.bitwise
def test_a_member_is_its_lone_run_bit_for_bit(whole, alone, logged) -> None:
  ours, lone = logged(whole)["weak-seed1"], logged(alone.parent)["weak-seed1"][60:]
  for mine, theirs in zip(ours, lone, strict=True):
    shared = [name for name in mine.keys() & theirs.keys() if not name.startswith(OF_THE_LOOP)]
    assert len(shared) > 30
    assert {name: mine[name] for name in shared} == {name: theirs[name] for name in shared}


@pytest.mark.full
def test_a_sweeps_cold_start_is_a_runs(whole, alone) -> None:
  folder = next((whole / "cold_start").glob("seed1-*"))
  setup, _ = lone_state(alone)
  like = preparation.fresh_state(setup, sft_learner(setup.config, 60), None)
  states = []
  for place in (folder, alone / "cold_start"):
    with Checkpoints(place, keep=1) as saved:
      states.append(saved.restore(60, like))
  (ours, where), (theirs, there) = states
  assert {**where, "seconds": 0} == {**there, "seconds": 0}
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_array_equal(a, b)


LAYOUTS = {
  "one vmap of two after another": ("vmapped=2", "vmap of 2, the vmaps one after the other, 4 members on each of 1"),
  "what a measurement chooses": ("vmapped=0", ""),
}  # fmt: skip


def assert_same_sweep(folder: pathlib.Path, whole: pathlib.Path, logged, found) -> None:
  """The same members with the same figures but for rounding, and nobody else."""
  assert [(row["arm"], row["seed"]) for row in found(folder)["members"]] == MEMBERS
  assert logged(folder).keys() == logged(whole).keys()
  for member, rows in logged(folder).items():
    assert_near(rows, logged(whole)[member])
  for mine, other in zip(found(folder)["members"], found(whole)["members"], strict=True):
    assert mine["by_problem"] == other["by_problem"]


@pytest.mark.full
@pytest.mark.parametrize(
  "kind",
  ["what a measurement chooses", pytest.param("one vmap of two after another", marks=pytest.mark.slow)],
)
def test_a_layout_changes_no_figure(
  whole, tmp_path, experiment, logged, found, capsys, monkeypatch, kind
) -> None:
  monkeypatch.setattr(placement, "TRIED_SHARE", 1.0)  # that a sweep of two chunks tries both
  change, told = LAYOUTS[kind]
  path = experiment(tmp_path, config=PLAIN, sweep=f"dataclasses.replace(declared, {change})")
  assert main(["sweep", path]) == 0
  out, folder = " ".join(capsys.readouterr().out.split()), tmp_path / "runs" / "tiny"
  chosen = found(folder)["layout"]
  assert chosen.startswith(told)
  assert f"chosen: {chosen.partition(' (differ')[0]}" in out
  assert "fit into memory" in out and "s of steps" in out
  assert_same_sweep(folder, whole, logged, found)
  if "vmap of" in chosen:
    assert "differ from lone runs by up to" in chosen and "over the first 2 steps, within 1e-05" in out
  if kind == "what a measurement chooses":
    assert "layout: lax.map, 4 members" in out and "layout: vmap of 4, 4 members" in out


@pytest.mark.slow
def test_members_that_fill_up_devices_and_blocks_change_no_figure(
  whole, tmp_path, experiment, logged, found, monkeypatch, capsys
) -> None:
  """Four members on three devices, of which three fit into memory: two blocks, the second filled up."""
  monkeypatch.setattr(placement, "members_that_fit", lambda fleet, share: 3)
  path = experiment(tmp_path, config=PLAIN, sweep="dataclasses.replace(declared, devices=3)")
  assert main(["sweep", path]) == 0
  out, folder = " ".join(capsys.readouterr().out.split()), tmp_path / "runs" / "tiny"
  assert "chosen: lax.map, 1 members on each of 3 device(s)" in out
  assert "2 blocks of 3 one after the other" in out
  assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["block0-0", "block0-1"]
  assert_same_sweep(folder, whole, logged, found)


@pytest.mark.full
def test_a_member_that_is_not_finite_freezes_alone(whole, tmp_path, experiment, logged, found) -> None:
  arms = "(declared.arms[0], Arm('strong', {'rl.kl.coef': 1.0, 'rl.optim.lr': 1e30}, 1.0))"
  assert main(["sweep", experiment(tmp_path, sweep=f"dataclasses.replace(declared, arms={arms})")]) == 0
  folder = tmp_path / "runs" / "tiny"
  for seed in (0, 1):
    assert logged(folder)[f"weak-seed{seed}"] == logged(whole)[f"weak-seed{seed}"]
    assert [row["step"] for row in logged(folder)[f"strong-seed{seed}"]] == [61, 62]
    last = logged(folder)[f"strong-seed{seed}"][-1]
    assert not np.isfinite([last["loss"], last["grad_norm"]]).all()
  assert [row["bad_step"] for row in found(folder)["members"]] == [None, None, 62, 62]
  assert "strong seed 0 at step 62" in found(folder)["findings"][1]["reading"]
  states = saved_states(folder, "block0-0", 64, 4)
  assert states.step.tolist() == [4, 4, 1, 1]
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states.params))


@pytest.mark.full
def test_members_that_differ_in_what_is_static_are_programs_of_their_own(
  tmp_path, experiment, logged
) -> None:
  arms = "(Arm('short', {'rl.steps': 2}), Arm('long', {}))"
  change = (
    f"dataclasses.replace(declared, arms={arms}, seeds=(0,), claim=dataclasses.replace(claim, checks=()))"
  )
  assert main(["sweep", experiment(tmp_path, config=PLAIN, sweep=change)]) == 0
  rows = logged(tmp_path / "runs" / "tiny")
  assert [len(rows[name]) for name in ("short-seed0", "long-seed0")] == [2, 4]
  assert_near(rows["short-seed0"], rows["long-seed0"][:2])


@pytest.mark.slow
def test_bitwise_cases_hold_under_the_optimiser() -> None:
  """Without it LLVM rounds a product and its sum once or twice by what stands around them, so these run on their own."""
  command = [
    sys.executable,
    "-m",
    "pytest",
    "-q",
    "-n",
    "0",
    "-m",
    "bitwise",
    "-p",
    "no:cacheprovider",
    __file__,
  ]
  done = subprocess.run(
    command, env={**os.environ, "XLA_FLAGS": as_users_have_it(8)}, capture_output=True, text=True
  )
  assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-4000:]
