"""The critic: its parameters, its values, generalised advantages from them, and the loss it learns by.

    add_critic -> params["critic"] -> score -> values; values, rewards -> gae_sum -> advantage, returns
    (values, returns, values of the rollout) -> value loss, beside the policy's in one optimiser step

A value stands at the token it precedes: value[:, t] is that of the state in which tokens[:, t] is chosen,
from the hidden state that predicts the token. The critic lives in `params["critic"]`, which the decoder
never reads: sampling, references and evaluation are those of a run without one.

A head on the policy's hidden states shapes the policy's decoder by its loss; a critic of its own does not.
Both share the policy's optimiser, and so its clipping by the global norm. Left out: several critics,
bootstrapping beyond the budget.
"""

import dataclasses
from typing import Any, Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from o1jax.model.transformer import logical
from o1jax.types import (
  Credit,
  Experience,
  Explained,
  Hyperparams,
  Norms,
  Stat,
  TokenScores,
  check_credit,
  masked_mean,
  moments,
)

CRITIC = "critic"  # its entry in the parameters, beside the decoder's own


class ValueHead(nn.Module):
  """hidden f[..., D] -> value f32[...]: a linear map in float32 without a bias, which begins at zero."""

  @nn.compact
  def __call__(self, hidden: jax.Array) -> jax.Array:
    zeros = nn.initializers.zeros_init()
    kernel = self.param("kernel", logical(zeros, ("embed",)), (hidden.shape[-1],), jnp.float32)
    return hidden.astype(jnp.float32) @ kernel


# Parameters


def _add_head(params: Any) -> Any:
  width = nn.meta.unbox(params["embedding"]).shape[-1]
  head = ValueHead().init(jax.random.key(0), jnp.zeros((1, width)))["params"]  # zeros, whatever the key
  return {**params, CRITIC: {"head": head}}


def _add_own(params: Any) -> Any:
  critic = {**_add_head(params)[CRITIC], "decoder": jax.tree.map(jnp.copy, params)}
  return {**params, CRITIC: critic}


# "head": on the policy's own hidden states; "own": and a decoder that begins as a copy of the policy's.
CRITICS: dict[str, Callable[[Any], Any] | None] = {"none": None, "head": _add_head, "own": _add_own}


def add_critic(params: Any, kind: str) -> Any:
  """The policy's parameters, boxed or not, with a critic's, whose value head is boxed with its axis names."""
  add = CRITICS[kind]
  return params if add is None else add(params)


def policy_params(params: Any) -> Any:
  """The parameters without the critic's: the sampler's, and those that a reference is a copy of."""
  return {name: leaf for name, leaf in params.items() if name != CRITIC}


def values(params: Any, hidden: jax.Array, encode: Callable[[Any], jax.Array]) -> jax.Array:
  """f32[N, T] values of the states whose hidden states in the policy's decoder are `hidden` f[N, T, D].

  `encode` turns a decoder's parameters into its hidden states of the same tokens; a critic that has a
  decoder reads its own instead.
  """
  critic = params[CRITIC]
  states = encode(critic["decoder"]) if "decoder" in critic else hidden
  value: Any = ValueHead().apply({"params": critic["head"]}, states)
  return value


# Advantages


def gae_sum(credit: Credit, gamma: float, lam: float) -> jax.Array:
  """Generalised advantages f32[B, L] on the actions of included completions, 0 elsewhere.

  Schulman et al. 2016, eq. 16: delta_t = r_t + gamma V_{t+1} - V_t, advantage_t = sum_k (gamma lam)^k
  delta_{t+k}, over a completion's actions alone: t + 1 is the next token that the policy chose, so that a
  forced token takes no time. r_t is the per-token reward, and the outcome as well at the last action.
  Behind that V is 0, also where the completion was cut off at its budget: the budget is part of the task,
  and nothing more will come. Raises ValueError without values.
  """
  if credit.value is None:
    raise ValueError("gae needs the critic's values")
  check_credit(credit)
  mask = credit.is_action & credit.include.reshape(-1, 1)
  to_come = jnp.flip(jnp.cumsum(jnp.flip(mask, 1), 1), 1)
  reward = jnp.where(to_come == 1, credit.outcome.reshape(-1, 1), 0.0)
  reward = reward if credit.token is None else reward + credit.token
  reward, value = (jnp.where(mask, a, 0.0).astype(jnp.float32) for a in (reward, credit.value))

  def back(later, now):
    (next_value, next_sum), (r, v, acts) = later, now
    total = r + gamma * next_value - v + gamma * lam * next_sum
    return (jnp.where(acts, v, next_value), jnp.where(acts, total, next_sum)), jnp.where(acts, total, 0.0)

  nothing = jnp.zeros(mask.shape[0], jnp.float32)
  _, sums = jax.lax.scan(back, (nothing, nothing), (reward.T, value.T, mask.T), reverse=True)
  return sums.T


def with_returns(experience: Experience, credit: Credit, gamma: float, lam: float) -> Experience:
  """The experience with what its critic learns from: the values, and the returns gae_sum + value.

  Unchanged without values. The returns are those of the advantages before any whitening. A completion that
  is left out returns its value.
  """
  if credit.value is None:
    return experience
  value = jnp.where(credit.is_action, credit.value, 0.0)
  return dataclasses.replace(experience, returns=gae_sum(credit, gamma, lam) + value, value_old=value)


# Loss

# (v, R, v_old, each f32[B, L]) -> (loss f32[B, L], statistics by token under their names)
Error = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


def squared_error(value: jax.Array, returns: jax.Array, old: jax.Array) -> tuple[jax.Array, dict]:
  """(v - R)^2 / 2."""
  return 0.5 * (value - returns) ** 2, {}


def clipped_error(clip: float) -> Error:
  """max((v - R)^2, (clip(v, v_old - clip, v_old + clip) - R)^2) / 2, as in the code of Schulman et al. 2017.

  The value of a token stops moving towards its return once it is `clip` away from the rollout's.
  """

  def error(value, returns, old):
    near = jnp.clip(value, old - clip, old + clip)
    free, clipped = (value - returns) ** 2, (near - returns) ** 2
    return 0.5 * jnp.maximum(free, clipped), {"value/clip_ratio": (clipped > free).astype(jnp.float32)}

  return error


def value_loss(error: Error) -> Callable[[TokenScores, Experience, Hyperparams, Norms], tuple]:
  """The term of the critic: coefficient * error, mean over the action tokens of the global batch."""

  def apply(
    scores: TokenScores, experience: Experience, hyperparams: Hyperparams, norms: Norms
  ) -> tuple[jax.Array, dict[str, Stat]]:
    """This micro-batch's share of the value loss, and its statistics."""
    if experience.returns is None or experience.value_old is None or scores.value is None:
      raise ValueError("a value loss needs TokenScores.value, Experience.returns and Experience.value_old")
    mask = experience.is_action
    value, returns, old = (
      jnp.where(mask, a, 0.0) for a in (scores.value, experience.returns, experience.value_old)
    )
    loss, by_token = error(value, returns, old)
    stop = jax.lax.stop_gradient
    stats: dict[str, Stat] = {name: masked_mean(stop(share), mask) for name, share in by_token.items()}
    stats["value/mean"] = masked_mean(stop(value), mask)
    stats["value/explained_variance"] = Explained(moments(returns, mask), moments(returns - old, mask))
    share = jnp.where(mask, loss * experience.weight, 0.0).sum() / norms.tokens
    return hyperparams["critic.coef"] * share, stats

  return apply
