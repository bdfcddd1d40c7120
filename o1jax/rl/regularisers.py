"""Regularisers below the level of terms: KL estimates, references, covariances, L2 to the start, controllers.

Estimates are per token; d = lp - lr, lp = log pi, lr = the reference's log-prob. A penalty is a function of
parameters alone and is added once an optimiser step, whatever the micro-batch. A controller moves a
coefficient once a training step, from what the first optimiser step measured: the policy there is still the
one that drew the rollout. Left out: Skywork-OR1's second gate, which switches the entropy bonus off in
steps that begin above the target.
"""

import dataclasses
import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp

from o1jax.config import CovConfig, RLConfig
from o1jax.rl.critic import policy_params
from o1jax.types import Experience, Hyperparams, Mean, Stat, TokenScores

MAX_LOG_RATIO = 20.0  # nats; e^20 is 5e8, and its square is finite still


def bounded(log_ratio: jax.Array) -> jax.Array:
  """A log ratio within +-20, to be exponentiated (as verl does); beyond it nothing is left of the gradient.

  In float32 exp(89) is infinite, and infinity times the 0 of a clip is no number.
  """
  return jnp.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO)


# KL to the reference


def k1(gap: jax.Array) -> jax.Array:
  """d: unbiased, and its gradient ignores the reference where it stands in the loss (Schulman 2020)."""
  return gap


def k2(gap: jax.Array) -> jax.Array:
  """d^2 / 2: biased, with the gradient of KL(pi || ref) (Schulman 2020)."""
  return 0.5 * gap**2


def k3(gap: jax.Array) -> jax.Array:
  """exp(-d) - 1 + d: unbiased and never negative; its gradient is that of KL(ref || pi) (Schulman 2020).

  d enters within +-20.
  """
  gap = bounded(gap)
  return jnp.exp(-gap) - 1.0 + gap


KL_ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}
EXACT_KL: dict[str, Callable[[TokenScores], jax.Array | None]] = {
  "reverse": lambda scores: scores.kl_reverse,
  "forward": lambda scores: scores.kl_forward,
}


def kl_penalty(logp: jax.Array, logp_ref: jax.Array, is_action: jax.Array, estimator: str) -> jax.Array:
  """f32[B, L] estimate of KL(pi || ref) by token, for a KL in the reward; 0 where not an action."""
  return jnp.where(is_action, KL_ESTIMATORS[estimator](jnp.where(is_action, logp - logp_ref, 0.0)), 0.0)


# References

# (policy, reference, training step from 1, hyperparameters) -> the reference behind the step
Reference = Callable[[Any, Any, jax.Array, Hyperparams], Any]


def ema_reference(params: Any, ref: Any, step: jax.Array, hyperparams: Hyperparams) -> Any:
  """ref <- a params + (1 - a) ref, a = kl.ema."""
  ema = hyperparams["kl.ema"]
  return jax.tree.map(lambda p, r: ema * p + (1 - ema) * r, params, ref)


def is_reset(step: jax.Array, hyperparams: Hyperparams) -> jax.Array:
  """Whether the reference is replaced after training step `step` (from 1)."""
  return jnp.mod(step.astype(jnp.float32), hyperparams["kl.reset_every"]) == 0


def reset_reference(params: Any, ref: Any, step: jax.Array, hyperparams: Hyperparams) -> Any:
  """ref <- params every kl.reset_every steps (ProRL, Liu et al. 2025, section 3)."""
  return jax.tree.map(lambda p, r: jnp.where(is_reset(step, hyperparams), p, r), params, ref)


REFERENCES: dict[str, Reference | None] = {"frozen": None, "ema": ema_reference, "reset": reset_reference}


# Tokens whose log-prob moves with their advantage


def covariance(experience: Experience) -> jax.Array:
  """f32[B, L] (A - mean A)(lo - mean lo) on action tokens, 0 elsewhere (Cui et al. 2025, section 4.2).

  lo is `logp_old`, so that it is known before the first forward pass of an optimiser step.
  """
  mask = experience.is_action
  count = jnp.maximum(mask.sum(), 1)

  def centred(value: jax.Array) -> jax.Array:
    return value - jnp.where(mask, value, 0.0).sum() / count

  return jnp.where(mask, centred(experience.advantage) * centred(experience.logp_old), 0.0)


def _foremost(score: jax.Array, eligible: jax.Array, fraction: float, mask: jax.Array) -> jax.Array:
  """bool[B, L]: the eligible tokens with the highest scores, `fraction` of those in `mask` but at least one.

  Of equal scores the earlier token comes first.
  """
  count = jnp.maximum(jnp.round(fraction * mask.sum()), 1.0)
  flat = jnp.where(eligible, score, -jnp.inf).reshape(-1)
  order = jnp.argsort(flat, stable=True, descending=True)
  rank = jnp.zeros(flat.shape, jnp.int32).at[order].set(jnp.arange(flat.size, dtype=jnp.int32))
  return (rank < count).reshape(eligible.shape) & eligible


