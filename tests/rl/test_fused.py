"""Fused steps are the stepwise loop's, bit for bit; members are their lone runs; nothing leaves the device between steps."""

import dataclasses
import functools
import os
import subprocess
import sys
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from xla_flags import as_users_have_it

from o1jax.config import (
  AdvantageConfig,
  CountdownConfig,
  CriticConfig,
  KLConfig,
  LossConfig,
  ModelConfig,
  OptimConfig,
  RLConfig,
  TrainConfig,
)
from o1jax.model.transformer import Decoder, init_params
from o1jax.rl.draw import greedy, stream_key
from o1jax.rl.dynamic_sampling import dynamic_sampling_stats, fill, slot_choice, zero_std
from o1jax.rl.experience import prompt_batch
from o1jax.rl.fused import (
  MEMBER,
  FusedProgram,
  StepInputs,
  StepOutputs,
  fused,
  over_members,
  sample_on_device,
)
from o1jax.rl.generate import generate
from o1jax.rl.learner import first_state, hyperparams, rl_learner
from o1jax.rl.metrics import learned_stats, rollout_stats
from o1jax.rl.sampler import SampleConfig
from o1jax.rl.step import LearnerInputs, train_step
from o1jax.types import PromptBatch, Reward, RolloutBatch, divided

VOCAB, LP, R, P, G, STEPS = 24, 5, 20, 2, 4, 20
STOP = 2
MODEL = ModelConfig(width=16, layers=2, heads=2, kv_heads=1, head_dim=8, mlp=32, vocab=VOCAB)
CLIP = LossConfig("ppo_clip", clip_low=0.2, clip_high=0.28)
KINDS = {
  "grpo with a reference": RLConfig(kl=KLConfig(0.05), entropy=0.01),
  "four clipped steps, EMA": RLConfig(
    epochs=2, minibatches=2, loss=CLIP, kl=KLConfig(0.05, "k2", reference="ema", ema=0.1)
  ),
  "remax, refilled, KL, resets": RLConfig(
    dynamic_sampling=1,
    advantage=AdvantageConfig("remax"),
    kl=KLConfig(0.1, "k2", reference="reset", reset_every=3, reset_optimizer=True),
  ),
  "a critic of its own, refilled, KL in the reward": RLConfig(
    dynamic_sampling=2,
    epochs=2,
    loss=CLIP,
    advantage=AdvantageConfig("gae"),
    critic=CriticConfig("own", clip=0.2),
    kl=KLConfig(0.1, "k1", placement="reward"),
  ),  # fmt: skip
}


