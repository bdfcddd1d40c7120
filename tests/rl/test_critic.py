"""A critic's parameters and values: where it stands beside the policy, and what an update with it moves."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o1jax.config import (
  AdvantageConfig,
  CountdownConfig,
  CriticConfig,
  KLConfig,
  LossConfig,
  MeshConfig,
  ModelConfig,
  OptimConfig,
  RLConfig,
  TrainConfig,
)
from o1jax.model.transformer import Decoder, init_params
from o1jax.parallel.mesh import make_mesh
from o1jax.parallel.sharding import RULES, param_shardings, put_rows
from o1jax.rl.critic import add_critic, policy_params
from o1jax.rl.experience import credit_and_experience, token_logp, token_scores
from o1jax.rl.flops import critic_passes
from o1jax.rl.learner import Learner, first_state, hyperparams, rl_learner, run_epochs
from o1jax.rl.optim import make_optimizer
from o1jax.rl.regularisers import REFERENCES, rl_penalties
from o1jax.rl.scoring import Grouped, Packed, score
from o1jax.types import Experience, Rollout, resolve_stats

P, G, LP, R = 4, 2, 3, 5
MODEL = ModelConfig(width=16, layers=1, heads=2, kv_heads=2, head_dim=8, mlp=16, vocab=16)
KEY = jax.random.key(3)
CLIPPED = LossConfig("ppo_clip", clip_low=0.2, clip_high=0.2)


def run_of(kind="head", kl=KLConfig(), loss=CLIPPED, **critic) -> TrainConfig:
  """A valid run with a critic."""
  rl = RLConfig(
    steps=2, prompts=P, samples=G, max_prompt=LP, max_tokens=R, epochs=2, loss=loss, kl=kl,
    advantage=AdvantageConfig("gae"), critic=CriticConfig(kind, **critic),
  )  # fmt: skip
  run = TrainConfig("test", MODEL, CountdownConfig(), rl=rl)
  run.validate()
  return run


# Parameters and values


@functools.cache
def parameters(kind: str):
  """The parameters of an RL stage, with a head that is not zero and, in a critic of its own, another decoder."""
  params = nn.meta.unbox(add_critic(init_params(Decoder(MODEL), KEY), kind))
  critic = dict(params["critic"])
  kernel = jax.random.normal(KEY, (MODEL.width,))
  critic["head"] = {"kernel": kernel}
  if kind == "own":
    critic["decoder"] = jax.tree.map(lambda p: 1.1 * p, critic["decoder"])
  return {**params, "critic": critic}


def rollout() -> Rollout:
  """4 x 2 completions of 1 to 5 tokens behind prompts of 2 or 3."""
  rng = np.random.default_rng(4)
  column = np.arange(LP + R) - LP
  lengths, prompt = rng.integers(1, R + 1, (P * G, 1)), np.repeat(rng.integers(2, LP + 1, (P, 1)), G, axis=0)
  valid = (column >= -prompt) & (column < lengths)
  tokens = rng.integers(1, MODEL.vocab, valid.shape)
  tokens[:, :LP] = np.repeat(tokens[::G, :LP], G, axis=0)
  action = valid & (column >= 0)
  logp = np.where(action, -2.5, 0.0).astype(np.float32)
  return Rollout(np.where(valid, tokens, 0).astype(np.int32), valid, action, logp, np.ones(P * G, bool), LP)


def given(rolled: Rollout) -> tuple:
  segment = rolled.valid.astype(np.int32)
  return rolled.tokens, segment, np.maximum(np.cumsum(segment, 1) - 1, 0).astype(np.int32)


@functools.partial(jax.jit, static_argnames="layout")
def _values(params, tokens, segment, position, layout):
  return score(
    params, None, tokens, segment, position, model=Decoder(MODEL), temperature=jnp.float32(1.0),
    needs=frozenset({"value"}), layout=layout, chunk=4096,
  ).value  # fmt: skip


def values_of(params, rolled: Rollout, layout) -> np.ndarray:
  """f32[B, L], of every token that another one precedes."""
  return np.asarray(_values(params, *given(rolled), layout=layout))


def test_a_critic_begins_at_zero_beside_an_untouched_policy() -> None:
  boxed = init_params(Decoder(MODEL), KEY)
  policy = nn.meta.unbox(boxed)
  for kind in ("head", "own"):
    params = nn.meta.unbox(add_critic(policy, kind))
    assert jax.tree.all(jax.tree.map(np.array_equal, policy_params(params), policy))
    np.testing.assert_array_equal(values_of(params, rollout(), Packed()), 0.0)
    names = nn.get_partition_spec(add_critic(boxed, kind))["critic"]
    assert names["head"]["kernel"] == jax.sharding.PartitionSpec("embed")
  assert jax.tree.all(jax.tree.map(np.array_equal, params["critic"]["decoder"], policy))
  assert add_critic(policy, "none") is policy


@pytest.mark.parametrize("kind", ["head", "own"])
@pytest.mark.parametrize("layout", [Packed(), Grouped(LP, G)], ids=["packed", "grouped"])
def test_a_value_is_read_before_its_token(kind, layout) -> None:
  params, rolled = parameters(kind), rollout()
  trunk = params["critic"]["decoder"] if kind == "own" else params
  hidden, _ = jax.jit(Decoder(MODEL).apply)({"params": trunk}, *given(rolled))
  head = params["critic"]["head"]
  expected = np.roll(hidden @ head["kernel"], 1, axis=1)
  got = values_of(params, rolled, layout)
  np.testing.assert_allclose(got[rolled.is_action], expected[rolled.is_action], rtol=2e-5, atol=2e-5)
  # The last token of a completion changes no value of it: the first one's is that of the prompt.
  last = rolled.is_action.sum(1) + LP - 1
  other = rolled.tokens.copy()
  other[np.arange(P * G), last] = 1 + other[np.arange(P * G), last] % 15
  again = values_of(params, dataclasses.replace(rolled, tokens=other), layout)
  np.testing.assert_array_equal(again[rolled.is_action], got[rolled.is_action])


@pytest.mark.parametrize("kind", ["head", "own"])
def test_one_pass_gives_values_and_log_probs(kind) -> None:
  params, rolled = parameters(kind), rollout()
  options = dict(model=Decoder(MODEL), layout=Grouped(LP, G), chunk=4096)
  both = token_scores(params, rolled, jnp.float32(1.0), **options, names=frozenset({"logp", "value"}))
  value = token_scores(params, rolled, jnp.float32(1.0), **options, names=frozenset({"value"}))
  logp = token_logp(policy_params(params), rolled, jnp.float32(1.0), **options)
  assert value.keys() == {"value"}
  np.testing.assert_allclose(both["value"], value["value"], rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(both["logp"], logp, rtol=1e-6, atol=1e-6)
  np.testing.assert_array_equal(both["value"][~rolled.is_action], 0.0)


# The update


def kept(learning_rate, weight_decay) -> optax.GradientTransformation:
  del weight_decay
  keep = optax.GradientTransformation(optax.tree.zeros_like, lambda grads, state, params=None: (grads, grads))
  return optax.chain(keep, optax.sgd(learning_rate))


SGD = optax.inject_hyperparams(kept)(learning_rate=1.0, weight_decay=0.0)
REWARD = np.float32([[1.0, 0.0], [0.5, 0.0], [0.0, 0.0], [1.0, 1.0]])


def batch_of(run: TrainConfig) -> Experience:
  """The experience of `rollout` under the run's critic."""
  rolled, cfg = rollout(), run.rl
  told = token_scores(
    parameters(cfg.critic.kind), rolled, jnp.float32(1.0), model=Decoder(MODEL), layout=Grouped(LP, G), chunk=4096,
    names=frozenset({"value"}),
  )  # fmt: skip
  logp, kl = rolled.logp_sampler, jnp.float32(cfg.kl.coef)
  return credit_and_experience(rolled, REWARD, None, logp, logp, kl, told["value"], cfg=cfg)[0]


