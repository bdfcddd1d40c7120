"""KL to the reference: estimators by hand, and their gradients exactly, by enumeration over a small vocabulary.

Each row is one token (or sequence) of the vocabulary, weighted by its probability: the term's sum over the rows is
then its expectation, and its gradient by the logits is compared with that of the KL divergence itself.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import (
  AdvantageConfig,
  CountdownConfig,
  KLConfig,
  LossConfig,
  ModelConfig,
  RLConfig,
  TrainConfig,
)
from o1jax.rl.advantages import ADVANTAGES
from o1jax.rl.learner import hyperparams, rl_learner
from o1jax.rl.losses import global_norms, needs, objective, rl_terms
from o1jax.rl.regularisers import KL_ESTIMATORS, kl_penalty
from o1jax.types import Credit, Experience, Norms, TokenScores, resolve_stats

ONE = np.ones((), np.float32)
NO_NORMS = Norms(ONE, ONE, ONE)  # a token mean over a total of one is a sum


def loss_of(kl: KLConfig, scores: TokenScores, experience: Experience, norms: Norms = NO_NORMS):
  """(loss, statistics) of plain REINFORCE with `kl`. Not validated: k1 in the loss shows here why no run has it."""
  rl = RLConfig(steps=1, prompts=1, samples=2, loss=LossConfig("reinforce", "token_mean"), kl=kl)
  model = ModelConfig(width=8, layers=1, heads=1, kv_heads=1, head_dim=8, mlp=8, vocab=8)
  run = TrainConfig("test", model, CountdownConfig(), rl=rl)
  learner = rl_learner(run)
  return objective(learner.terms)(scores, experience, hyperparams(run, learner, 1), norms)


def place(columns) -> np.ndarray:
  """f32[4, n] -> f32[4, 8] behind two columns of prompt: one shape for all tests, so that little is compiled."""
  columns = np.float32(columns)
  return np.pad(columns, [(0, 0), (2, 6 - columns.shape[1])])


def experience_of(logp, logp_ref, weight, advantage=0.0) -> Experience:
  """Rows of as many actions as the f32[4, n] have columns. On-policy: the ratio is 1."""
  whole = lambda value: place(np.broadcast_to(value, np.shape(logp)))
  action, ones = whole(1.0) > 0, np.ones((4, 8), np.int32)
  old = whole(logp)
  return Experience(ones, ones, ones, action, old, old, whole(advantage), whole(weight), whole(logp_ref))


def scores_of(logp, reverse=0.0, forward=0.0) -> TokenScores:
  """Traced log-probs f32[4, n], and the exact KLs of every token."""
  put = lambda value: jnp.pad(value, [(0, 0), (2, 6 - value.shape[1])])
  whole = lambda value: jnp.broadcast_to(jnp.float32(value), (4, 8))
  return TokenScores(put(logp), whole(1.0), whole(reverse), whole(forward))


@pytest.mark.parametrize(("estimator", "value"), [("k1", 0.5), ("k2", 0.125), ("k3", np.exp(-0.5) - 0.5)])
def test_estimators_by_hand(estimator, value) -> None:
  # Each row: log-probs -1 and -1.5, and a second token on which policy and reference agree.
  logp, logp_ref = np.float32([[-1.0, -1.0]] * 4), np.float32([[-1.5, -1.0]] * 4)
  experience = experience_of(logp, logp_ref, 1.0)
  norms = global_norms(experience, 1, 1)
  loss, stats = loss_of(KLConfig(0.25, estimator), scores_of(logp), experience, norms)
  assert float(loss) == pytest.approx(0.25 * value / 2, rel=1e-6)
  assert resolve_stats(stats)[f"kl/{estimator}"] == pytest.approx(value / 2, rel=1e-6)
  first = np.arange(8) == np.full((4, 1), 2)
  paid = kl_penalty(place(logp), place(logp_ref), first, estimator)
  np.testing.assert_allclose(paid, np.where(first, value, 0.0), rtol=1e-6)


# One token

POLICY = np.array([0.3, -0.7, 1.1, 0.2])
REFERENCE = np.array([-0.5, 0.4, 0.9, -1.0])


def softmax(logits: np.ndarray) -> np.ndarray:
  return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


PROBS, TARGET = softmax(POLICY), softmax(REFERENCE)
GAP = np.log(PROBS / TARGET)
REVERSE = (PROBS * GAP).sum()
REVERSE_GRADIENT = PROBS * (GAP - REVERSE)
FORWARD = -(TARGET * GAP).sum()
FORWARD_GRADIENT = PROBS - TARGET


def enumerated(kl: KLConfig) -> tuple[float, np.ndarray]:
  """The KL term's expectation over all tokens, and its gradient by the policy's logits."""
  experience = experience_of(np.log(PROBS)[:, None], np.log(TARGET)[:, None], PROBS[:, None])

  def loss(logits):
    logp, target = jax.nn.log_softmax(logits), jnp.float32(np.log(TARGET))
    reverse, forward = jnp.exp(logp) @ (logp - target), jnp.exp(target) @ (target - logp)
    return loss_of(kl, scores_of(logp[:, None], reverse, forward), experience)[0]

  value, gradient = jax.value_and_grad(loss)(jnp.float32(POLICY))
  return float(value), np.asarray(gradient)


CASES = {
  "k1 ignores the reference": (KLConfig(1.0, "k1"), REVERSE, np.zeros(4)),
  "k2 leads down the reverse KL": (KLConfig(1.0, "k2"), (PROBS * GAP**2).sum() / 2, REVERSE_GRADIENT),
  "k3 leads down the forward KL": (KLConfig(1.0, "k3"), REVERSE, FORWARD_GRADIENT),
  "k1 times the ratio": (KLConfig(1.0, "k1", times_ratio=True), REVERSE, REVERSE_GRADIENT),
  "k3 times the ratio": (KLConfig(1.0, "k3", times_ratio=True), REVERSE, REVERSE_GRADIENT),
  "exact reverse": (KLConfig(1.0, "reverse"), REVERSE, REVERSE_GRADIENT),
  "exact forward": (KLConfig(1.0, "forward"), FORWARD, FORWARD_GRADIENT),
}


@pytest.mark.parametrize(("kl", "value", "gradient"), CASES.values(), ids=CASES.keys())
def test_gradients_by_enumeration(kl, value, gradient) -> None:
  got = enumerated(kl)
  assert got[0] == pytest.approx(value, rel=1e-6)
  np.testing.assert_allclose(got[1], gradient, atol=2e-7)


def test_k2_times_the_ratio_is_neither() -> None:
  gradient = enumerated(KLConfig(1.0, "k2", times_ratio=True))[1]
  # d(r k2) = k2 dlp + d dlp: the reverse KL's gradient and one of E[k2] held at its values.
  half = GAP**2 / 2
  np.testing.assert_allclose(gradient, REVERSE_GRADIENT + PROBS * (half - PROBS @ half), atol=2e-7)
  assert min(np.abs(gradient - other).max() for other in (REVERSE_GRADIENT, FORWARD_GRADIENT)) > 0.05


# Two tokens: the KL between sequences


def test_only_a_kl_in_the_reward_has_the_sequence_gradient() -> None:
  size = 2  # and the first token decides whether the second lies near the reference
  logits = np.float32([[0.5, -0.5], [1.5, -1.0], [-1.0, 1.0]])
  logits_ref = np.float32([[-0.5, 0.5], [-1.0, 1.0], [-1.0, 0.5]])
  first, second = np.divmod(np.arange(size**2), size)

  def logp_of(table):
    """f32[4, 2] of all two-token sequences: row 0 of `table` starts, row 1 + a follows token a."""
    logp = jax.nn.log_softmax(table)
    return jnp.stack([logp[0, first], logp[1 + first, second]], axis=1)

  def divergence(table):
    gap = logp_of(table) - logp_of(logits_ref)
    return jnp.exp(logp_of(table).sum(1)) @ gap.sum(1)

  expected = jax.grad(divergence)(logits)
  logp, logp_ref = np.asarray(logp_of(logits)), np.asarray(logp_of(logits_ref))
  weight, action = np.exp(logp.sum(1, keepdims=True)), place(np.ones((4, 2))) > 0

  def gradient(kl: KLConfig, token: np.ndarray):
    """Of the objective's expectation, with per-token rewards `token` and no outcome."""
    zero, count = np.zeros((2, 2), np.float32), np.full((2, 2), 2, np.int32)
    credit = Credit(zero, count, zero == 0, action, token, np.zeros(2, np.float32))
    advantage = ADVANTAGES["remax"].fn(credit, RLConfig(advantage=AdvantageConfig("remax")))[:, 2:4]
    experience = experience_of(logp, logp_ref, weight, advantage)
    return jax.grad(lambda table: loss_of(kl, scores_of(logp_of(table)), experience)[0])(logits)

  paid = -np.asarray(kl_penalty(place(logp), place(logp_ref), action, "k1"))
  in_reward = gradient(KLConfig(1.0, "k1", placement="reward"), paid)
  np.testing.assert_allclose(in_reward, expected, atol=3e-7)
  for estimator in KL_ESTIMATORS:
    in_loss = gradient(KLConfig(1.0, estimator), np.zeros_like(paid))
    assert np.abs(in_loss - expected).max() > 0.02


# What a KL term asks for


def test_terms_say_what_they_need() -> None:
  asked = lambda kl: needs(rl_terms(RLConfig(kl=kl)))
  assert asked(KLConfig()) == {"entropy"}
  assert asked(KLConfig(0.1, "k3")) == {"entropy", "logp_ref"}
  assert asked(KLConfig(0.1, "k1", placement="reward")) == {"entropy", "logp_ref"}
  assert asked(KLConfig(0.1, "reverse")) == {"entropy", "logp_ref", "kl_reverse"}
  assert asked(KLConfig(0.1, "forward")) == {"entropy", "logp_ref", "kl_forward"}


def test_missing_reference_is_an_error() -> None:
  logp = np.full((4, 1), -1.0, np.float32)
  experience = experience_of(logp, logp, 1.0)
  with pytest.raises(ValueError, match="logp_ref"):
    loss_of(KLConfig(0.1, "k3"), scores_of(logp), experience.replace(logp_ref=None))
  with pytest.raises(ValueError, match="reverse"):
    loss_of(KLConfig(0.1, "reverse"), scores_of(logp).replace(kl_reverse=None), experience)