def random_tokens(experience: Experience, key: jax.Array, cfg: CovConfig) -> jax.Array:
  """bool[B, L]: clip_cov's tokens, a random `fraction` with a covariance in (low, high).

  Cui et al. 2025, section 4.2. No ratio is clipped at `logp_old`; a token that the clip cuts later has no
  gradient left to lose. A token's noise comes from its ordinal among the actions, so that padding changes
  nothing. Consumes the key.
  """
  mask, value = experience.is_action, covariance(experience)
  ordinal = jnp.cumsum(mask.reshape(-1)) - 1
  noise = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i)))(ordinal).reshape(mask.shape)
  assert cfg.low is not None and cfg.high is not None and cfg.fraction is not None  # go with the kind
  return _foremost(noise, mask & (value > cfg.low) & (value < cfg.high), cfg.fraction, mask)


def top_tokens(experience: Experience, key: jax.Array, cfg: CovConfig) -> jax.Array:
  """bool[B, L]: kl_cov's tokens, the `fraction` with the highest covariance (Cui et al. 2025, section 4.3).

  The key is not used.
  """
  mask = experience.is_action
  return _foremost(covariance(experience), mask, cfg.fraction, mask)  # type: ignore[arg-type]


TokenMask = Callable[[Experience, jax.Array], jax.Array]  # (minibatch, key) -> bool[B, L]
TOKEN_MASKS: dict[str, Callable[[Experience, jax.Array, CovConfig], jax.Array] | None] = {
  "none": None,
  "clip_cov": random_tokens,
  "kl_cov": top_tokens,
}


def token_mask(cfg: CovConfig) -> TokenMask | None:
  """What picks the tokens of clip_cov and kl_cov; None: no token is picked."""
  pick = TOKEN_MASKS[cfg.kind]
  return None if pick is None else lambda experience, key: pick(experience, key, cfg)


# Penalties


@dataclasses.dataclass(frozen=True)
class Penalty:
  """A summand of the loss that is a function of the parameters and the stage's first ones alone."""

  name: str
  apply: Callable[[Any, Any, Hyperparams], tuple[jax.Array, dict[str, Stat]]]


def _l2_init(params: Any, init: Any, hyperparams: Hyperparams) -> tuple[jax.Array, dict[str, Stat]]:
  """coefficient / 2 * ||theta - theta_0||^2 over the policy's parameters (Kumar et al. 2023, section 3)."""
  gaps = jax.tree.map(lambda p, q: jnp.sum((p - q) ** 2), policy_params(params), init)
  squared = jax.tree.reduce(jnp.add, gaps)
  distance = jnp.sqrt(jax.lax.stop_gradient(squared))
  return 0.5 * hyperparams["l2_init"] * squared, {"l2_init/distance": Mean(distance, jnp.ones(()))}


PENALTIES = (Penalty("l2_init", _l2_init),)


def rl_penalties(terms: frozenset[str]) -> tuple[Penalty, ...]:
  """The penalties among the active terms."""
  return tuple(penalty for penalty in PENALTIES if penalty.name in terms)


# Controllers


@dataclasses.dataclass(frozen=True)
class Controller:
  """A coefficient that follows a measurement, once a training step."""

  name: str  # of the hyperparameter
  start: float
  measure: str  # name of the statistic, as the first optimiser step has it
  # (coefficient, measured, completions) -> the next coefficient
  move: Callable[[jax.Array, jax.Array, int], jax.Array]


def follow_kl(
  coef: jax.Array, measured: jax.Array, completions: int, *, target: float, horizon: float
) -> jax.Array:
  """beta (1 + clip(KL / target - 1, -0.2, 0.2) n / horizon) (Ziegler et al. 2019, section 2.2)."""
  return coef * (1.0 + jnp.clip(measured / target - 1.0, -0.2, 0.2) * completions / horizon)


def follow_entropy(
  coef: jax.Array, measured: jax.Array, completions: int, *, target: float, rate: float
) -> jax.Array:
  """coefficient + rate below the target, else - rate, never negative (Skywork-OR1, He et al. 2025, 4)."""
  return jnp.maximum(jnp.where(measured < target, coef + rate, coef - rate), 0.0)


def rl_controllers(cfg: RLConfig) -> tuple[Controller, ...]:
  """The controllers an RL configuration asks for."""
  controllers, kl = [], cfg.kl
  if kl.target is not None and kl.horizon is not None:  # one goes with the other
    move = functools.partial(follow_kl, target=kl.target, horizon=kl.horizon)
    controllers.append(Controller("kl.coef", kl.coef, f"kl/{kl.estimator}", move))
  if cfg.entropy_target is not None and cfg.entropy_rate is not None:
    follow = functools.partial(follow_entropy, target=cfg.entropy_target, rate=cfg.entropy_rate)
    controllers.append(Controller("entropy", cfg.entropy, "entropy", follow))
  return tuple(controllers)


def first_coefficients(controllers: tuple[Controller, ...]) -> Hyperparams | None:
  """What TrainState.controllers begins with, f32[] each; None without controllers.

  A population that shares one program gives each member those of its own configuration.
  """
  return {c.name: jnp.float32(c.start) for c in controllers} or None


def moved(
  controllers: tuple[Controller, ...], coefficients: Hyperparams, stats: dict[str, Stat], completions: int
) -> Hyperparams:
  """The coefficients of the next training step; a statistic that is not finite moves none."""
  new = dict(coefficients)
  for controller in controllers:
    old, measured = coefficients[controller.name], stats[controller.measure].value()
    value = controller.move(old, measured, completions)
    new[controller.name] = jnp.where(jnp.isfinite(measured), value, old)
  return new
