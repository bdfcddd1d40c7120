"""Regularisers in whole training steps of a bigram model, whose gradients can be written down.

`trained` goes through `train_step`, compiled, with SGD that keeps the gradients it sees: parameters move by them, clipped to 1.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o1jax.config import (
  AdvantageConfig,
  CountdownConfig,
  CovConfig,
  ImportanceConfig,
  KLConfig,
  LossConfig,
  ModelConfig,
  OptimConfig,
  OverlongConfig,
  RLConfig,
  TrainConfig,
)
from o1jax.rl.learner import Learner, first_params, first_state, hyperparams, rl_learner
from o1jax.rl.optim import make_optimizer
from o1jax.rl.step import LearnerInputs, train_step
from o1jax.types import Reward, Rollout, TrainState, resolve_stats

MODEL = ModelConfig(width=8, layers=1, heads=1, kv_heads=1, head_dim=8, mlp=8, vocab=8)
LENGTHS = np.array([4, 1, 3, 2])
REWARD = np.float32([[1.0, 0.25], [0.0, 0.75]])
LEVEL = np.full((2, 2), 0.5, np.float32)  # no advantage
COLUMN = np.arange(6) - 2
ACTION = (COLUMN >= 0) & (COLUMN < LENGTHS[:, None])
RNG = np.random.default_rng(1)
TOKENS = RNG.integers(0, 8, (4, 6)).astype(np.int32)
TOKENS[1::2, :2] = TOKENS[::2, :2]
BEFORE = np.roll(TOKENS, 1, axis=1)  # the context of each token
TABLE = RNG.normal(0, 1, (8, 8)).astype(np.float32)
SHIFT = RNG.normal(0, 0.3, (8, 8)).astype(np.float32)
KEY = jax.random.key(0)


class Bigram:
  """A language model whose logits are a row of a table, behind the interface that `score` asks of a Decoder."""

  cfg = MODEL

  def apply(self, variables, states, segment=None, position=None, *, prefix=None, method=None):
    return states if method == "head" else (variables["params"]["table"][states], None)


BIGRAM = Bigram()


def kept(learning_rate, weight_decay) -> optax.GradientTransformation:
  del weight_decay
  keep = optax.GradientTransformation(optax.tree.zeros_like, lambda grads, state, params=None: (grads, grads))
  return optax.chain(keep, optax.clip_by_global_norm(1.0), optax.sgd(learning_rate))


SGD = optax.inject_hyperparams(kept)(learning_rate=1.0, weight_decay=0.0)
log_probs = lambda table: np.asarray(jax.nn.log_softmax(jnp.asarray(table)))


def rollout_of(table=TABLE) -> Rollout:
  """Four completions, drawn by a policy of this table."""
  logp = np.where(ACTION, log_probs(table)[BEFORE, TOKENS], 0.0).astype(np.float32)
  return Rollout(TOKENS, ACTION | (COLUMN < 0), ACTION, logp, np.ones(4, bool), prompt_width=2)


def config(kind="reinforce", **changes) -> RLConfig:
  clips = {"clip_low": 0.2, "clip_high": 0.3} if kind == "ppo_clip" else {}
  fields = dict(
    steps=10, prompts=2, samples=2, max_prompt=2, max_tokens=4, loss=LossConfig(kind, **clips),
    advantage=AdvantageConfig("dr_grpo"), optim=OptimConfig(lr=1.0),
  )  # fmt: skip
  return RLConfig(**{**fields, **changes})


PPO = functools.partial(config, "ppo_clip", epochs=2)  # off-policy steps need a ratio


def run_of(cfg: RLConfig) -> TrainConfig:
  run = TrainConfig("test", MODEL, CountdownConfig(), rl=cfg)
  run.validate()
  return run


@functools.cache
def learner_of(cfg: RLConfig, tx=SGD) -> Learner:
  return dataclasses.replace(rl_learner(run_of(cfg)), model=BIGRAM, tx=tx)


def state_of(cfg: RLConfig, table=TABLE, tx=SGD) -> TrainState:
  return first_state(learner_of(cfg, tx=tx), {"table": jnp.asarray(table)})


def trained(cfg: RLConfig, state=None, reward=REWARD, rollout=None, step=1, tx=SGD, **changes):
  """(state, metrics) after one training step; the state given is left as it was. `changes` are of Hyperparams."""
  state = jax.tree.map(jnp.copy, state_of(cfg, tx=tx) if state is None else state)
  rollout = rollout_of(state.params["table"]) if rollout is None else rollout
  numbers = {name: jnp.float32(value) for name, value in changes.items()}
  strengths = hyperparams(run_of(cfg), learner_of(cfg, tx=tx), step) | numbers
  inputs = LearnerInputs(rollout, Reward(jnp.asarray(reward)), None, KEY, strengths)
  state, stats = train_step(state, inputs, learner=learner_of(cfg, tx=tx))
  return state, resolve_stats(stats)


seen = lambda state: np.asarray(state.opt_state.inner_state[0]["table"])  # the last optimiser step's gradient
table_of = lambda state: np.asarray(state.params["table"])


def exactly(function, table) -> np.ndarray:
  """The gradient at `table` of the mean over the batch's action tokens of function(row of logits, context)."""
  contexts = BEFORE[ACTION]
  mean = lambda t: jnp.mean(jax.vmap(lambda c: function(t[c], c))(contexts))
  return np.asarray(jax.grad(mean)(jnp.asarray(table)))


