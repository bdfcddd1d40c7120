"""Generalised advantages and the value loss: numbers by hand, finite differences, and what must not change them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import (
  AdvantageConfig,
  CountdownConfig,
  CriticConfig,
  KLConfig,
  LossConfig,
  ModelConfig,
  RLConfig,
  TrainConfig,
)
from o1jax.rl.advantages import ADVANTAGES
from o1jax.rl.critic import gae_sum, with_returns
from o1jax.rl.learner import hyperparams, rl_learner
from o1jax.rl.losses import global_norms, objective
from o1jax.types import Credit, Experience, TokenScores, merge_stats, resolve_stats

R = 5
MODEL = ModelConfig(width=8, layers=1, heads=1, kv_heads=1, head_dim=8, mlp=8, vocab=8)
NAN = float("nan")


def run_of(kl=KLConfig(), **critic) -> TrainConfig:
  """A valid run with a critic."""
  rl = RLConfig(
    steps=2, prompts=2, samples=2, max_tokens=R, epochs=2, kl=kl, loss=LossConfig("sapo"), advantage=AdvantageConfig("gae"),
    critic=CriticConfig("head", **critic),
  )  # fmt: skip
  run = TrainConfig("test", MODEL, CountdownConfig(), rl=rl)
  run.validate()
  return run


# Advantages


def credit(value, outcome, token=None, action=None, include=True) -> Credit:
  """One completion a prompt: a column of prompt, then `value`, then two of padding; what is no action is NaN."""
  value = np.float32(value)
  action = np.ones(value.shape, bool) if action is None else np.asarray(action)
  wide = lambda a, fill: np.pad(np.where(action, a, fill), [(0, 0), (1, 2)], constant_values=fill)
  rows = np.float32(outcome)[:, None]
  return Credit(
    rows, action.sum(1, keepdims=True), np.full(rows.shape, include), wide(action, False),
    None if token is None else wide(np.float32(token), NAN), None, wide(value, NAN),
  )  # fmt: skip


# gamma 1/2, lam 1/4. Values 1 4 4, outcome 8: delta = 4/2 - 1, 4/2 - 4, 8 - 4 = 1, -2, 4, summed under powers of 1/8.
BY_HAND = [1 + (-2 + 4 / 8) / 8, -2 + 4 / 8, 4.0]
# A reward of -1 at the second token: its delta is -3.
PAID = [1 + (-3 + 4 / 8) / 8, -3 + 4 / 8, 4.0]


@pytest.mark.parametrize(("token", "expected"), [(None, BY_HAND), ([[0.0, -1.0, 0.0]], PAID)])
def test_generalised_advantages_by_hand(token, expected) -> None:
  got = gae_sum(credit([[1.0, 4.0, 4.0]], [8.0], token), 0.5, 0.25)
  np.testing.assert_array_equal(got, [[0.0, *expected, 0.0, 0.0]])
  assert got.dtype == np.float32


def test_a_token_that_is_no_action_takes_no_time() -> None:
  gap = credit([[1.0, NAN, 4.0, NAN, 4.0]], [8.0], action=[[True, False, True, False, True]])
  np.testing.assert_array_equal(
    gae_sum(gap, 0.5, 0.25)[0, 1:6], [BY_HAND[0], 0.0, BY_HAND[1], 0.0, BY_HAND[2]]
  )


def test_rows_are_apart_and_an_empty_one_is_silent() -> None:
  action = [[True] * 3, [False] * 3, [True, True, False]]
  many = credit([[1.0, 4.0, 4.0], [NAN] * 3, [4.0, 4.0, NAN]], [8.0, 5.0, 8.0], action=action)
  expected = [BY_HAND, [0.0] * 3, [*BY_HAND[1:], 0.0]]
  np.testing.assert_array_equal(gae_sum(many, 0.5, 0.25)[:, 1:4], expected)


def test_undiscounted_it_is_return_less_value() -> None:
  rng = np.random.default_rng(0)
  value, token, outcome = rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), rng.normal(size=3)
  returns = outcome[:, None] + np.cumsum(token[:, ::-1], 1)[:, ::-1]
  got = gae_sum(credit(value, outcome, token), 1.0, 1.0)
  np.testing.assert_allclose(got[:, 1:5], returns - value, atol=2e-6)


def test_without_lambda_it_is_the_one_step_error() -> None:
  got = gae_sum(credit([[1.0, 4.0, 4.0]], [8.0]), 0.5, 0.0)
  np.testing.assert_array_equal(got[0, 1:4], [1.0, -2.0, 4.0])


@pytest.mark.parametrize("whiten", [False, True])
def test_whitening_is_over_included_tokens_and_leaves_returns_alone(whiten) -> None:
  kept = credit([[1.0, 4.0, 4.0], [2.0, 2.0, 2.0]], [8.0, NAN])
  kept = kept.replace(include=np.array([[True], [False]]))
  cfg = run_of(gamma=0.5, lam=0.25, whiten=whiten).rl
  got = np.asarray(jax.jit(ADVANTAGES["gae"].fn, static_argnums=1)(kept, cfg))
  centred = np.array(BY_HAND) - np.mean(BY_HAND)
  expected = centred / np.std(BY_HAND) if whiten else BY_HAND
  np.testing.assert_allclose(got[0, 1:4], expected, rtol=1e-6)
  np.testing.assert_array_equal(got[1], 0.0)
  zero = np.zeros((2, 6), np.float32)
  blank = Experience(zero, zero, zero, kept.is_action, zero, zero, zero, zero)
  told = with_returns(blank, kept, 0.5, 0.25)
  np.testing.assert_array_equal(told.returns[0], [0.0, *(np.array(BY_HAND) + [1, 4, 4]), 0.0, 0.0])
  # What is left out returns its value, and so asks nothing of the critic.
  np.testing.assert_array_equal(told.returns[1], told.value_old[1])


def test_without_values_there_are_no_such_advantages() -> None:
  with pytest.raises(ValueError, match="critic's values"):
    gae_sum(credit([[1.0]], [1.0]).replace(value=None), 1.0, 1.0)


# The loss

# Clip 1/2 around 0. Tokens: free; held at 1/2, where the other branch would be less; free, as its error is larger; free.
VALUE, RETURNS = [0.25, 0.75, 0.75, -2.0], [1.0, 1.0, -1.0, -1.0]


def experience(returns, old, weight=1.0, rows=1) -> tuple[Experience, np.ndarray]:
  """(`rows` completions of as many actions as there are numbers, behind a column of prompt, which of them are actions)."""
  shape = (rows, 1 + np.size(returns) // rows + 1)
  action = np.zeros(shape, bool)
  action[:, 1:-1] = True
  put = lambda numbers: np.where(action, np.pad(np.reshape(numbers, (rows, -1)), [(0, 0), (1, 1)]), NAN)
  f32 = lambda numbers: np.float32(put(numbers))
  zero, ones = np.zeros(shape, np.float32), np.ones(shape, np.int32)
  mask = np.where(action, np.float32(weight), 0.0)
  return Experience(
    ones, ones, ones, action, zero, zero, zero, mask, None, f32(returns), f32(np.broadcast_to(old, np.shape(returns)))
  ), action  # fmt: skip


def loss_of(run: TrainConfig, numbers: Experience, values, norms=None, terms=None, **changes):
  """(loss, gradient by TokenScores, statistics) of the run's objective; values off the actions are NaN."""
  learner = rl_learner(run)
  put = lambda a: np.where(numbers.is_action, a, NAN).astype(np.float32)
  whole = np.full(numbers.is_action.shape, NAN)
  whole[numbers.is_action] = np.ravel(values)
  scores = TokenScores(put(-1.0), put(1.0), None, None, np.float32(whole))
  told = hyperparams(run, learner, 1) | {name: jnp.float32(number) for name, number in changes.items()}
  norms = global_norms(numbers, R, 1) if norms is None else norms
  of = jax.value_and_grad(objective(learner.terms if terms is None else terms), has_aux=True)
  (loss, stats), grads = of(scores, numbers, told, norms)
  return float(loss), grads, stats


