"""Losses: a sum of terms, each of which says what it needs of the forward pass.

A term turns (TokenScores, Experience, Hyperparams, Norms) into this micro-batch's SHARE of the global loss
and statistics: shares and their gradients add up over micro-batches to those of the batch, because every
denominator (`Norms`) is computed over the global batch beforehand. Which terms exist is static, their
coefficients are traced. Formulas are per token and to be minimised; lp = log pi, lo = logp_old, r = exp(lp
- lo), A = advantage.
"""

import dataclasses
from typing import Callable, NamedTuple

import chex
import jax
import jax.numpy as jnp

from o1jax.config import LossConfig, RLConfig, active_terms
from o1jax.rl.critic import clipped_error, squared_error, value_loss
from o1jax.rl.regularisers import EXACT_KL, KL_ESTIMATORS, bounded
from o1jax.types import (
  Experience,
  Hyperparams,
  Max,
  Mean,
  Norms,
  Stat,
  TokenScores,
  check_experience,
  masked_max,
  masked_mean,
)

# Nats by which two compiled passes of one model over one text round a token's log-prob apart, at most.
ROUNDING = {"float32": 1e-4, "bfloat16": 5e-2}

Share = tuple[jax.Array, dict[str, Stat]]  # of the global loss f32[], and statistics
Apply = Callable[[TokenScores, Experience, Hyperparams, Norms], Share]
Aggregate = Callable[[jax.Array, Experience, Norms, int], jax.Array]


@dataclasses.dataclass(frozen=True)
class Term:
  """One summand of the loss. `needs`: of "entropy", "kl_reverse", "kl_forward", "logp_ref", "value"."""

  name: str
  needs: frozenset[str]
  apply: Apply


# Completions within rows


def _sequence_sum(value: jax.Array, experience: Experience, segments: int) -> jax.Array:
  """f32[B, L]: each token gets the sum of `value` over the action tokens of its completion."""
  value = jnp.where(experience.is_action, value, 0.0)
  if segments == 1:
    return jnp.broadcast_to(value.sum(1, keepdims=True), value.shape)
  count = experience.tokens.shape[0]
  ids = jnp.arange(count)[:, None] * segments + jnp.maximum(experience.segment - 1, 0)  # padding: the first
  sums = jax.ops.segment_sum(value.reshape(-1), ids.reshape(-1), count * segments)
  return sums[ids]


def _sequence_length(experience: Experience, segments: int) -> jax.Array:
  """f32[B, L]: action tokens of each token's completion, at least 1."""
  return jnp.maximum(_sequence_sum(jnp.ones_like(experience.weight), experience, segments), 1.0)


def global_norms(experience: Experience, max_tokens: int, segments: int = 1) -> Norms:
  """Denominators of the global batch; `segments`: completions in a row at most, `max_tokens`: R_max."""
  tokens = experience.is_action.astype(jnp.float32).sum()
  share = jnp.where(experience.is_action, 1.0 / _sequence_length(experience, segments), 0.0)
  completions = jnp.round(share.sum())
  completions = jnp.maximum(completions, 1.0)
  return Norms(jnp.maximum(tokens, 1.0), completions, completions * max_tokens)


# Aggregation: f32[B, L] -> this micro-batch's share, f32[]


def _total(value: jax.Array, experience: Experience) -> jax.Array:
  return jnp.where(experience.is_action, value, 0.0).sum()


def seq_mean_token_mean(value: jax.Array, experience: Experience, norms: Norms, segments: int) -> jax.Array:
  """Mean over completions of the mean over their tokens (Shao et al. 2024, eq. 3)."""
  return _total(value / _sequence_length(experience, segments), experience) / norms.completions


def token_mean(value: jax.Array, experience: Experience, norms: Norms, segments: int) -> jax.Array:
  """Sum over all action tokens of the global batch (Yu et al. 2025, DAPO, section 3.3)."""
  return _total(value, experience) / norms.tokens