def assert_near(got, expected) -> None:
  assert np.linalg.norm(got - expected) <= 1e-6 * max(np.linalg.norm(expected), 1e-3)


# Entropy


def entropy(logits, context):
  logp = jax.nn.log_softmax(logits)
  return -jnp.exp(logp) @ logp


def test_the_bonus_follows_the_entropys_gradient() -> None:
  state, told = trained(config(entropy=0.2), reward=LEVEL)
  assert_near(seen(state), -0.2 * exactly(entropy, TABLE))
  # By hand: dH / d logit_j = -p_j (log p_j + H), summed over the tokens of each context.
  logp = log_probs(TABLE)
  total = -(np.exp(logp) * logp).sum(1, keepdims=True)
  count = np.bincount(BEFORE[ACTION], minlength=8)[:, None] / LENGTHS.sum()
  np.testing.assert_allclose(seen(state), 0.2 * count * np.exp(logp) * (logp + total), atol=1e-7)
  assert told["entropy/coef"] == pytest.approx(0.2)


def test_an_adaptive_bonus_rises_below_its_target_and_falls_above_it() -> None:
  high = config(entropy=0.2, entropy_target=9.0, entropy_rate=0.25)
  low = config(entropy=0.2, entropy_target=0.1, entropy_rate=0.125)
  for cfg, coefs in ((high, [0.2, 0.45, 0.7]), (low, [0.2, 0.075, 0.0])):
    state, told = state_of(cfg), []
    for step in (1, 2, 3):
      state, metrics = trained(cfg, state, step=step)
      told.append(metrics["entropy/coef"])
    np.testing.assert_allclose(told, coefs, rtol=1e-6, atol=1e-7)
  # The second step has the gradient of a fixed bonus of the coefficient in force.
  after, _ = trained(high)
  second, _ = trained(high, after, step=2)
  assert_near(seen(second), seen(trained(config(entropy=0.45), after.replace(controllers=None))[0]))


# KL: references and coefficients


def reverse(reference):
  def of(logits, context):
    logp, other = jax.nn.log_softmax(logits), jax.nn.log_softmax(jnp.asarray(reference)[context])
    return jnp.exp(logp) @ (logp - other)

  return of


def to(reference, **options) -> KLConfig:
  return KLConfig(0.5, "reverse", reference=reference, **options)


