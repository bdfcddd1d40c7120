"""Statistics of a verified rollout: the same numbers on the stepwise loop and in the fused program."""

import jax
import jax.numpy as jnp

from o1jax.types import Max, Min, Rollout, Stat, masked_mean


@jax.jit
def rollout_stats(rollout: Rollout, reward: jax.Array, correct: jax.Array) -> dict[str, Stat]:
  """accuracy, rewards/task/mean, completions/{mean,min,max}_length, {correct,incorrect}/mean_length, ...

  reward f32[P, G] is the verifier's, NaN where a completion was not judged; correct bool[B]. Lengths count
  the policy's actions, its EOS included.
  """
  length = rollout.is_action.sum(1).astype(jnp.float32)
  everything, judged = jnp.ones(length.shape, bool), ~jnp.isnan(reward.reshape(-1))
  return {
    "accuracy": masked_mean(correct.astype(jnp.float32), judged),
    "rewards/task/mean": masked_mean(reward.reshape(-1), judged),
    "completions/mean_length": masked_mean(length, everything),
    "completions/min_length": Min(length.min()),
    "completions/max_length": Max(length.max()),
    "completions/clipped_ratio": masked_mean((~rollout.finished).astype(jnp.float32), everything),
    "correct/mean_length": masked_mean(length, correct),
    "incorrect/mean_length": masked_mean(length, ~correct & judged),
  }


def learned_stats(stats: dict[str, Stat]) -> dict[str, Stat]:
  """`learned/<name>`: `rollout_stats` after dynamic sampling; plain names are of the first draw.

  The chosen are near one half right by selection, and do not measure the policy. Their reward is the metric
  `reward`.
  """
  return {f"learned/{name}": stat for name, stat in stats.items() if name != "rewards/task/mean"}