def budget_mean(value: jax.Array, experience: Experience, norms: Norms, segments: int) -> jax.Array:
  """Sum over completions * R_max, so that length has no weight (Liu et al. 2025, section 3.2)."""
  return _total(value, experience) / norms.budget


AGGREGATIONS: dict[str, Aggregate] = {
  "seq_mean_token_mean": seq_mean_token_mean,
  "token_mean": token_mean,
  "dr_grpo": budget_mean,
}

# Policy losses


class Clips(NamedTuple):
  """Tokens whose gradient a policy loss cuts, each bool[B, L]."""

  low: jax.Array  # by the ratio's lower bound
  high: jax.Array  # by its upper bound; cispo: whose weight is capped
  dual: jax.Array | None = None  # by dual_clip's bound for A < 0


LossOfTokens = tuple[jax.Array, Clips | None]  # f32[B, L], and what is clipped; None: the loss does not clip


def _clips(ratio: jax.Array, advantage: jax.Array, hyperparams: Hyperparams) -> Clips:
  low = (ratio < 1.0 - hyperparams["loss.clip_low"]) & (advantage < 0)
  high = (ratio > 1.0 + hyperparams["loss.clip_high"]) & (advantage > 0)
  return Clips(low, high)


def reinforce(
  log_ratio: jax.Array, logp: jax.Array, advantage: jax.Array, hyperparams: Hyperparams, cfg: LossConfig
) -> LossOfTokens:
  """-A lp (Williams 1992)."""
  return -advantage * logp, None


def ppo_clip(
  log_ratio: jax.Array, logp: jax.Array, advantage: jax.Array, hyperparams: Hyperparams, cfg: LossConfig
) -> LossOfTokens:
  """-min(r A, clip(r, 1 - low, 1 + high) A) (Schulman et al. 2017, eq. 7; asymmetric: DAPO, section 3.1)."""
  ratio = jnp.exp(log_ratio)
  clipped = jnp.clip(ratio, 1.0 - hyperparams["loss.clip_low"], 1.0 + hyperparams["loss.clip_high"])
  return -jnp.minimum(ratio * advantage, clipped * advantage), _clips(ratio, advantage, hyperparams)


def dual_clip(
  log_ratio: jax.Array, logp: jax.Array, advantage: jax.Array, hyperparams: Hyperparams, cfg: LossConfig
) -> LossOfTokens:
  """ppo_clip, and for A < 0 no more than -c A, which cuts the gradient above r = c (Ye et al. 2020, eq. 5).

  That cut is counted as `dual`, apart from those of the clip, as other libraries count the clip's alone.
  """
  loss, _ = ppo_clip(log_ratio, logp, advantage, hyperparams, cfg)
  ratio = jnp.exp(log_ratio)
  assert cfg.dual_clip is not None  # goes with the kind
  clips = _clips(ratio, advantage, hyperparams)._replace(dual=(ratio > cfg.dual_clip) & (advantage < 0))
  return jnp.where(advantage < 0, jnp.minimum(loss, -cfg.dual_clip * advantage), loss), clips


def cispo(
  log_ratio: jax.Array, logp: jax.Array, advantage: jax.Array, hyperparams: Hyperparams, cfg: LossConfig
) -> LossOfTokens:
  """-sg(min(r, 1 + high)) A lp: every token keeps its gradient (MiniMax-M1 2025, eq. 4)."""
  ratio, cap = jnp.exp(log_ratio), 1.0 + hyperparams["loss.clip_high"]
  high = (ratio > cap) & (advantage > 0)
  weight = jax.lax.stop_gradient(jnp.minimum(ratio, cap))
  return -weight * advantage * logp, Clips(jnp.zeros_like(high), high)


def sapo(
  log_ratio: jax.Array, logp: jax.Array, advantage: jax.Array, hyperparams: Hyperparams, cfg: LossConfig
) -> LossOfTokens:
  """-A 4 sigmoid(tau (r - 1)) / tau, tau 1.0 for A > 0 and 1.05 else (Gao et al. 2025)."""
  tau = jnp.where(advantage > 0, 1.0, 1.05)
  return -advantage * 4.0 * jax.nn.sigmoid(tau * (jnp.exp(log_ratio) - 1.0)) / tau, None