STILL, GONE = (lambda first, table: first), (lambda first, table: table)
REFERENCES = {  # the reference, where it goes in a step, the steps before it
  "frozen": (to("frozen"), STILL, 0),
  "ema": (to("ema", ema=0.25), lambda first, table: 0.25 * table + 0.75 * first, 0),
  "between resets": (to("reset", reset_every=2), STILL, 0),
  "reset": (to("reset", reset_every=2), GONE, 1),
  "reset, moments too": (to("reset", reset_every=2, reset_optimizer=True), GONE, 1),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_the_gradient_is_that_of_the_kl_to_where_the_reference_has_gone(name) -> None:
  kl, moved, before = REFERENCES[name]
  cfg = config(kl=kl)
  first, _ = trained(cfg, state_of(cfg).replace(step=jnp.int32(before)))
  reference = moved(TABLE, table_of(first))
  np.testing.assert_allclose(first.ref_params["table"], reference, atol=1e-6)
  assert seen(first).any() != kl.reset_optimizer
  # A second step off by SHIFT, without advantages: nothing but the KL is left.
  away = first.replace(params={"table": first.params["table"] + SHIFT})
  second, told = trained(cfg, away, LEVEL, step=2)
  expected = 0.5 * exactly(reverse(reference), away.params["table"])
  assert np.linalg.norm(expected) > 0.01
  # Below the clip's norm of 1 the parameters take the gradient whole.
  np.testing.assert_allclose(table_of(second), table_of(away) - expected, atol=1e-6)
  assert np.linalg.norm(expected) < 1
  assert told["kl/coef"] == 0.5


@pytest.mark.parametrize("placement", ["loss", "reward"])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_an_adaptive_coefficient_is_in_force_in_the_next_step(placement, estimator) -> None:
  kl = KLConfig(0.5, estimator, placement, times_ratio=(estimator, placement) == ("k1", "loss"))
  cfg = PPO(kl=dataclasses.replace(kl, target=1e-6, horizon=8))
  state, told = trained(cfg)
  assert told["kl/coef"] == 0.5
  # The first optimiser step has the reference's parameters, a KL of 0: 1 - 0.2 * 4 completions / 8, whatever comes later.
  assert told[f"kl/{estimator}"] != 0
  assert float(state.controllers["kl.coef"]) == pytest.approx(0.45)
  away = state.replace(params={"table": state.params["table"] + SHIFT})
  adaptive, told = trained(cfg, away, step=2)
  assert told["kl/coef"] == pytest.approx(0.45)
  fixed = PPO(kl=dataclasses.replace(kl, coef=0.45))
  plain, _ = trained(fixed, away.replace(controllers=None), step=2)
  assert_near(seen(adaptive), seen(plain))
  unmoved, _ = trained(fixed, away.replace(controllers=None), step=2, **{"kl.coef": 0.5})
  assert np.linalg.norm(seen(unmoved) - seen(plain)) > 1e-4 * np.linalg.norm(seen(plain))
  # What the second step measured first, against the target; k1 may be negative.
  gap = (log_probs(table_of(away)) - log_probs(TABLE))[BEFORE, TOKENS][ACTION]
  measured = {"k1": gap, "k2": gap**2 / 2, "k3": np.exp(-gap) - 1 + gap}[estimator].mean()
  error = np.clip(measured / 1e-6 - 1, -0.2, 0.2)
  assert float(adaptive.controllers["kl.coef"]) == pytest.approx(0.45 * (1 + error * 4 / 8), rel=1e-5)


@pytest.mark.parametrize("placement", ["loss", "reward"])
def test_a_scheduled_coefficient_is_in_force_in_its_step(placement) -> None:
  kl = KLConfig(0.5, "k2", placement)
  scheduled, fixed = (
    config(kl=dataclasses.replace(kl, schedule="linear")),
    config(kl=dataclasses.replace(kl, coef=0.2)),
  )
  away = state_of(fixed).replace(params={"table": jnp.asarray(TABLE + SHIFT)})
  got, told = trained(scheduled, away, step=7)
  assert told["kl/coef"] == pytest.approx(0.2)
  assert_near(seen(got), seen(trained(fixed, away)[0]))


def test_a_step_that_is_not_finite_moves_no_coefficient() -> None:
  cfg = config(
    kl=KLConfig(0.5, "k3", target=0.1, horizon=8), entropy=0.2, entropy_target=1.0, entropy_rate=0.1
  )
  before = state_of(cfg)
  lost = before.replace(params={"table": before.params["table"].at[0].set(np.nan)})
  after, told = trained(cfg, lost, rollout=rollout_of())
  assert np.isnan(told["loss"])
  assert {name: float(c) for name, c in after.controllers.items()} == {
    "kl.coef": 0.5,
    "entropy": pytest.approx(0.2),
  }


# Parameters


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_l2_pulls_towards_the_first_parameters_once_a_step(micro_batches) -> None:
  cfg, plain = (config(l2_init=c, micro_batches=micro_batches) for c in (0.3, 0.0))
  away = state_of(cfg).replace(params={"table": jnp.asarray(TABLE + SHIFT)})
  got, told = trained(cfg, away)
  without, bare = trained(plain, away.replace(init_params=None))
  np.testing.assert_allclose(seen(got) - seen(without), 0.3 * SHIFT, atol=1e-6)
  assert told["l2_init/distance"] == pytest.approx(np.linalg.norm(SHIFT), rel=1e-6)
  assert told["loss/l2_init"] == pytest.approx(0.15 * np.sum(SHIFT**2), rel=1e-6)
  assert told["loss"] == pytest.approx(bare["loss"] + told["loss/l2_init"], rel=1e-5)
  np.testing.assert_array_equal(got.init_params["table"], TABLE)


def test_l2_reads_the_parameters_before_each_optimiser_step() -> None:
  cfg = PPO(l2_init=0.3)
  twice, told = trained(cfg, reward=LEVEL)
  np.testing.assert_array_equal(table_of(twice), TABLE)  # where it began there is no pull
  assert told["l2_init/distance"] == 0.0
  away = state_of(cfg).replace(params={"table": jnp.asarray(TABLE + SHIFT)})
  twice, _ = trained(cfg, away, LEVEL)  # SGD(1.0): each step leaves 0.7 of the way, if not clipped to norm 1
  norm = np.linalg.norm(SHIFT)
  assert 0.3 * norm < 1
  np.testing.assert_allclose(table_of(twice) - TABLE, 0.7**2 * SHIFT, atol=1e-6)


def test_decay_draws_the_parameters_towards_zero() -> None:
  tx = make_optimizer(OptimConfig(lr=1.0))
  cfg = config(optim=OptimConfig(lr=0.125, weight_decay=0.5))
  got, plain = (trained(cfg, tx=tx, **{"optim.weight_decay": decay})[0] for decay in (0.5, 0.0))
  np.testing.assert_allclose(table_of(got) - table_of(plain), -0.125 * 0.5 * TABLE, atol=1e-6)
  # Without strength it is Adam.
  chain = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.125, 0.9, 0.95))
  adam = optax.inject_hyperparams(lambda learning_rate, weight_decay: chain)(1.0, 0.0)
  np.testing.assert_allclose(table_of(trained(cfg, tx=adam)[0]), table_of(plain), atol=1e-6)