def value_alone(run: TrainConfig) -> tuple:
  return tuple(term for term in rl_learner(run).terms if term.name == "value")


def test_value_loss_by_hand() -> None:
  run = run_of(coef=0.5, clip=0.5)
  numbers, action = experience(RETURNS, 0.0)
  loss, grads, stats = loss_of(run, numbers, VALUE, terms=value_alone(run))
  errors = [0.75**2, 0.5**2, 1.75**2, 1.0**2]
  assert loss == pytest.approx(0.5 * 0.5 * sum(errors) / 4)
  np.testing.assert_allclose(grads.value[action], 0.5 * np.array([-0.75, 0.0, 1.75, -1.0]) / 4)
  np.testing.assert_array_equal(grads.value[~action], 0.0)
  told = resolve_stats(stats)
  assert told["value/clip_ratio"] == 0.25 and told["value/mean"] == np.mean(VALUE)
  assert told["loss/value"] == pytest.approx(loss)


def test_without_a_clip_it_is_the_squared_error() -> None:
  run = run_of(coef=1.0)
  numbers, action = experience(RETURNS, 0.0, weight=2.0)
  loss, grads, stats = loss_of(run, numbers, VALUE, terms=value_alone(run))
  gap = np.subtract(VALUE, RETURNS)
  assert loss == pytest.approx(2 * 0.5 * np.mean(gap**2))
  np.testing.assert_allclose(grads.value[action], 2 * gap / 4)
  assert "value/clip_ratio" not in stats