def token_ratio(log_ratio: jax.Array, experience: Experience, segments: int) -> jax.Array:
  """Each token's own."""
  return log_ratio


def _mean_ratio(log_ratio: jax.Array, experience: Experience, segments: int) -> jax.Array:
  """Mean over the completion (Zheng et al. 2025, GSPO, eq. 7)."""
  return _sequence_sum(log_ratio, experience, segments) / _sequence_length(experience, segments)


def mean_of_tokens(value: jax.Array, experience: Experience, segments: int) -> Mean:
  """Over action tokens."""
  return masked_mean(value, experience.is_action)


def _mean_of_completions(value: jax.Array, experience: Experience, segments: int) -> Mean:
  """Each completion counts once, however long: its ratio is one number, clipped or not."""
  share = 1.0 / _sequence_length(experience, segments)
  return Mean(_total(value * share, experience), _total(share, experience))


class PolicyLoss(NamedTuple):
  """A policy loss of tokens, and the ratio that it is of."""

  # (log ratio, lp, A, each f32[B, L]; Hyperparams, LossConfig) -> LossOfTokens
  fn: Callable[[jax.Array, jax.Array, jax.Array, Hyperparams, LossConfig], LossOfTokens]
  # (lp - lo f32[B, L], Experience, segments) -> log ratio f32[B, L]; a sum over a completion is its own ratio
  ratio: Callable[[jax.Array, Experience, int], jax.Array] = token_ratio
  # (f32[B, L], Experience, segments) -> the mean that `clip_ratio/*` are
  clip_mean: Callable[[jax.Array, Experience, int], Mean] = mean_of_tokens


POLICY_LOSSES = {
  "reinforce": PolicyLoss(reinforce),
  "ppo_clip": PolicyLoss(ppo_clip),
  "dual_clip": PolicyLoss(dual_clip),
  "cispo": PolicyLoss(cispo),
  "gspo": PolicyLoss(ppo_clip, _mean_ratio, _mean_of_completions),
  "rloo": PolicyLoss(ppo_clip, _sequence_sum, _mean_of_completions),
  "sapo": PolicyLoss(sapo),
}


def _cov_mask(experience: Experience) -> jax.Array:
  if experience.cov_mask is None:
    raise ValueError("clip_cov and kl_cov need Experience.cov_mask")
  return experience.cov_mask & experience.is_action


def _policy(cfg: RLConfig, segments: int) -> Apply:
  policy_loss, aggregate = POLICY_LOSSES[cfg.loss.kind], AGGREGATIONS[cfg.loss.aggregation]

  def apply(scores: TokenScores, experience: Experience, hyperparams: Hyperparams, norms: Norms) -> Share:
    """This micro-batch's share of the policy loss, and its statistics."""
    mask = experience.is_action
    logp = jnp.where(mask, scores.logp, 0.0)
    gap = jnp.where(mask, scores.logp - experience.logp_old, 0.0)
    log_ratio = bounded(policy_loss.ratio(gap, experience, segments))
    loss, clips = policy_loss.fn(log_ratio, logp, experience.advantage, hyperparams, cfg.loss)
    gap = jnp.abs(jax.lax.stop_gradient(logp) - experience.logp_sampler)
    stats: dict[str, Stat] = {"logp_gap/mean": masked_mean(gap, mask), "logp_gap/max": masked_max(gap, mask)}
    if clips is not None:
      shares = {name: c.astype(jnp.float32) for name, c in clips._asdict().items() if c is not None}
      for name, share in {**shares, "region": shares["low"] + shares["high"]}.items():
        stats[f"clip_ratio/{name}_mean"] = policy_loss.clip_mean(share, experience, segments)
    if experience.cov_mask is not None:
      stats["cov/held_back_mean"] = masked_mean(_cov_mask(experience).astype(jnp.float32), mask)
    if cfg.cov.kind == "clip_cov":  # its tokens lose their gradient (Cui et al. 2025, section 4.2)
      loss = jnp.where(_cov_mask(experience), 0.0, loss)
    return aggregate(loss * experience.weight, experience, norms, segments), stats

  return apply


