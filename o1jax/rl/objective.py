"""The objective: a sum of terms, each of which says what it needs of the forward pass.

A term turns (TokenScores, Experience, Strengths, Norms) into this micro-batch's SHARE of the global loss and
statistics: shares and their gradients add up over micro-batches to those of the whole batch, because every
denominator (`Norms`) is computed over the whole batch beforehand. Which terms exist is static, how strong they are
is traced. Formulas are per token and to be minimised; lp = log pi, lo = logp_old, r = exp(lp - lo), A = advantage.
"""

import dataclasses
import functools
from typing import Callable

import jax
import jax.numpy as jnp

from o1jax.config import LossConfig, RLConfig
from o1jax.rl.regularise import EXACT_KL, KL_ESTIMATORS, bounded
from o1jax.rl.value import clipped_error, squared_error, value_loss
from o1jax.types import Experience, Max, Mean, Norms, Stat, Strengths, TokenScores, masked_max, masked_mean

# Nats by which two compiled passes of one model over one text round a token's log-prob apart, at most.
ROUNDING = {"float32": 1e-4, "bfloat16": 5e-2}

Apply = Callable[[TokenScores, Experience, Strengths, Norms], tuple[jax.Array, dict[str, Stat]]]
Aggregate = Callable[[jax.Array, Experience, Norms, int], jax.Array]


@dataclasses.dataclass(frozen=True)
class Term:
  """One summand of the loss. `needs`: of "entropy", "kl_reverse", "kl_forward", "logp_ref", "value"."""

  name: str
  needs: frozenset[str]
  apply: Apply


# Sequences within rows


def _completion_ids(experience: Experience, segments: int) -> jax.Array:
  """i32[B, L]: which of the B * segments completions a token belongs to; padding goes to the row's first."""
  rows = jnp.arange(experience.tokens.shape[0])[:, None] * segments
  return rows + jnp.maximum(experience.segment - 1, 0)


def _sequence_sum(value: jax.Array, experience: Experience, segments: int) -> jax.Array:
  """f32[B, L]: each token gets the sum of `value` over the action tokens of its completion."""
  value = jnp.where(experience.is_action, value, 0.0)
  if segments == 1:
    return jnp.broadcast_to(value.sum(1, keepdims=True), value.shape)
  ids = _completion_ids(experience, segments)
  sums = jax.ops.segment_sum(value.reshape(-1), ids.reshape(-1), experience.tokens.shape[0] * segments)
  return sums[ids]


def _sequence_length(experience: Experience, segments: int) -> jax.Array:
  """f32[B, L]: action tokens of each token's completion, at least 1."""
  return jnp.maximum(_sequence_sum(jnp.ones_like(experience.weight), experience, segments), 1.0)


def global_norms(experience: Experience, max_tokens: int, segments: int) -> Norms:
  """Denominators of the whole batch; `segments`: completions in a row at most, `max_tokens`: R_max."""
  tokens = experience.is_action.astype(jnp.float32).sum()
  share = jnp.where(experience.is_action, 1.0 / _sequence_length(experience, segments), 0.0)
  completions = jnp.round(share.sum())
  return Norms(
    jnp.maximum(tokens, 1.0), jnp.maximum(completions, 1.0), jnp.maximum(completions, 1.0) * max_tokens
  )


# Aggregation: f32[B, L] -> this micro-batch's share, f32[]


def _total(value: jax.Array, experience: Experience) -> jax.Array:
  return jnp.where(experience.is_action, value, 0.0).sum()


def seq_mean_token_mean(value: jax.Array, experience: Experience, norms: Norms, segments: int) -> jax.Array:
  """Mean over completions of the mean over their tokens (Shao et al. 2024, eq. 3)."""
  return _total(value / _sequence_length(experience, segments), experience) / norms.completions


def token_mean(value: jax.Array, experience: Experience, norms: Norms, segments: int) -> jax.Array:
  """Sum over all action tokens of the global batch (Yu et al. 2025, DAPO, section 3.3)."""
  del segments
  return _total(value, experience) / norms.tokens


def budget_mean(value: jax.Array, experience: Experience, norms: Norms, segments: int) -> jax.Array:
  """Sum over completions * R_max, so that length has no weight (Liu et al. 2025, section 3.2)."""
  del segments
  return _total(value, experience) / norms.budget


AGGREGATIONS: dict[str, Aggregate] = {
  "seq_mean_token_mean": seq_mean_token_mean,
  "token_mean": token_mean,
  "dr_grpo": budget_mean,
}