def test_a_state_begins_with_copies_of_what_its_stage_asks_for() -> None:
  moving = KLConfig(0.1, reference="ema", ema=0.5, target=0.1, horizon=8)
  everything = config(kl=moving, l2_init=0.1, entropy_target=1.0, entropy_rate=0.1)
  params = {"table": jnp.asarray(TABLE)}
  state = jax.jit(functools.partial(first_state, learner_of(everything)))(params)
  copies = [tree["table"] for tree in (params, state.ref_params, state.init_params)]
  places = {copy.unsafe_buffer_pointer() for copy in copies}
  assert len(places) == 3
  assert state.controllers == {"kl.coef": pytest.approx(0.1), "entropy": 0.0}
  stays = dataclasses.replace(everything, kl=dataclasses.replace(moving, reference="frozen", ema=None))
  state = first_state(learner_of(stays), params)  # whose reference is the first parameters
  assert state.init_params is None and first_params(state, learner_of(stays)) is state.ref_params
  bare = state_of(config())
  assert bare.ref_params is bare.init_params is bare.controllers is None


# Tokens held back


@pytest.mark.parametrize("kind", ["clip_cov", "kl_cov"])
def test_tokens_are_picked_over_the_whole_minibatch(kind) -> None:
  cov = {
    "clip_cov": CovConfig("clip_cov", fraction=0.3, low=-9.0, high=9.0),
    "kl_cov": CovConfig("kl_cov", fraction=0.3, coef=0.5),
  }[kind]
  whole, split = (PPO(cov=cov, micro_batches=m) for m in (1, 2))
  (one, told), (two, other) = trained(whole), trained(split)
  assert_near(seen(two), seen(one))
  assert told["cov/held_back_mean"] == pytest.approx(0.3) == other["cov/held_back_mean"]
  without, _ = trained(PPO())
  assert np.linalg.norm(seen(without) - seen(one)) > 1e-3