@pytest.mark.parametrize("clip", [None, 0.3])
def test_gradient_is_that_of_finite_differences(clip) -> None:
  rng = np.random.default_rng(1)
  value, returns, old = rng.normal(size=(3, 12))
  run = run_of(coef=0.7, clip=clip)
  numbers, action = experience(returns, old)
  _, grads, _ = loss_of(run, numbers, value, terms=value_alone(run))
  reach = np.inf if clip is None else clip

  def formula(v: np.ndarray) -> float:
    near = np.clip(v, old - reach, old + reach)
    return 0.7 * np.mean(0.5 * np.maximum((v - returns) ** 2, (near - returns) ** 2))

  step = 1e-5 * np.eye(12)
  slopes = [(formula(value + d) - formula(value - d)) / 2e-5 for d in step]
  np.testing.assert_allclose(grads.value[action], slopes, rtol=1e-5, atol=1e-8)
  held = np.count_nonzero(np.abs(slopes) < 1e-12)
  assert held == 0 if clip is None else 0 < held < 12


def test_explained_variance_by_hand() -> None:
  # Returns 1 1 -1 -1 have variance 1; the rest that values of half of them leave has 1/4. A constant offset is no rest.
  run = run_of()
  for old, expected in ((0.5 * np.array(RETURNS), 0.75), (np.array(RETURNS) + 3, 1.0), (0.0, 0.0)):
    stats = loss_of(run, experience(RETURNS, old)[0], VALUE)[2]
    assert resolve_stats(stats)["value/explained_variance"] == pytest.approx(expected, abs=1e-6)
  stats = loss_of(run, experience([0.9] * 4, RETURNS)[0], VALUE)[2]
  assert "value/explained_variance" not in resolve_stats(
    stats
  )  # nothing varies, so that there is nothing to explain


def test_micro_batches_add_up() -> None:
  rng = np.random.default_rng(2)
  value, returns, old = rng.normal(size=(3, 4, 3))
  run = run_of(clip=0.3)
  numbers, _ = experience(returns, old, rows=4)
  norms = global_norms(numbers, R, 1)
  loss, grads, stats = loss_of(run, numbers, value)
  parts = [
    loss_of(run, jax.tree.map(lambda a, i=i: a[i : i + 1], numbers), value[i], norms=norms) for i in range(4)
  ]
  assert sum(part[0] for part in parts) == pytest.approx(loss, rel=1e-6)
  np.testing.assert_allclose(np.concatenate([part[1].value for part in parts]), grads.value, rtol=1e-6)
  merged = resolve_stats(functools.reduce(merge_stats, (part[2] for part in parts)))
  assert merged == pytest.approx(resolve_stats(stats), rel=1e-5, abs=1e-6)
  whole = 1 - np.var(returns - old) / np.var(returns)
  assert merged["value/explained_variance"] == pytest.approx(whole, rel=1e-5)
  # The mean over micro-batches would be another number.
  each = [resolve_stats(part[2])["value/explained_variance"] for part in parts]
  assert abs(np.mean(each) - whole) > 0.05


def test_at_strength_zero_the_rest_of_the_loss_is_as_without() -> None:
  run = run_of(kl=KLConfig(0.1, "k3"))
  numbers, action = experience(RETURNS, 0.0)
  rng = np.random.default_rng(3)
  draw = lambda: np.where(action, rng.normal(size=action.shape), 0.0).astype(np.float32)
  numbers = numbers.replace(advantage=draw(), logp_old=draw(), logp_ref=draw())
  rest = tuple(term for term in rl_learner(run).terms if term.name != "value")
  with jax.disable_jit():
    loss, grads, _ = loss_of(run, numbers, VALUE, **{"critic.coef": 0.0})
    plain, without, _ = loss_of(run, numbers, VALUE, terms=rest)
  assert loss == plain and np.any(grads.logp)
  np.testing.assert_array_equal(grads.logp, without.logp)
  np.testing.assert_array_equal(grads.value, 0.0)
  _, strong, _ = loss_of(run, numbers, VALUE)
  np.testing.assert_array_equal(strong.logp, without.logp)
  assert np.any(strong.value)


def test_what_the_loss_lacks_is_named() -> None:
  numbers, _ = experience(RETURNS, 0.0)
  for name in ("returns", "value_old"):
    with pytest.raises(ValueError, match="needs TokenScores.value"):
      loss_of(run_of(), numbers.replace(**{name: None}), VALUE)
