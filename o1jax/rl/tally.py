"""What a verified rollout says of its completions, as statistics: the same numbers on the host's loop and in one program."""

import jax
import jax.numpy as jnp

from o1jax.types import Max, Min, Rollout, Stat, masked_mean


@jax.jit
def tally(rollout: Rollout, reward: jax.Array, correct: jax.Array) -> dict[str, Stat]:
  """accuracy, rewards/task/mean, completions/{mean,min,max}_length in tokens, {correct,incorrect}/mean_length and so on.

  reward f32[P, G] is the verifier's, NaN where a completion was not judged; correct bool[B]. Lengths count what the policy
  chose, its EOS included.
  """
  length = rollout.is_action.sum(1).astype(jnp.float32)
  whole, judged = jnp.ones(length.shape, bool), ~jnp.isnan(reward.reshape(-1))
  return {
    "accuracy": masked_mean(correct.astype(jnp.float32), judged),
    "rewards/task/mean": masked_mean(reward.reshape(-1), judged),
    "completions/mean_length": masked_mean(length, whole),
    "completions/min_length": Min(length.min()),
    "completions/max_length": Max(length.max()),
    "completions/clipped_ratio": masked_mean((~rollout.finished).astype(jnp.float32), whole),
    "correct/mean_length": masked_mean(length, correct),
    "incorrect/mean_length": masked_mean(length, ~correct & judged),
  }


def of_chosen(told: dict[str, Stat]) -> dict[str, Stat]:
  """`learned/<name>`: what `tally` says of the groups that refilling chose, where the plain names are of the first draw.

  Those are near one half right by selection, and say nothing of how good the policy is. Their reward is `reward`.
  """
  return {f"learned/{name}": stat for name, stat in told.items() if name != "rewards/task/mean"}