def verify(tokens: jax.Array, valid: jax.Array, arrays: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Right where the problem's token was drawn."""
  samples = tokens.shape[0] // arrays["token"].shape[0]
  wanted = jnp.repeat(arrays["token"], samples)[:, None]
  correct = ((tokens == wanted) & valid).any(1)
  return correct.astype(jnp.float32), correct, correct


def settings(kind: str, lr: float = 3e-3) -> TrainConfig:
  rl = dataclasses.replace(
    KINDS[kind], steps=STEPS, prompts=P, samples=G, max_prompt=LP, max_tokens=R, pad_multiple=0,
    optim=OptimConfig(lr=lr, warmup_steps=3, weight_decay=0.01),
  )  # fmt: skip
  run = TrainConfig("test", MODEL, CountdownConfig(), rl=rl)
  run.validate()
  return run


def problems() -> PromptBatch:
  rng = np.random.default_rng(0)
  pool = prompt_batch(
    rng.integers(4, VOCAB, (30, LP)).tolist(), list(range(30)), list(map(str, range(30))), LP
  )
  return dataclasses.replace(pool, task_arrays={"token": rng.integers(4, VOCAB, 30)})


POOL = problems()


@functools.cache
def program(kind: str, axis: str | None = None) -> FusedProgram:
  run = settings(kind)
  sampling = SampleConfig(R, (STOP,), member_axis=axis)
  return FusedProgram(rl_learner(run), sampling, verify)


def order_of(kind: str, seed: int) -> np.ndarray:
  most = STEPS * P * (1 + KINDS[kind].dynamic_sampling)
  return np.random.default_rng(seed).integers(0, 30, most).astype(np.int32)


def feed(kind: str, seed: int, steps: int = STEPS, lr: float = 3e-3) -> StepInputs:
  run = settings(kind, lr)
  keys = lambda stream: jnp.stack([stream_key(seed, stream, s) for s in range(1, steps + 1)])
  each = [hyperparams(run, rl_learner(run), step) for step in range(1, steps + 1)]
  held = jax.tree.map(lambda *a: jnp.stack(a), *each)
  rounds = keys("dynamic_sampling") if run.rl.dynamic_sampling else None
  return StepInputs(order_of(kind, seed), keys("train"), keys("minibatch"), held, rounds)


first_params = jax.jit(lambda key: nn.meta.unbox(init_params(Decoder(MODEL), key)))


def begin(kind: str, seed: int):
  return first_state(program(kind).learner, first_params(stream_key(seed, "init", 0)))


def tallied(groups: RolloutBatch) -> dict:
  return rollout_stats(groups.rollout, groups.verified, groups.correct)


def loop(kind: str, seed: int):
  """(state, metrics) of the stepwise loop: each phase a program of its own, verdicts through the host."""
  told, state, run, at = [], begin(kind, seed), program(kind), 0
  config, order = settings(kind), order_of(kind, seed)
  for i in range(STEPS):
    strengths = hyperparams(config, run.learner, i + 1)
    key, again, split = (
      stream_key(seed, stream, i + 1) for stream in ("train", "dynamic_sampling", "minibatch")
    )
    draw = functools.partial(stepwise, run, state.params, strengths)
    problems = lambda at: jax.tree.map(lambda a: a[order[at : at + P]], POOL)
    groups = first_draw = draw(problems(at), key)
    at, rounds = at + P, 0
    while rounds < run.learner.cfg.dynamic_sampling and zero_std(groups.verified).any():
      fresh = draw(problems(at), jax.random.fold_in(again, rounds))
      groups = fill(groups, fresh, slot_choice(groups.verified, fresh.verified))
      at, rounds = at + P, rounds + 1
    first = None
    if run.learner.cfg.advantage.kind == "remax":
      greedily = dataclasses.replace(run.sampling, draw=greedy)
      first = draw(groups.prompts, key, samples=1, cfg=greedily).verified[:, 0]
    inputs = LearnerInputs(groups.rollout, Reward(groups.verified), first, split, strengths)
    state, learned = train_step(state, inputs, learner=run.learner)
    stats = {**learned, **tallied(first_draw)}
    stats |= (
      {**learned_stats(tallied(groups)), **dynamic_sampling_stats(groups.verified, rounds)}
      if run.learner.cfg.dynamic_sampling
      else {}
    )
    told.append(divided(stats))
  return state, {name: np.ma.stack([step[name] for step in told]).filled(np.nan) for name in told[0]}


def stepwise(run: FusedProgram, params, strengths, batch, key, samples: int = G, cfg=None) -> RolloutBatch:
  """A rollout and its verdicts."""
  rollout = generate(
    params,
    batch,
    key,
    strengths["temperature"],
    model=run.learner.model,
    samples=samples,
    cfg=cfg or run.sampling,
  )
  tokens, valid = (np.asarray(a[:, LP:]) for a in (rollout.tokens, rollout.valid))
  reward, correct, _ = verify(tokens, valid, batch.task_arrays)
  return RolloutBatch(batch, rollout, reward.reshape(P, samples), correct, np.arange(P))


@functools.cache
def compiled(kind: str):
  """All steps of one member; compiled once for all seeds."""
  return jax.jit(functools.partial(fused, program=program(kind)))


@functools.cache
def alone(kind: str, seed: int):
  return jax.device_get(compiled(kind)(begin(kind, seed), feed(kind, seed), POOL))


def metrics_of(told: StepOutputs) -> dict[str, np.ndarray]:
  return {name: value.filled(np.nan) for name, value in divided(told.stats).items()}


def assert_same(left, right) -> None:
  for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
    np.testing.assert_array_equal(a, b)


LONG = ("four clipped steps, EMA", "a critic of its own, refilled, KL in the reward")


@pytest.mark.bitwise
@pytest.mark.parametrize(
  "kind", [pytest.param(k, marks=pytest.mark.slow if k in LONG else ()) for k in KINDS]
)
def test_fused_steps_are_the_loop_bit_for_bit(kind) -> None:
  state, told = alone(kind, 0)
  stepwise, metrics = loop(kind, 0)
  assert told.first_bad == STEPS and state.step == STEPS
  ours = metrics_of(told)
  assert ours.keys() == metrics.keys()
  for name, values in metrics.items():
    np.testing.assert_array_equal(ours[name], values, err_msg=name)
  assert_same(state, jax.device_get(stepwise))
  assert len(set(ours["reward"])) > 2  # something was learned from


@pytest.mark.full
@pytest.mark.parametrize(
  ("marks", "count"),
  [
    ("bitwise and not slow", len(KINDS) - len(LONG) + 2),
    pytest.param("bitwise and slow", len(LONG), marks=pytest.mark.slow),
  ],
)
def test_bitwise_cases_hold_under_the_optimiser(marks, count) -> None:
  """Without it LLVM rounds a product and its sum once or twice by what stands around them, so these run on their own."""
  command = [
    sys.executable,
    "-m",
    "pytest",
    "-q",
    "-n",
    "0",
    "-m",
    marks,
    "-p",
    "no:cacheprovider",
    __file__,
  ]
  done = subprocess.run(
    command, env={**os.environ, "XLA_FLAGS": as_users_have_it(2)}, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stdout[-4000:]
  assert f"{count} passed" in done.stdout


def test_a_rollout_names_the_step_of_its_policy() -> None:
  kind = "grpo with a reference"
  run, inputs = program(kind), jax.tree.map(lambda a: a[0], feed(kind, 0))
  state = begin(kind, 0).replace(step=jnp.int32(5))
  draw_problems = lambda at: jax.tree.map(lambda a: a[:P], POOL)
  sample = jax.jit(functools.partial(sample_on_device, run, draw_problems))(state, jnp.int32(0), inputs)
  np.testing.assert_array_equal(sample.batch.rollout.policy_step, 5 + run.learner.first)


def _primitives(jaxpr) -> set[str]:
  found = set()
  for equation in jaxpr.eqns:
    found.add(equation.primitive.name)
    for value in equation.params.values():
      for inner in jax.tree.leaves(value, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
        inner = vars(inner)["jaxpr"] if hasattr(inner, "jaxpr") and not hasattr(inner, "eqns") else inner
        found |= _primitives(inner) if hasattr(inner, "eqns") else set()
  return found


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_leaves_the_device_between_steps(kind) -> None:
  run = functools.partial(fused, program=program(kind))
  closed = jax.make_jaxpr(run)(begin(kind, 0), feed(kind, 0), POOL)
  names = _primitives(closed.jaxpr)
  assert {"scan", "while", "dot_general", "optimization_barrier"} <= names  # it was looked into
  assert not [name for name in names if "callback" in name or "infeed" in name or "outfeed" in name]
  scans = [e for e in closed.jaxpr.eqns if e.primitive.name == "scan" and e.params["length"] == STEPS]
  assert len(scans) == 1  # all steps are one loop of one executable


def _count(jaxpr, name: str) -> int:
  inner = [v for e in jaxpr.eqns for v in jax.tree.leaves(e.params, is_leaf=lambda x: hasattr(x, "jaxpr"))]
  below = [v.jaxpr if hasattr(v, "jaxpr") else v for v in inner if hasattr(v, "jaxpr") or hasattr(v, "eqns")]
  return sum(e.primitive.name == name for e in jaxpr.eqns) + sum(_count(part, name) for part in below)


@pytest.mark.parametrize(
  ("kind", "loops"), [("grpo with a reference", 1), ("a critic of its own, refilled, KL in the reward", 3)]
)
def test_without_rounds_there_is_no_loop_of_them(kind, loops) -> None:
  run = functools.partial(fused, program=program(kind))
  closed = jax.make_jaxpr(run)(begin(kind, 0), feed(kind, 0), POOL)
  assert _count(closed.jaxpr, "while") == loops  # one a sampler, and that of the rounds


def members(kind: str, seeds: list[int]):
  stack = lambda trees: jax.tree.map(lambda *a: jnp.stack(a), *trees)
  return stack([begin(kind, s) for s in seeds]), stack([feed(kind, s) for s in seeds])


@functools.cache
def spread(devices: int):
  """Members mapped over devices; compiled once for all seeds."""
  mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:devices]), ("data",))
  run = functools.partial(fused, program=program("grpo with a reference"))
  return jax.jit(over_members(run, vmapped=1, mesh=mesh))