# KL to the reference (estimators: regularisers.py)


def _kl_stats(gap: jax.Array, mask: jax.Array, hyperparams: Hyperparams) -> dict[str, Stat]:
  """Every sampled estimate, and the coefficient (one number, which any merging must leave as it is: Max)."""
  gap = jax.lax.stop_gradient(gap)
  stats: dict[str, Stat] = {"kl/coef": Max(hyperparams["kl.coef"])}
  return stats | {f"kl/{name}": masked_mean(estimate(gap), mask) for name, estimate in KL_ESTIMATORS.items()}


def _gap(scores: TokenScores, experience: Experience) -> jax.Array:
  if experience.logp_ref is None:
    raise ValueError("a KL term needs Experience.logp_ref")
  return jnp.where(experience.is_action, scores.logp - experience.logp_ref, 0.0)


def _sampled_kl(cfg: RLConfig, segments: int) -> Apply:
  estimate, aggregate = KL_ESTIMATORS[cfg.kl.estimator], AGGREGATIONS[cfg.loss.aggregation]

  def apply(scores: TokenScores, experience: Experience, hyperparams: Hyperparams, norms: Norms) -> Share:
    gap = _gap(scores, experience)
    value = estimate(gap)
    if cfg.kl.times_ratio:
      log_ratio = jnp.where(experience.is_action, scores.logp - experience.logp_old, 0.0)
      value = value * jnp.exp(bounded(log_ratio))
    share = aggregate(value * experience.weight, experience, norms, segments)
    return hyperparams["kl.coef"] * share, _kl_stats(gap, experience.is_action, hyperparams)

  return apply


def _exact_kl(cfg: RLConfig, segments: int) -> Apply:
  pick, aggregate = EXACT_KL[cfg.kl.estimator], AGGREGATIONS[cfg.loss.aggregation]

  def apply(scores: TokenScores, experience: Experience, hyperparams: Hyperparams, norms: Norms) -> Share:
    value = pick(scores)
    if value is None:
      raise ValueError(f"TokenScores lack the exact KL {cfg.kl.estimator}")
    stats = _kl_stats(_gap(scores, experience), experience.is_action, hyperparams)
    stats[f"kl/{cfg.kl.estimator}"] = masked_mean(jax.lax.stop_gradient(value), experience.is_action)
    return hyperparams["kl.coef"] * aggregate(value * experience.weight, experience, norms, segments), stats

  return apply


def _measured_kl(
  scores: TokenScores, experience: Experience, hyperparams: Hyperparams, norms: Norms
) -> Share:
  """No loss: the KL already stands in the reward, and is only measured."""
  return jnp.zeros(()), _kl_stats(_gap(scores, experience), experience.is_action, hyperparams)


def _kl_term(cfg: RLConfig, segments: int, dtype: str) -> Term:
  """The KL to the reference, in the loss or measured alone."""
  if cfg.kl.estimator in EXACT_KL:
    return Term("kl", frozenset({"logp_ref", f"kl_{cfg.kl.estimator}"}), _exact_kl(cfg, segments))
  apply = _measured_kl if cfg.kl.placement == "reward" else _sampled_kl(cfg, segments)
  return Term("kl", frozenset({"logp_ref"}), apply)


def _entropy(bonus: bool) -> Apply:
  """-coefficient * entropy, mean over the action tokens of the global batch; without `bonus` measured."""

  def apply(scores: TokenScores, experience: Experience, hyperparams: Hyperparams, norms: Norms) -> Share:
    entropy: jax.Array = scores.entropy  # type: ignore[assignment]  # the term asks for it
    stats: dict[str, Stat] = {
      "entropy": masked_mean(jax.lax.stop_gradient(entropy), experience.is_action),
      "entropy/coef": Max(hyperparams["entropy"]),
    }
    share = token_mean(entropy, experience, norms, 1) if bonus else jnp.zeros(())
    return -hyperparams["entropy"] * share, stats

  return apply


