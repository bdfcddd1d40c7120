"""FLOPs of an RL step: its passes over rollouts by size (a pass: `scaling.flops`)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from o1jax.config import RLConfig, TrainConfig
from o1jax.rl.dynamic_sampling import SampleCounts
from o1jax.rl.experience import response_width
from o1jax.rl.learner import Learner
from o1jax.rl.losses import needs
from o1jax.rl.sampler import buffer_sizes
from o1jax.scaling.flops import Ledger, Sizes, diagnostic_flops, judging_flops, learning_flops, sampling_flops


class StepSizes(NamedTuple):
  """Prompt and response tokens of a step's rollouts."""

  learned: Sizes  # of the groups that it learns from
  draws: list[Sizes]  # of the first draw and of each round of dynamic sampling
  greedy: Sizes | None  # of remax's

  @property
  def all_draws(self) -> list[Sizes]:
    return self.draws if self.greedy is None else [*self.draws, self.greedy]


def step_sizes(counts: SampleCounts, prompts: np.ndarray, samples: int) -> StepSizes:
  """Sizes of the rollouts of one step, `samples` completions a problem.

  prompts: i[n], prompt tokens of the problems in the order in which they were drawn, P for each draw.
  """
  count = np.asarray(counts.place).shape[0]
  lengths = np.asarray(counts.lengths).reshape(-1, samples)

  def sizes(rows: np.ndarray) -> Sizes:
    return Sizes(prompts[rows].tolist(), lengths[rows])

  draws = [sizes(np.arange(count) + first) for first in range(0, (1 + int(counts.rounds)) * count, count)]
  learned = sizes(np.asarray(counts.place))
  if counts.greedy is None:
    return StepSizes(learned, draws, None)
  return StepSizes(learned, draws, Sizes(learned.prompts, np.asarray(counts.greedy)[:, None]))


def references(learner: Learner) -> int:
  """Forward passes of a step without a backward one: of the reference, and for the old log-probs."""
  needed, cfg = needs(learner.terms), learner.cfg
  exact = bool(needed & {"kl_reverse", "kl_forward"})  # each pass scores the reference anew
  return int("logp_ref" in needed) + int(cfg.loss.logp_old == "learner") + cfg.epochs * exact


def critic_passes(cfg: RLConfig) -> dict[str, int]:
  """Passes of a decoder for the critic alone, without the head; arguments of `learning_flops`."""
  own, head = cfg.critic.kind == "own", cfg.critic.kind == "head"
  forward = own or head and cfg.loss.logp_old == "sampler"  # else the pass for the old log-probs serves it
  return {"values": int(forward), "value_updates": cfg.epochs * own}


def sampling_width(max_tokens: int, longest: int) -> int:
  """Columns of the sampler's key buffer behind a rollout; the last token drawn is never fed back."""
  return next(size for size in buffer_sizes(max_tokens) if size >= longest - 1)


def step_flops(config: TrainConfig, learner: Learner, sizes: StepSizes) -> Ledger:
  """FLOPs of an RL step: all its draws, their rewards, and the update."""
  cfg = config.rl

  def response(rollout: Sizes) -> int:
    return response_width(cfg, int(rollout.lengths.max()))

  passes = {"updates": cfg.epochs, "references": references(learner), **critic_passes(cfg)}
  model, prompt, judges = config.model, cfg.max_prompt, learner.rewarder.passes
  packed = cfg.pack_length > 0
  flops = learning_flops(model, sizes.learned, prompt, response(sizes.learned), **passes, packed=packed)
  for draw in sizes.all_draws:
    width, refilled = sampling_width(cfg.max_tokens, int(draw.lengths.max())), cfg.slots > 0
    flops += sampling_flops(model, draw, prompt, width, refilled=refilled)
    flops += judging_flops(model, draw, prompt, response(draw), judges=judges)
  return flops + Ledger(extra_samples=sum(draw.lengths.size for draw in sizes.draws[1:]))


def diagnosis_flops(
  config: TrainConfig, learner: Learner, learned: Sizes, width: int, draws: Sequence[Sizes] = ()
) -> Ledger:
  """FLOPs of `diagnostics.examine` on the groups of a step, `width` response columns wide.

  draws: rollouts that were made for the diagnosis alone, and judged.
  """
  passes = examined_passes(learner) + (learner.rewarder.passes if draws else 0)
  prompt = config.rl.max_prompt
  return diagnostic_flops(config.model, learned, prompt, width, passes=passes, draws=draws)


def examined_passes(learner: Learner) -> int:
  """Forward passes, a backward one counted as two, that `diagnostics.examine` makes of a rollout."""
  cfg = learner.cfg
  noise = cfg.prompts > 1  # the policy's gradient once more, by prompt group
  steps = 3 * (cfg.epochs + len(learner.terms) + noise)  # its own step, and each term's gradient alone
  values, learned = critic_passes(cfg).values()
  exact = 4  # two scores with exact KLs, each of two policies
  return references(learner) + steps + exact + values + 3 * learned
