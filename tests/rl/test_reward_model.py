"""A learned reward: what it reads, what it learns from, that it learns, and that RL sees it and nothing else does."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import CountdownConfig, KLConfig, ModelConfig, RewardModelConfig, RLConfig, TrainConfig
from o1jax.model.transformer import Decoder, init_params
from o1jax.rl.draw import stream_key
from o1jax.rl.experience import prompt_batch
from o1jax.rl.flops import StepSizes, step_flops
from o1jax.rl.fused import MEMBER, FusedProgram, StepInputs, fused, over_members
from o1jax.rl.generate import generate
from o1jax.rl.learner import first_state, hyperparams, rl_learner
from o1jax.rl.metrics import rollout_stats
from o1jax.rl.reward_model import REWARDERS, Examples, collect, fit, flip, init, logits, loss, reward_of
from o1jax.rl.sampler import SampleConfig
from o1jax.rl.scoring import Grouped
from o1jax.rl.step import LearnerInputs, train_step
from o1jax.scaling.flops import Sizes, pass_flops
from o1jax.types import Rollout, RolloutBatch, divided, resolve_stats

pytestmark = pytest.mark.full

V, LP, R, P, G, STOP = 16, 4, 12, 2, 3, 1
MODEL = ModelConfig(width=16, layers=2, heads=2, kv_heads=1, head_dim=8, mlp=32, vocab=V)
DECODER = Decoder(MODEL)
SAMPLING = SampleConfig(R, (STOP,))
LAYOUT = Grouped(LP, G)


@functools.cache
def policy(seed: int = 0):
  return nn.meta.unbox(jax.jit(functools.partial(init_params, DECODER))(jax.random.key(seed)))


def verify(tokens, valid, arrays):
  """Right where the problem's token was drawn."""
  samples = tokens.shape[0] // arrays["token"].shape[0]
  wanted = jnp.repeat(arrays["token"], samples)[:, None]
  correct = ((tokens == wanted) & valid).any(1)
  return correct.astype(jnp.float32), correct, correct


def problems(count: int, seed: int = 0):
  rng = np.random.default_rng(seed)
  prompts = [rng.integers(3, V, rng.integers(2, LP + 1)).tolist() for _ in range(count)]
  batch = prompt_batch(prompts, list(range(count)), list(map(str, range(count))), LP)
  return dataclasses.replace(batch, task_arrays={"token": np.full(count, 5)})


@functools.cache
def rolled() -> Rollout:
  draw = functools.partial(generate, model=DECODER, samples=G, cfg=SAMPLING)
  return draw(policy(), problems(P), stream_key(0, "train", 1), jnp.float32(1.0))


def proxy_of(seed: int):
  """A proxy whose head is not zero."""
  proxy = init(policy(seed))
  return {
    **proxy,
    "head": {"kernel": jax.random.normal(jax.random.key(seed), (MODEL.width,))},
  }


told_of = jax.jit(functools.partial(logits, model=DECODER), static_argnames="layout")


def test_a_proxy_begins_undecided_beside_an_untouched_policy() -> None:
  proxy = init(policy())
  assert jax.tree.all(jax.tree.map(np.array_equal, proxy["decoder"], policy()))
  groups = RolloutBatch(problems(P), rolled(), jnp.zeros((P, G)), jnp.zeros(P * G, bool), jnp.arange(P))
  reward = reward_of(proxy, groups, rewarder=REWARDERS["outcome"], model=DECODER).outcome
  assert reward.shape == (P, G) and reward.dtype == jnp.float32
  np.testing.assert_array_equal(reward, 0.5)


def test_it_reads_the_hidden_state_of_the_last_action() -> None:
  proxy, rollout = proxy_of(1), rolled()
  segment = rollout.valid.astype(jnp.int32)
  position = jnp.maximum(jnp.cumsum(segment, 1) - 1, 0)
  hidden, _ = DECODER.apply({"params": proxy["decoder"]}, rollout.tokens, segment, position)
  last = [np.flatnonzero(row).max() for row in np.asarray(rollout.is_action)]
  assert len(set(last)) > 1  # completions of several lengths
  expected = np.asarray(hidden)[np.arange(P * G), last] @ np.asarray(proxy["head"]["kernel"])
  np.testing.assert_allclose(told_of(proxy, rollout, layout=LAYOUT), expected, atol=1e-5)
  np.testing.assert_allclose(told_of(proxy, rollout, layout=Grouped(LP, 1)), expected, atol=1e-5)


def test_what_stands_behind_the_end_changes_nothing() -> None:
  rollout = rolled()
  noise = jnp.where(rollout.valid, rollout.tokens, 7)
  other = rollout.replace(tokens=noise)
  np.testing.assert_allclose(
    told_of(proxy_of(1), rollout, layout=LAYOUT), told_of(proxy_of(1), other, layout=LAYOUT), atol=1e-6
  )
  last = jnp.argmax(jnp.cumsum(rollout.is_action, 1), 1)  # the last action itself counts
  tokens = rollout.tokens.at[jnp.arange(P * G), last].add(1) % V
  changed = told_of(proxy_of(1), rollout.replace(tokens=tokens), layout=LAYOUT)
  assert np.all(np.abs(changed - told_of(proxy_of(1), rollout, layout=LAYOUT)) > 1e-4)


