"""What a verified rollout says of its completions, as statistics: the same numbers on the host's loop and in one program."""

import jax
import jax.numpy as jnp

from o1jax.types import Max, Mean, Min, Rollout, Stat, masked_mean


@jax.jit
def tally(rollout: Rollout, reward: jax.Array, correct: jax.Array) -> dict[str, Stat]:
  """accuracy, rewards/task/mean, completions/{mean,min,max}_length in tokens, {correct,incorrect}/mean_length and so on.

  reward f32[P, G] is the verifier's, correct bool[B]. Lengths count what the policy chose, its EOS included.
  """
  length = rollout.is_action.sum(1).astype(jnp.float32)
  whole = jnp.ones(length.shape, bool)
  return {
    "accuracy": masked_mean(correct.astype(jnp.float32), whole),
    "rewards/task/mean": Mean(reward.sum(), jnp.float32(reward.size)),
    "completions/mean_length": masked_mean(length, whole),
    "completions/min_length": Min(length.min()),
    "completions/max_length": Max(length.max()),
    "completions/clipped_ratio": masked_mean((~rollout.finished).astype(jnp.float32), whole),
    "correct/mean_length": masked_mean(length, correct),
    "incorrect/mean_length": masked_mean(length, ~correct),
  }