def mapped(devices: int, seeds: list[int]):
  """(states, told) of members mapped over devices."""
  return jax.device_get(spread(devices)(*members("grpo with a reference", seeds), POOL))


@pytest.mark.bitwise
def test_a_mapped_member_is_its_lone_run_bit_for_bit() -> None:
  seeds = [0, 1, 2, 3]
  together = mapped(1, seeds)
  for j, seed in enumerate(seeds):
    assert_same(jax.tree.map(lambda a, j=j: a[j], together), alone("grpo with a reference", seed))


@pytest.mark.bitwise
def test_on_two_devices_a_member_is_what_it_is_beside_others_bit_for_bit() -> None:
  """Against one device it agrees within rounding: XLA fuses a program of two partitions otherwise."""
  together = mapped(2, [0, 1, 2, 3])
  for j, seed in enumerate([0, 1, 2, 3]):
    pick = lambda tree, j: jax.tree.map(lambda a: a[j], tree)
    assert_same(pick(together, j), pick(mapped(2, [seed, seed]), j % 2))
  ours, lone = metrics_of(together[1]), metrics_of(alone("grpo with a reference", 0)[1])
  for name in ("reward", "loss", "kl/k3"):
    np.testing.assert_allclose(ours[name][0, :5], lone[name][:5], atol=1e-5, rtol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("width", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_vmapped_member_is_its_lone_run_within_rounding(width) -> None:
  kind, seeds = "grpo with a reference", [0, 1, 2, 3]
  mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("data",))
  run = jax.jit(
    over_members(functools.partial(fused, program=program(kind, MEMBER)), vmapped=width, mesh=mesh)
  )
  _, told = jax.device_get(run(*members(kind, seeds), POOL))
  for j, seed in enumerate(seeds):
    lone, ours = metrics_of(alone(kind, seed)[1]), metrics_of(told)
    for name in ("reward", "loss", "entropy", "kl/k3", "grad_norm", "completions/mean_length"):
      np.testing.assert_allclose(ours[name][j, :5], lone[name][:5], atol=1e-5, rtol=1e-5, err_msg=name)


def test_strengths_are_traced_so_that_members_differ_in_one_program() -> None:
  kind = "grpo with a reference"
  run = jax.jit(functools.partial(fused, program=program(kind)))
  slow, _ = run(begin(kind, 0), feed(kind, 0, lr=1e-4), POOL)
  fast, _ = run(begin(kind, 0), feed(kind, 0, lr=3e-3), POOL)
  assert run._cache_size() == 1
  assert any(not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (slow.params, fast.params))))


def test_a_loss_that_is_not_finite_freezes_the_state_and_names_the_step() -> None:
  kind = "grpo with a reference"
  given = feed(kind, 0)
  strengths = given.hyperparams | {"kl.coef": given.hyperparams["kl.coef"].at[7].set(jnp.nan)}
  state, told = compiled(kind)(begin(kind, 0), dataclasses.replace(given, hyperparams=strengths), POOL)
  assert told.first_bad == 7 and state.step == 7
  ours = metrics_of(told)
  assert np.isnan(ours["loss"][7]) and np.isfinite(ours["loss"][:7]).all()
  np.testing.assert_array_equal(ours["reward"][:8], metrics_of(alone(kind, 0)[1])["reward"][:8])