def _kl_cov_term(cfg: RLConfig, segments: int, dtype: str) -> Term:
  """coefficient * |lp - lo| on kl_cov's tokens, aggregated as the policy loss (Cui et al. 2025, section 4.3).

  A gap of no more than ROUNDING counts for 0: at the first optimiser step of a rollout it is rounding
  alone, and its sign would push each token at full strength. The published code (verl, PRIME) does not make
  this exception.
  """
  aggregate, rounding = AGGREGATIONS[cfg.loss.aggregation], ROUNDING[dtype]

  def apply(scores: TokenScores, experience: Experience, hyperparams: Hyperparams, norms: Norms) -> Share:
    gap = jnp.where(_cov_mask(experience), scores.logp - experience.logp_old, 0.0)
    size = jnp.where(jnp.abs(gap) > rounding, jnp.abs(gap), 0.0)
    return hyperparams["cov.coef"] * aggregate(size * experience.weight, experience, norms, segments), {}

  return Term("cov", frozenset(), apply)


# Terms that exist where their coefficient is not 0, under the names that their config fields declare:
# (RLConfig, completions in a row at most, dtype of the model) -> Term
TERMS: dict[str, Callable[[RLConfig, int, str], Term]] = {"kl": _kl_term, "cov": _kl_cov_term}


def _nll(scores: TokenScores, experience: Experience, hyperparams: Hyperparams, norms: Norms) -> Share:
  """-lp, token mean: imitation of the actions."""
  share = token_mean(-scores.logp * experience.weight, experience, norms, 1)
  return share, {"nll": masked_mean(-jax.lax.stop_gradient(scores.logp), experience.is_action)}


def sft_terms() -> tuple[Term, ...]:
  """The terms of the cold start."""
  return (Term("nll", frozenset(), _nll),)


def rl_terms(
  cfg: RLConfig, terms: frozenset[str] | None = None, segments: int = 1, dtype: str = "float32"
) -> tuple[Term, ...]:
  """The terms of the RL stage; `segments`: completions in a row at most; `dtype`: of the model.

  terms: the active ones, of all members of a population, which share one program: a traced coefficient of 0
  does there what another's 0.1 does. None: those of `cfg`. The entropy is measured in any case.
  """
  terms = active_terms([cfg]) if terms is None else terms
  bonus = "entropy" in terms or cfg.entropy_target is not None
  parts = [
    Term("policy", frozenset(), _policy(cfg, segments)),
    Term("entropy", frozenset({"entropy"}), _entropy(bonus)),
  ]
  parts += [build(cfg, segments, dtype) for name, build in TERMS.items() if name in terms]
  if cfg.critic.kind != "none":
    error = squared_error if cfg.critic.clip is None else clipped_error(cfg.critic.clip)
    parts.append(Term("value", frozenset({"value"}), value_loss(error)))
  return tuple(parts)


def needs(terms: tuple[Term, ...]) -> frozenset[str]:
  """What the terms ask of the forward pass and of the Experience."""
  return frozenset().union(*(term.needs for term in terms))


def objective(terms: tuple[Term, ...]) -> Apply:
  """The sum of the terms: (share of the global loss, statistics of all terms and `loss/<name>` of each)."""

  def apply(scores: TokenScores, experience: Experience, hyperparams: Hyperparams, norms: Norms) -> Share:
    """This micro-batch's share of the loss, and all statistics."""
    check_experience(experience)
    chex.assert_equal_shape([*jax.tree.leaves(scores), experience.tokens])
    total, stats = jnp.zeros(()), dict[str, Stat]()
    for term in terms:
      share, term_stats = term.apply(scores, experience, hyperparams, norms)
      chex.assert_rank(share, 0)
      total = total + share
      fraction = experience.is_action.astype(jnp.float32).sum() / norms.tokens
      stats |= {**term_stats, f"loss/{term.name}": Mean(jax.lax.stop_gradient(share), fraction)}
    return total, stats

  return apply
