"""A run on a mesh and on one device: where its state lies, what is compiled and how often, and how much is alive at once."""

import functools
import gc
import json
import shutil

import jax
import pytest
from compilations import compiled

from o1jax import train as train_module
from o1jax.config import (
  CheckpointConfig,
  CountdownConfig,
  DiagnosticsConfig,
  EvalConfig,
  KLConfig,
  LogConfig,
  MeshConfig,
  ModelConfig,
  RLConfig,
  SftConfig,
  TrainConfig,
)
from o1jax.model.transformer import init_params
from o1jax.parallel.sharding import param_shardings
from o1jax.rollout import setup as preparation
from o1jax.train import train
from o1jax.types import TrainState

pytestmark = pytest.mark.full


def config(
  out, mesh: MeshConfig, *, width: int = 16, sft: SftConfig = SftConfig(), controls=False, **rl
) -> TrainConfig:
  return TrainConfig(
    name="tiny", out=str(out), mesh=mesh, sft=sft, controls=controls,
    model=ModelConfig(width=width, layers=2, heads=2, kv_heads=1, head_dim=8, mlp=2 * width, scan_layers=True),
    task=CountdownConfig(count=2, max_number=4, max_value=8, max_target=6, held_out=8, max_tries=2),
    rl=RLConfig(**{**dict(steps=4, prompts=8, samples=2, max_prompt=5, max_tokens=12, pad_multiple=0), **rl}),
    eval=EvalConfig(final_problems=8, samples=1, batch=8, max_tokens=12, bootstrap=50),
    diagnostics=DiagnosticsConfig(every=0), checkpoint=CheckpointConfig(every=2), log=LogConfig(progress=False),
  )  # fmt: skip


@pytest.fixture(params=[1, 8], ids=["1 device", "8 devices"])
def mesh(request, monkeypatch) -> MeshConfig:
  """A mesh (1, n, 1) of as many of the suite's devices."""
  few = functools.partial(preparation.prepare, devices=jax.devices()[: request.param])
  monkeypatch.setattr(preparation, "prepare", few)
  return MeshConfig(1, request.param, 1)


def test_a_state_lies_as_its_parameters_and_a_step_is_compiled_once(mesh, tmp_path, monkeypatch) -> None:
  """Also behind a resume; with a reference and the stage's first parameters, which both lie as the policy's."""
  states: list[TrainState] = []

  def watched(*args, step_of=train_module.rl_step, **given):
    states.append(jax.tree.map(lambda a: (a.sharding, a.ndim), args[2]))
    result = step_of(*args, **given)
    states.append(jax.tree.map(lambda a: (a.sharding, a.ndim), result.state))
    return result

  monkeypatch.setattr(train_module, "rl_step", watched)
  run = config(
    tmp_path, mesh, kl=KLConfig(0.1, reference="ema", ema=0.5), l2_init=0.1, chunks=1 + (mesh.fsdp == 1)
  )
  before = compiled()
  assert train(run, resume=False) == 0
  made = compiled() - before
  assert {name: made[f"jit({name})"] for name in ("_run_epochs", "token_scores", "credit_and_experience")} == {
    "_run_epochs": 1, "token_scores": 1, "credit_and_experience": 1,
  }  # fmt: skip
  assert made["jit(generate)"] == 2  # to learn from, and at the end to evaluate
  shutil.rmtree(tmp_path / "tiny" / "checkpoints" / "4")
  before = compiled()
  assert train(run, resume=True) == 0
  made = compiled() - before
  assert made["jit(_run_epochs)"] == 1 and made["jit(generate)"] == made["jit(_seed_params)"] == 0
  assert len(states) == 2 * (4 + 2)
  setup = preparation.prepare(run)
  lies = param_shardings(
    jax.eval_shape(lambda key: init_params(setup.model, key), jax.random.key(0)), setup.mesh
  )
  for state in states:
    adam = state.opt_state.inner_state[1][0]
    for tree in (state.params, state.ref_params, state.init_params, adam.mu, adam.nu):
      jax.tree.map(lambda wanted, got: _same(wanted, *got), lies, tree)


def _same(wanted: jax.sharding.Sharding, got: jax.sharding.Sharding, ndim: int) -> None:
  assert got.is_equivalent_to(wanted, ndim), (wanted, got)


@pytest.mark.parametrize("mesh", [1], indirect=True)
def test_no_state_is_held_beside_the_one_in_use(mesh, tmp_path, monkeypatch) -> None:
  """Arrays alive, in sizes of the parameters: 3 with two moments, 4 with RL's reference; and the controls come last."""
  held: list[tuple[str, float]] = []
  before = alive()

  summaries: list[dict] = []

  def watched(name: str, program):
    def call(setup, stage, state, *args, **given):
      held.append((name, (alive() - before) / sum(a.nbytes for a in jax.tree.leaves(state.params))))
      if name == "sft_step" and "rl_step" in dict(held):  # the control's
        summaries.append(json.loads((tmp_path / "tiny" / "summary.json").read_text()))
      return program(setup, stage, state, *args, **given)

    return call

  for name in ("sft_step", "rl_step"):
    monkeypatch.setattr(train_module, name, watched(name, getattr(train_module, name)))
  sft = SftConfig(steps=2, rows=8, length=48)
  run = config(tmp_path, mesh, width=128, sft=sft, controls=True, kl=KLConfig(0.1), l2_init=0.1)
  assert train(run, resume=False) == 0
  most = {name: max(size for other, size in held if other == name) for name in ("sft_step", "rl_step")}
  assert most["sft_step"] < 3.2 and most["rl_step"] < 4.2
  assert summaries and all(told["final"]["problems"] == 8 and not told["controls"] for told in summaries)


def alive() -> int:
  """Bytes of all arrays that are held on one device; two views of a buffer are one."""
  gc.collect()
  return sum({array.unsafe_buffer_pointer(): array.nbytes for array in jax.live_arrays()}.values())