# Policy losses: (log ratio f32[B, L], lp, A, Strengths, LossConfig) -> (loss f32[B, L], low bool, high bool | None)


def _clips(ratio: jax.Array, advantage: jax.Array, strengths: Strengths) -> tuple[jax.Array, jax.Array]:
  """Where the clip cuts the gradient, below and above."""
  low = (ratio < 1.0 - strengths.clip_low) & (advantage < 0)
  high = (ratio > 1.0 + strengths.clip_high) & (advantage > 0)
  return low, high


def reinforce(log_ratio, logp, advantage, strengths, cfg):
  """-A lp (Williams 1992)."""
  del log_ratio, strengths, cfg
  return -advantage * logp, None


def ppo_clip(log_ratio, logp, advantage, strengths, cfg):
  """-min(r A, clip(r, 1 - low, 1 + high) A) (Schulman et al. 2017, eq. 7; asymmetric: DAPO, section 3.1)."""
  del logp, cfg
  ratio = jnp.exp(log_ratio)
  clipped = jnp.clip(ratio, 1.0 - strengths.clip_low, 1.0 + strengths.clip_high)
  return -jnp.minimum(ratio * advantage, clipped * advantage), _clips(ratio, advantage, strengths)


def dual_clip(log_ratio, logp, advantage, strengths, cfg):
  """ppo_clip, and for A < 0 no more than -c A, which cuts the gradient above r = c (Ye et al. 2020, eq. 5).

  That cut is counted as `dual`, apart from those of the clip, as other libraries count the clip's alone.
  """
  loss, (low, high) = ppo_clip(log_ratio, logp, advantage, strengths, cfg)
  beyond = (jnp.exp(log_ratio) > cfg.dual) & (advantage < 0)
  return jnp.where(advantage < 0, jnp.minimum(loss, -cfg.dual * advantage), loss), (low, high, beyond)


def cispo(log_ratio, logp, advantage, strengths, cfg):
  """-sg(min(r, 1 + high)) A lp: every token keeps its gradient (MiniMax-M1 2025, eq. 4)."""
  del cfg
  ratio = jnp.exp(log_ratio)
  weight = jax.lax.stop_gradient(jnp.minimum(ratio, 1.0 + strengths.clip_high))
  high = (ratio > 1.0 + strengths.clip_high) & (advantage > 0)
  return -weight * advantage * logp, (jnp.zeros_like(high), high)


def sapo(log_ratio, logp, advantage, strengths, cfg):
  """-A 4 sigmoid(tau (r - 1)) / tau, tau 1.0 for A > 0 and 1.05 else (Gao et al. 2025)."""
  del logp, strengths, cfg
  tau = jnp.where(advantage > 0, 1.0, 1.05)
  return -advantage * 4.0 * jax.nn.sigmoid(tau * (jnp.exp(log_ratio) - 1.0)) / tau, None


POLICY_LOSSES = {
  "reinforce": reinforce,
  "ppo_clip": ppo_clip,
  "dual_clip": dual_clip,
  "cispo": cispo,
  "gspo": ppo_clip,  # of the sequence's ratio
  "rloo": ppo_clip,  # of the sequence's ratio
  "sapo": sapo,
}


def token_ratio(log_ratio: jax.Array, experience: Experience, segments: int) -> jax.Array:
  del experience, segments
  return log_ratio


def _mean_ratio(log_ratio: jax.Array, experience: Experience, segments: int) -> jax.Array:
  """Mean over the completion (Zheng et al. 2025, GSPO, eq. 7)."""
  return _sequence_sum(log_ratio, experience, segments) / _sequence_length(experience, segments)


def _sum_ratio(log_ratio: jax.Array, experience: Experience, segments: int) -> jax.Array:
  """Sum over the completion: the probability ratio of the whole sequence."""
  return _sequence_sum(log_ratio, experience, segments)


RATIOS = {"gspo": _mean_ratio, "rloo": _sum_ratio}


def mean_of_tokens(value: jax.Array, experience: Experience, segments: int) -> Mean:
  del segments
  return masked_mean(value, experience.is_action)


def _mean_of_completions(value: jax.Array, experience: Experience, segments: int) -> Mean:
  """Each completion counts once, however long: its ratio is one number, clipped or not."""
  share = 1.0 / _sequence_length(experience, segments)
  return Mean(_total(value * share, experience), _total(share, experience))


CLIP_MEANS = {"gspo": _mean_of_completions, "rloo": _mean_of_completions}


def _held_back(experience: Experience) -> jax.Array:
  if experience.held_back is None:
    raise ValueError("clip_cov and kl_cov need Experience.held_back")
  return experience.held_back & experience.is_action