def step(run: TrainConfig, batch: Experience, tx=SGD, mesh=MeshConfig(1, 1, 1), lr=0.1, **options):
  """(state after a training step, metrics); `options` of Learner."""
  learner = rl_learner(run)
  devices = make_mesh(mesh, jax.devices()[: mesh.data * mesh.fsdp * mesh.tensor])
  numbers = hyperparams(run, learner, 1) | {"optim.lr": jnp.float32(lr), "kl.ema": jnp.float32(0.25)}
  learner = Learner("rl", Decoder(MODEL), tx, learner.terms, learner.layout, R, **options)
  kind = run.rl.critic.kind
  boxed = jax.eval_shape(lambda: add_critic(init_params(Decoder(MODEL), KEY), kind))
  params = jax.device_put(
    jax.tree.map(jnp.copy, parameters(kind)), param_shardings(boxed, devices)
  )  # the state is donated
  state = first_state(learner, params)
  with jax.set_mesh(devices), nn.logical_axis_rules(RULES):
    rows = put_rows(batch, devices)
    state, stats = run_epochs(state, rows, KEY, numbers, learner=learner)
  return state, resolve_stats(stats)


@pytest.mark.parametrize("kind", ["head", "own"])
def test_which_parameters_the_value_loss_moves(kind) -> None:
  run = run_of(kind)
  silent = batch_of(run).replace(advantage=np.zeros((P * G, LP + R), np.float32))
  grads = step(run, silent)[0].opt_state.inner_state[0]
  norm = lambda tree: float(optax.tree.norm(tree))
  assert norm(grads["critic"]["head"]) > 1e-3
  if kind == "own":
    assert norm(grads["critic"]["decoder"]) > 1e-3 and norm(policy_params(grads)) == 0.0
  else:
    assert norm(policy_params(grads)) > 1e-3