def test_the_loss_by_hand() -> None:
  examples = Examples(rolled(), jnp.float32([1, 0, 1, 1, 0, 0]))
  assert float(loss(init(policy()), examples, model=DECODER, layout=LAYOUT)) == pytest.approx(np.log(2))
  told = np.asarray(told_of(proxy_of(1), rolled(), layout=LAYOUT))
  sign = np.where(examples.label > 0, 1, -1)
  expected = np.log1p(np.exp(-sign * told)).mean()
  assert float(loss(proxy_of(1), examples, model=DECODER, layout=LAYOUT)) == pytest.approx(expected, rel=1e-5)


def test_labels_are_flipped_by_share_and_by_key() -> None:
  label = jnp.zeros(40)
  first, again, other = (flip(label, 0.15, jax.random.key(k)) for k in (0, 0, 1))
  assert first.sum() == other.sum() == 6
  np.testing.assert_array_equal(first, again)
  assert not np.array_equal(first, other)
  np.testing.assert_array_equal(flip(label, 0.0, jax.random.key(0)), label)


def collected(count: int = 24, seed: int = 0, batch: int = 8) -> Examples:
  return collect(
    policy(), problems(count), stream_key(seed, "proxy", 0), jnp.float32(1.0), model=DECODER, sampling=SAMPLING,
    verify=verify, batch=batch,
  )  # fmt: skip


def test_examples_are_verified_completions_with_fresh_noise_in_each_batch() -> None:
  held = collected()
  assert held.rollout.tokens.shape == (24, LP + R) and held.label.shape == (24,)
  said = np.asarray((held.rollout.tokens[:, LP:] == 5) & held.rollout.valid[:, LP:]).any(1)
  np.testing.assert_array_equal(held.label, said)
  assert 0 < said.sum() < 24
  assert jax.tree.all(jax.tree.map(np.array_equal, held, collected()))
  twice = jax.tree.map(lambda a: np.concatenate([a[:8], a[:8]]), problems(24))
  again = collect(
    policy(), twice, stream_key(0, "proxy", 0), jnp.float32(1.0), model=DECODER, sampling=SAMPLING, verify=verify, batch=8
  )  # fmt: skip
  tokens = np.asarray(again.rollout.tokens)
  assert not np.array_equal(tokens[:8], tokens[8:])


CFG = RewardModelConfig("outcome", examples=256, steps=120, rows=32, lr=3e-3)


@functools.cache
def taught(noise: float = 0.0):
  held = collected(CFG.examples, batch=64)
  cfg = dataclasses.replace(CFG, noise=noise)
  return held, fit(policy(), held, stream_key(0, "proxy", 1), model=DECODER, prompt=LP, cfg=cfg)


@pytest.mark.full
def test_a_proxy_learns_what_is_correct_and_less_from_noise() -> None:
  held, (proxy, losses) = taught()
  assert losses.shape == (CFG.steps,) and float(losses[0]) == pytest.approx(np.log(2), abs=1e-5)
  assert float(losses[-10:].mean()) < 0.3
  fresh = collected(128, seed=1, batch=64)
  right = lambda proxy: np.mean(
    (told_of(proxy, fresh.rollout, layout=Grouped(LP, 1)) > 0) == (fresh.label > 0)
  )
  plain, noisy = right(proxy), right(taught(0.4)[1][0])
  assert plain > 0.85 and noisy < plain
  _, (again, _) = taught.__wrapped__()
  assert jax.tree.all(jax.tree.map(np.array_equal, proxy, again))  # from the seed, bit for bit


STEPS = 4


def program(kind: str = "outcome", axis: str | None = None) -> FusedProgram:
  return _program(kind, axis)


@functools.cache
def _program(kind: str, axis: str | None) -> FusedProgram:
  run = run_of(kind)
  return FusedProgram(rl_learner(run), SampleConfig(R, (STOP,), member_axis=axis), verify)


def run_of(kind: str) -> TrainConfig:
  rl = RLConfig(
    steps=STEPS, prompts=P, samples=G, max_prompt=LP, max_tokens=R, pad_multiple=0, kl=KLConfig(0.05), reward_model=RewardModelConfig(kind)
  )  # fmt: skip
  run = TrainConfig("test", MODEL, CountdownConfig(), rl=rl)
  run.validate()
  return run


POOL = problems(10)