def _whole(loss: jax.Array, experience: Experience) -> jax.Array:
  del experience
  return loss


def _clip_cov(loss: jax.Array, experience: Experience) -> jax.Array:
  """0 on the tokens held back, which lose their gradient (Cui et al. 2025, section 4.2)."""
  return jnp.where(_held_back(experience), 0.0, loss)


LEFT_OF_LOSS = {"none": _whole, "clip_cov": _clip_cov, "kl_cov": _whole}


def _policy(cfg: LossConfig, segments: int, left_of: Callable = _whole) -> Apply:
  """`left_of`: what is left of the loss of each token, (f32[B, L], Experience) -> f32[B, L]."""
  loss_of, aggregate = POLICY_LOSSES[cfg.kind], AGGREGATIONS[cfg.aggregation]
  ratio_of, clip_mean = RATIOS.get(cfg.kind, token_ratio), CLIP_MEANS.get(cfg.kind, mean_of_tokens)

  def apply(scores, experience, strengths, norms):
    """This micro-batch's share of the policy loss, and its statistics."""
    mask = experience.is_action
    logp = jnp.where(mask, scores.logp, 0.0)
    log_ratio = ratio_of(jnp.where(mask, scores.logp - experience.logp_old, 0.0), experience, segments)
    loss, clips = loss_of(bounded(log_ratio), logp, experience.advantage, strengths, cfg)
    gap = jnp.abs(jax.lax.stop_gradient(logp) - experience.logp_sampler)
    stats: dict[str, Stat] = {
      "logp_gap/mean": masked_mean(gap, mask),
      "logp_gap/max": masked_max(gap, mask),
    }
    if clips is not None:
      low, high, *dual = (c.astype(jnp.float32) for c in clips)
      for name, share in {
        "low": low,
        "high": high,
        "region": low + high,
        **dict(zip(["dual"], dual)),
      }.items():
        stats[f"clip_ratio/{name}_mean"] = clip_mean(share, experience, segments)
    if experience.held_back is not None:
      stats["cov/held_back_mean"] = masked_mean(_held_back(experience).astype(jnp.float32), mask)
    return aggregate(left_of(loss, experience) * experience.weight, experience, norms, segments), stats

  return apply


# KL to the reference (estimators: regularise.py)


def _kl_stats(gap: jax.Array, mask: jax.Array, strengths: Strengths) -> dict[str, Stat]:
  """Every sampled estimate, and the coefficient in force (one number, which any merging must leave as it is: Max)."""
  gap = jax.lax.stop_gradient(gap)
  stats: dict[str, Stat] = {"kl/coef": Max(strengths.kl)}
  return stats | {f"kl/{name}": masked_mean(estimate(gap), mask) for name, estimate in KL_ESTIMATORS.items()}


def _gap(scores: TokenScores, experience: Experience) -> jax.Array:
  if experience.logp_ref is None:
    raise ValueError("a KL term needs Experience.logp_ref")
  return jnp.where(experience.is_action, scores.logp - experience.logp_ref, 0.0)


def _sampled_kl(cfg: RLConfig, segments: int) -> Apply:
  estimate, aggregate = KL_ESTIMATORS[cfg.kl.estimator], AGGREGATIONS[cfg.loss.aggregation]

  def apply(scores, experience, strengths, norms):
    gap = _gap(scores, experience)
    value = estimate(gap)
    if cfg.kl.times_ratio:
      log_ratio = jnp.where(experience.is_action, scores.logp - experience.logp_old, 0.0)
      value = value * jnp.exp(bounded(log_ratio))
    share = aggregate(value * experience.weight, experience, norms, segments)
    return strengths.kl * share, _kl_stats(gap, experience.is_action, strengths)

  return apply


def _exact_kl(cfg: RLConfig, segments: int) -> Apply:
  pick, aggregate = EXACT_KL[cfg.kl.estimator], AGGREGATIONS[cfg.loss.aggregation]

  def apply(scores, experience, strengths, norms):
    value = pick(scores)
    if value is None:
      raise ValueError(f"TokenScores lack the exact KL {cfg.kl.estimator}")
    stats = _kl_stats(_gap(scores, experience), experience.is_action, strengths)
    stats[f"kl/{cfg.kl.estimator}"] = masked_mean(jax.lax.stop_gradient(value), experience.is_action)
    return strengths.kl * aggregate(value * experience.weight, experience, norms, segments), stats

  return apply


def _watched_kl(scores, experience, strengths, norms):
  """No loss: the KL already stands in the reward, and is only measured."""
  del norms
  return jnp.zeros(()), _kl_stats(_gap(scores, experience), experience.is_action, strengths)