@functools.cache
def alone(run: TrainConfig):
  """A step in one piece on one device."""
  return step(run, batch_of(run))


@pytest.mark.full
@pytest.mark.parametrize("kind", ["head", "own"])
@pytest.mark.parametrize(
  "variant", [dict(micro_batches=4), dict(mesh=MeshConfig(2, 2, 2))], ids=["4 micro-batches", "8 devices"]
)
def test_the_step_is_the_same(kind, variant) -> None:
  run = run_of(kind, clip=0.2)
  (one, told), (other, again) = alone(run), step(run, batch_of(run), **variant)
  grads, others = (jax.tree.map(np.asarray, s.opt_state.inner_state[0]) for s in (one, other))
  gap = float(optax.tree.norm(jax.tree.map(np.subtract, grads, others)))
  assert gap <= 1e-6 * float(optax.tree.norm(grads))
  assert told.keys() == again.keys()
  for metric, value in told.items():
    np.testing.assert_allclose(again[metric], value, rtol=2e-5, atol=2e-6, err_msg=metric)


def test_a_reference_knows_no_critic() -> None:
  run = run_of("own", kl=KLConfig(0.1, "k3"))
  state, _ = step(run, batch_of(run), reference=REFERENCES["ema"])
  old = policy_params(parameters("own"))
  assert jax.tree.structure(state.ref_params) == jax.tree.structure(old)
  expected = jax.tree.map(lambda p, r: 0.25 * p + 0.75 * r, policy_params(state.params), old)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.ref_params, expected)


@pytest.mark.parametrize("kind", ["head", "own"])
def test_a_critic_learns_its_returns(kind) -> None:
  run = run_of(kind, coef=1.0)
  learner, batch, tx = rl_learner(run), batch_of(run), make_optimizer(OptimConfig())
  numbers = hyperparams(run, learner, 1) | {"optim.lr": jnp.float32(0.03)}
  learner = Learner("rl", Decoder(MODEL), tx, learner.terms, learner.layout, R)
  state = first_state(learner, jax.tree.map(jnp.copy, parameters(kind)))
  for _ in range(60):
    state, _ = run_epochs(state, batch, KEY, numbers, learner=learner)
  gap = lambda value: np.mean(np.square(np.asarray(value - batch.returns))[batch.is_action])
  assert gap(values_of(state.params, rollout(), Grouped(LP, G))) < 0.1 * gap(batch.value_old)


def test_passes_that_a_critic_costs() -> None:
  asked = lambda kind, **loss: critic_passes(run_of(kind, loss=dataclasses.replace(CLIPPED, **loss)).rl)
  assert asked("head") == {"values": 1, "value_updates": 0}
  assert asked("head", logp_old="learner") == {"values": 0, "value_updates": 0}
  assert asked("own", logp_old="learner") == {"values": 1, "value_updates": 2}


def test_a_distance_to_the_start_is_the_policys() -> None:
  params = parameters("own")
  (penalty,) = rl_penalties(frozenset({"l2_init"}))
  strengths = {"l2_init": jnp.float32(0.5)}
  start = jax.tree.map(lambda p: p - 1.0, policy_params(params))
  slope, _ = jax.grad(penalty.apply, has_aux=True)(params, start, strengths)
  assert all(np.allclose(leaf, 0.5, atol=1e-5) for leaf in jax.tree.leaves(policy_params(slope)))
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(slope["critic"]))