def test_each_optimiser_step_draws_anew() -> None:
  # Half of ten tokens; as no parameter moves, gradients differ by the tokens drawn alone.
  nothing = optax.tree.zeros_like
  both = optax.GradientTransformation(
    lambda params: (params, params), lambda grads, state, params=None: (nothing(grads), (state[1], grads))
  )
  tx = optax.inject_hyperparams(lambda learning_rate, weight_decay: both)(1.0, 0.0)
  for cov, same in ((CovConfig("clip_cov", fraction=0.5, low=-9.0, high=9.0), False), (CovConfig(), True)):
    state, _ = trained(PPO(cov=cov), tx=tx)
    first, second = (np.asarray(grads["table"]) for grads in state.opt_state.inner_state)
    assert np.allclose(first, second, atol=1e-6) == same


# No strength: the compiled step is that without the term

KLS = {e: KLConfig(0.3, e) for e in ("k3", "reverse", "forward")}
KLS |= {
  "k2 times the ratio": KLConfig(0.3, "k2", times_ratio=True),
  "k3 in the reward": KLConfig(0.3, "k3", placement="reward"),
  "scheduled": KLConfig(0.3, "k3", schedule="cosine"),
  "adaptive": KLConfig(0.3, "k3", target=0.1, horizon=9),
  "EMA": KLConfig(0.3, "k3", reference="ema", ema=0.5),
  "reset": KLConfig(0.3, "k3", reference="reset", reset_every=2),
}
LEARNER = LossConfig("ppo_clip", clip_low=0.2, clip_high=0.3, logp_old="learner")
WEAK = {f"KL, {name}": (PPO(kl=kl), PPO()) for name, kl in KLS.items()}
WEAK |= {
  "entropy": (PPO(entropy=0.1), PPO()),
  "adaptive entropy": (PPO(entropy=0.1, entropy_target=9.0, entropy_rate=0.1), PPO()),
  "kl_cov": (PPO(cov=CovConfig("kl_cov", fraction=0.3, coef=0.5)), PPO()),
  "clip_cov": (PPO(cov=CovConfig("clip_cov", fraction=0.3, low=90.0, high=99.0)), PPO()),
  "L2": (PPO(l2_init=0.1), PPO()),
  "soft overlong": (PPO(overlong=OverlongConfig(buffer=2, penalty=1e-30)), PPO()),
  "unfinished": (PPO(overlong=OverlongConfig(truncation_penalty=-10.0)), PPO()),  # all are finished
  "truncated masking": (PPO(overlong=OverlongConfig(mask=True)), PPO()),  # none is truncated
  "importance": (
    PPO(loss=LEARNER, importance=ImportanceConfig(9.0)),
    PPO(loss=LEARNER),
  ),  # sampler and learner agree
}
NOTHING = {"kl.coef": 0.0, "entropy": 0.0, "cov.coef": 0.0, "l2_init": 0.0}


@functools.cache
def moved_without(cfg: RLConfig) -> tuple[np.ndarray, np.ndarray]:
  """(last gradient, parameters) after a step away from the start, every traced strength 0."""
  state = state_of(cfg)
  quiet = None if state.controllers is None else {name: jnp.float32(0.0) for name in state.controllers}
  away = state.replace(params={"table": jnp.asarray(TABLE + SHIFT)}, controllers=quiet)
  after, _ = trained(cfg, away, **NOTHING)
  return seen(after), table_of(after)


@pytest.mark.full
@pytest.mark.parametrize("name", WEAK)
def test_without_strength_the_step_is_that_without_the_term(name) -> None:
  got, expected = map(moved_without, WEAK[name])
  assert_near(got[0], expected[0])
  np.testing.assert_allclose(got[1], expected[1], atol=1e-6)