def _entropy(scores, experience, strengths, norms, *, bonus: bool):
  """-coefficient * entropy, mean over the action tokens of the global batch whatever the policy's aggregation."""
  stats: dict[str, Stat] = {
    "entropy": masked_mean(jax.lax.stop_gradient(scores.entropy), experience.is_action),
    "entropy/coef": Max(strengths.entropy),
  }
  share = token_mean(scores.entropy, experience, norms, 1) if bonus else jnp.zeros(())
  return -strengths.entropy * share, stats


def _kl_cov(cfg: RLConfig, segments: int, rounding: float) -> Apply:
  """coefficient * |lp - lo| on the tokens held back, aggregated as the policy loss (Cui et al. 2025, section 4.3).

  A gap of no more than `rounding` counts for 0: at the first optimiser step of a rollout it is rounding alone, and its
  sign would push each token at full strength. The published code (verl, PRIME) does not make this exception.
  """
  aggregate = AGGREGATIONS[cfg.loss.aggregation]

  def apply(scores, experience, strengths, norms):
    gap = jnp.where(_held_back(experience), scores.logp - experience.logp_old, 0.0)
    size = jnp.where(jnp.abs(gap) > rounding, jnp.abs(gap), 0.0)
    return strengths.cov * aggregate(size * experience.weight, experience, norms, segments), {}

  return apply


def _nll(scores, experience, strengths, norms):
  """-lp, token mean: imitation of the actions."""
  del strengths
  share = token_mean(-scores.logp * experience.weight, experience, norms, 1)
  return share, {"nll": masked_mean(-jax.lax.stop_gradient(scores.logp), experience.is_action)}


def sft_terms() -> tuple[Term, ...]:
  """The terms of the cold start."""
  return (Term("nll", frozenset(), _nll),)


def rl_terms(
  cfg: RLConfig, segments: int = 1, keep: frozenset[str] = frozenset(), dtype: str = "float32"
) -> tuple[Term, ...]:
  """The terms an RL configuration asks for; `segments`: completions in a row at most; `dtype`: of the model.

  A term exists where its coefficient is not 0, or where `keep` ("kl", "entropy", "cov") names it: members of a population
  share one program, in which a traced coefficient of 0 must do what another's 0.1 does.
  """
  bonus = cfg.entropy != 0.0 or cfg.entropy_target is not None or "entropy" in keep
  terms = [
    Term("policy", frozenset(), _policy(cfg.loss, segments, LEFT_OF_LOSS[cfg.cov.kind])),
    Term("entropy", frozenset({"entropy"}), functools.partial(_entropy, bonus=bonus)),
  ]
  if cfg.kl.coef or "kl" in keep:
    kinds = {
      "loss": {**dict.fromkeys(KL_ESTIMATORS, _sampled_kl), **dict.fromkeys(EXACT_KL, _exact_kl)},
      "reward": dict.fromkeys(KL_ESTIMATORS, lambda cfg, segments: _watched_kl),
    }
    asks = {"reverse": {"kl_reverse"}, "forward": {"kl_forward"}}.get(cfg.kl.estimator, set())
    apply = kinds[cfg.kl.placement][cfg.kl.estimator](cfg, segments)
    terms.append(Term("kl", frozenset({"logp_ref", *asks}), apply))
  if cfg.cov.kind == "kl_cov" and (cfg.cov.coef or "cov" in keep):
    terms.append(Term("cov", frozenset(), _kl_cov(cfg, segments, ROUNDING[dtype])))
  if cfg.critic.kind != "none":
    error = squared_error if cfg.critic.clip is None else clipped_error(cfg.critic.clip)
    terms.append(Term("value", frozenset({"value"}), value_loss(error)))
  return tuple(terms)


def needs(terms: tuple[Term, ...]) -> frozenset[str]:
  """What the terms ask of the forward pass and of the Experience."""
  return frozenset().union(*(term.needs for term in terms))


def objective(terms: tuple[Term, ...]) -> Apply:
  """The sum of the terms: (share f32[] of the global loss, statistics of all terms and `loss/<name>` of each)."""

  def apply(scores, experience, strengths, norms):
    total, stats = jnp.zeros(()), dict[str, Stat]()
    for term in terms:
      share, told = term.apply(scores, experience, strengths, norms)
      total = total + share
      fraction = experience.is_action.astype(jnp.float32).sum() / norms.tokens
      stats |= {**told, f"loss/{term.name}": Mean(jax.lax.stop_gradient(share), fraction)}
    return total, stats

  return apply