def feed(proxy, seed: int = 0) -> StepInputs:
  run, learner = run_of("outcome"), program().learner
  keys = lambda stream: jnp.stack([stream_key(seed, stream, s) for s in range(1, STEPS + 1)])
  each = [hyperparams(run, learner, step) for step in range(1, STEPS + 1)]
  order = np.random.default_rng(seed).integers(0, 10, STEPS * P).astype(np.int32)
  return StepInputs(
    order, keys("train"), keys("minibatch"), jax.tree.map(lambda *a: jnp.stack(a), *each), reward_params=proxy
  )


def begin():
  return first_state(program().learner, jax.tree.map(jnp.copy, policy()))  # the state is donated


def test_fused_steps_with_a_proxy_are_the_loops() -> None:
  run, given = program(), feed(proxy_of(1))
  state, told = jax.jit(functools.partial(fused, program=run))(begin(), given, POOL)
  loop, seen = begin(), []
  for i in range(STEPS):
    batch = jax.tree.map(lambda a, i=i: a[given.order[i * P : (i + 1) * P]], POOL)
    now = jax.tree.map(lambda a, i=i: a[i], given.hyperparams)
    rollout = generate(
      loop.params, batch, given.train[i], now["temperature"], model=DECODER, samples=G, cfg=SAMPLING
    )
    verdict, correct, _ = verify(rollout.tokens[:, LP:], rollout.valid[:, LP:], batch.task_arrays)
    groups = RolloutBatch(batch, rollout, verdict.reshape(P, G), correct, jnp.arange(P))
    reward = reward_of(given.reward_params, groups, rewarder=run.learner.rewarder, model=DECODER)
    inputs = LearnerInputs(rollout, reward, None, given.minibatch[i], now)
    loop, learned = train_step(loop, inputs, learner=run.learner)
    stats = {**learned, **rollout_stats(rollout, verdict.reshape(P, G), correct)}
    seen.append(resolve_stats(stats))
  ours = divided(told.stats)
  for name in ("reward", "accuracy", "rewards/task/mean", "loss", "grad_norm", "entropy"):
    np.testing.assert_allclose(ours[name], [step[name] for step in seen], atol=1e-5, rtol=1e-5, err_msg=name)
  np.testing.assert_array_equal(ours["accuracy"], ours["rewards/task/mean"])  # both the verifier's
  assert not np.allclose(ours["reward"], ours["accuracy"], atol=1e-3)  # what RL sees is the proxy's
  assert not np.isin(ours["reward"] * P * G, np.arange(P * G + 1)).any()
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.params, loop.params)


def test_without_a_proxy_the_verifier_pays() -> None:
  run = program("none")
  told = jax.jit(functools.partial(fused, program=run))(begin(), feed(None), POOL)[1]
  np.testing.assert_array_equal(divided(told.stats)["reward"], divided(told.stats)["accuracy"])


@pytest.mark.full
@pytest.mark.parametrize(("vmapped", "axis"), [pytest.param(1, None, marks=pytest.mark.slow), (2, MEMBER)])
def test_each_member_is_paid_by_its_own_proxy(vmapped, axis) -> None:
  stack = lambda trees: jax.tree.map(lambda *a: jnp.stack(a), *trees)
  mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("data",))
  one = functools.partial(fused, program=program(axis=axis))
  run = jax.jit(over_members(one, vmapped=vmapped, mesh=mesh))
  both = run(stack([begin(), begin()]), stack([feed(proxy_of(1)), feed(proxy_of(2))]), POOL)
  for j, seed in enumerate((1, 2)):
    alone = jax.jit(functools.partial(fused, program=program()))(begin(), feed(proxy_of(seed)), POOL)
    ours, lone = divided(both[1].stats), divided(alone[1].stats)
    for name in ("reward", "accuracy", "loss"):
      np.testing.assert_allclose(ours[name][j], lone[name], atol=1e-5, rtol=1e-4, err_msg=name)
  reward = divided(both[1].stats)["reward"]
  assert not np.allclose(reward[0], reward[1], atol=1e-3)


def test_a_proxy_is_an_input_of_the_program() -> None:
  run = jax.jit(functools.partial(fused, program=program()))
  first, second = (run(begin(), feed(proxy_of(seed)), POOL)[1] for seed in (1, 2))
  assert run._cache_size() == 1
  assert not np.allclose(divided(first.stats)["reward"], divided(second.stats)["reward"], atol=1e-3)


def test_a_judged_step_costs_one_pass_more_without_a_head() -> None:
  lengths = np.array([[3, 12, 5], [7, 1, 2]])
  assert (REWARDERS["outcome"].passes, REWARDERS["none"].passes) == (1, 0)
  sizes = Sizes([3, 4], lengths)
  judged, plain = (
    step_flops(run_of(k), program(k).learner, StepSizes(sizes, [sizes], None)) for k in ("outcome", "none")
  )
  assert judged.judge == pass_flops(MODEL, sizes, LP, R, head=0) and plain.judge.executed == 0
  assert dataclasses.replace(judged, judge=plain.judge) == plain
