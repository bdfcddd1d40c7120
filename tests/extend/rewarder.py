"""An example Rewarder: the verifier's reward, and a reward for the tokens of a response's first half."""

import jax
import jax.numpy as jnp

from o1jax.rl.reward_model import Rewarder
from o1jax.types import Reward, masked_mean


def early_tokens(params, batch, *, model) -> Reward:
  """Pays 0.1 for each of the first 4 actions of a response, where they are drawn."""
  action = batch.rollout.is_action
  early = action & (jnp.cumsum(action, axis=1) <= 4)
  token = jnp.where(early, 0.1, 0.0)
  everything = jnp.ones(action.shape[0], bool)
  return Reward(batch.verified, token, {"rewards/early/mean": masked_mean(token.sum(1), everything)})


REWARDER = Rewarder(jax.jit(early_tokens, static_argnames="model"), passes=0)
