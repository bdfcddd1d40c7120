"""Diagnostics of a state before a step: exact KLs, gradients by term, noise, entropy by position.

`examine` scores a rollout of the state, and takes the step that the state would take, without keeping it.
Its phases are executables of their own, so that its peak memory is that of the largest, about the step's
own; within a program they are the program's. It only reads the state.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from o1jax.model.transformer import Decoder
from o1jax.rl.dynamic_sampling import Barrier
from o1jax.rl.generate import generate
from o1jax.rl.learner import Learner, apply_controllers, gradients, masked_experience, run_epochs
from o1jax.rl.losses import POLICY_LOSSES, global_norms
from o1jax.rl.sampler import SampleConfig
from o1jax.rl.scoring import score
from o1jax.rl.step import LearnerInputs, make_experience
from o1jax.types import Experience, Hyperparams, PromptBatch, Rollout, TokenScores, TrainState

POSITIONS = 8  # bins of a response's positions
EXACT = frozenset({"entropy", "kl_reverse", "kl_forward"})


def _mean(value: Any, mask: jax.Array) -> jax.Array:
  """Mean of f32[B, L] where bool[B, L]; NaN where there is nothing."""
  return jnp.where(mask, value, 0.0).sum() / mask.sum()


def _mean_of_sums(value: Any, mask: jax.Array) -> jax.Array:
  """Mean over completions of the sum of f32[B, L] where bool[B, L]; empty ones are left out, NaN of none."""
  return jnp.where(mask, value, 0.0).sum() / mask.any(1).sum()


@functools.partial(jax.jit, static_argnames="learner")
def _scores(
  params: Any, ref: Any, experience: Experience, hyperparams: Hyperparams, *, learner: Learner
) -> TokenScores:
  """Log-probs, entropies and exact KLs of `params` against `ref` on the tokens of `experience`."""
  return score(
    params, ref, experience.tokens, experience.segment, experience.position, model=learner.model,
    temperature=hyperparams["temperature"], needs=EXACT, layout=learner.layout, chunk=learner.head_chunk,
  )  # fmt: skip


@functools.partial(jax.jit, static_argnames="learner")
def _stepped(
  state: TrainState, experience: Experience, key: jax.Array, hyperparams: Hyperparams, *, learner: Learner
) -> Any:
  """The parameters behind the step, without its moments."""
  return run_epochs(state, experience, key, hyperparams, learner=learner).state.params


@functools.partial(jax.jit, static_argnames="learner")
def _gradient(
  params: Any, ref: Any, experience: Experience, hyperparams: Hyperparams, *, learner: Learner
) -> Any:
  """The gradient of a minibatch under the learner's terms."""
  norms = global_norms(experience, learner.max_tokens)
  return gradients(params, ref, experience, hyperparams, norms, learner=learner)[1]


_norm = jax.jit(optax.tree.norm)


@functools.partial(jax.jit, static_argnames="learner")
def _norm_and_product(policy: Any, *inputs: Any, learner: Learner) -> tuple[jax.Array, jax.Array]:
  """(norm of a term's gradient, its product with the policy's), of which nothing else stays."""
  grad = _gradient(*inputs, learner=learner)
  return optax.tree.norm(grad), optax.tree.vdot(grad, policy)


def _by_term(
  state: TrainState,
  experience: Experience,
  hyperparams: Hyperparams,
  *,
  learner: Learner,
  barrier: Barrier = lambda tree: tree,
) -> tuple[dict[str, jax.Array], Any]:
  """grad_norm/<term> of each term alone, grad_cosine/<term> to the policy's gradient, and that gradient.

  A cosine with a gradient of 0 is NaN. One term after the other: memory has the policy's gradient and the
  term's own.
  """
  alone = {term.name: dataclasses.replace(learner, terms=(term,)) for term in learner.terms}
  inputs = (state.params, state.ref_params, experience, hyperparams)
  policy = barrier(_gradient(*inputs, learner=alone["policy"]))
  norm, cosines = {"policy": barrier(_norm(policy))}, {}
  for name in alone.keys() - {"policy"}:
    norm[name], product = barrier(_norm_and_product(policy, *inputs, learner=alone[name]))
    cosines[f"grad_cosine/{name}"] = product / (norm[name] * norm["policy"])
  return cosines | {f"grad_norm/{name}": value for name, value in norm.items()}, policy


@functools.partial(jax.jit, static_argnames="learner")
def _noise(
  state: TrainState, experience: Experience, mean: Any, hyperparams: Hyperparams, *, learner: Learner
) -> dict[str, jax.Array]:
  """grad_noise/{trace,signal,scale} of the policy term; `mean` is its gradient g over the batch.

  The batch's loss is a sum over its P prompt groups, so that g = mean_p g_p with g_p = P times group p's
  share of it. Then trace = sum_p |g_p - g|^2 / (P (P - 1)) estimates E |g - E g|^2, the trace of the
  covariance of g; signal = max(|g|^2 - trace, 0) estimates |E g|^2, as E |g|^2 = |E g|^2 + trace; and scale
  = trace / |g|^2 is the simple noise scale tr(Sigma) / |G|^2 of McCandlish et al. 2018 (eq. 2.9) over the
  number of prompts, with g for the true G. Groups count as independent: an advantage that is whitened over
  the batch, and the batch's own count of tokens, tie them a little, which this does not see; after dynamic
  sampling they are the groups that were chosen. {} where there is one group alone; the scale of a gradient of
  0 is NaN.
  """
  groups = learner.cfg.prompts
  if groups < 2:
    return {}
  norms = global_norms(experience, learner.max_tokens)
  terms = tuple(term for term in learner.terms if term.name == "policy")
  alone = dataclasses.replace(learner, terms=terms, micro_batches=1)

  def squared_gap(group: Experience) -> jax.Array:
    grad = gradients(state.params, state.ref_params, group, hyperparams, norms, learner=alone)[1]
    gaps = jax.tree.map(lambda own, total: jnp.sum((groups * own - total) ** 2), grad, mean)
    return sum(jax.tree.leaves(gaps), jnp.zeros(()))

  by_group = jax.tree.map(lambda a: a.reshape(groups, -1, *a.shape[1:]), experience)
  trace = jax.lax.map(squared_gap, by_group).sum() / (groups * (groups - 1))
  square = optax.tree.norm(mean, squared=True)
  return {
    "grad_noise/trace": trace,
    "grad_noise/signal": jnp.maximum(square - trace, 0.0),
    "grad_noise/scale": jnp.where(square > 0, trace / square, jnp.nan),
  }


def _by_position(entropy: Any, mask: jax.Array, prompt: int) -> dict[str, jax.Array]:
  """entropy_at/<first token of a bin>: mean entropy of response tokens in 8 bins of position, NaN of none."""
  size = -(-(mask.shape[1] - prompt) // POSITIONS)
  starts = range(0, mask.shape[1] - prompt, size)

  def cut(a: Any, first: int) -> Any:
    return a[:, prompt + first : prompt + first + size]

  return {f"entropy_at/{first:03d}": _mean(cut(entropy, first), cut(mask, first)) for first in starts}


def _moved(
  new: jax.Array, experience: Experience, hyperparams: Hyperparams, learner: Learner
) -> dict[str, jax.Array]:
  """ess and clipped/{positive,negative} after the step, by the loss's ratio: a token's, or a completion's.

  ess: (sum w)^2 / (n sum w^2) of the n ratios w (Kish 1965). clipped/<sign of A>: the share of what has
  that sign whose gradient the loss cuts (cispo: whose weight it caps).
  """
  loss, policy_loss = learner.cfg.loss, POLICY_LOSSES[learner.cfg.loss.kind]
  mask, advantage = experience.is_action, experience.advantage
  log_ratio = policy_loss.ratio(jnp.where(mask, new - experience.logp_old, 0.0), experience, 1)

  def mean(value: jax.Array, mask: jax.Array) -> jax.Array:
    return policy_loss.clip_mean(value, dataclasses.replace(experience, is_action=mask), 1).value()

  weight = jnp.exp(log_ratio - jnp.max(jnp.where(mask, log_ratio, -jnp.inf)))  # of any scale: it cancels
  figures = {"ess": mean(weight, mask) ** 2 / mean(weight**2, mask)}
  clips = policy_loss.fn(log_ratio, new, advantage, hyperparams, loss)[1]
  if clips is not None:
    either = functools.reduce(jnp.logical_or, (clip for clip in clips if clip is not None))
    figures["clipped/positive"] = mean(either.astype(jnp.float32), mask & (advantage > 0))
    figures["clipped/negative"] = mean(either.astype(jnp.float32), mask & (advantage < 0))
  return figures


@functools.partial(jax.jit, static_argnames="learner")
def _figures(
  now: TokenScores, then: TokenScores, experience: Experience, hyperparams: Hyperparams, *, learner: Learner
) -> dict[str, jax.Array]:
  """Figures of the scores before and behind the step."""
  mask = experience.is_action
  return {
    "kl_reverse": _mean(now.kl_reverse, mask),
    "kl_forward": _mean(now.kl_forward, mask),
    "kl_sequence": _mean_of_sums(now.kl_reverse, mask),
    "kl_of_step": _mean(then.kl_forward, mask),
    **_by_position(now.entropy, mask, learner.cfg.max_prompt),
    **_moved(then.logp, experience, hyperparams, learner),
  }


@functools.partial(jax.jit, static_argnames="learner")
def _first_masked(experience: Experience, key: jax.Array, *, learner: Learner) -> Experience:
  """The experience with the tokens that the first optimiser step picks; consumes the key."""
  return masked_experience(experience, jax.random.fold_in(key, learner.epochs), learner)


def examine(
  state: TrainState,
  first_params: Any,
  inputs: LearnerInputs,
  *,
  learner: Learner,
  barrier: Barrier = lambda tree: tree,
) -> dict[str, jax.Array]:
  """f32[] figures of `state` on a rollout of its own; `inputs` as in `train_step`, whose step is not kept.

  first_params: the policy the stage began with, to which `kl_reverse` = KL(pi || first) and `kl_forward`
  are exact over the vocabulary, nats a token; `kl_sequence` is the former summed over a completion's
  actions, nats a completion: as the rollout is pi's, its expectation is the KL of whole completions (after
  dynamic sampling, on the problems that were chosen). What nothing was measured of is NaN. Consumes the
  key, which is the step's own.
  """
  hyperparams, key = inputs.hyperparams, inputs.key
  experience, _ = make_experience(state, inputs, learner=learner, barrier=barrier)
  now = barrier(_scores(state.params, first_params, experience, hyperparams, learner=learner))
  after = barrier(_stepped(state, experience, key, hyperparams, learner=learner))
  then = barrier(_scores(after, state.params, experience, hyperparams, learner=learner))
  del after  # its memory is the gradients'
  figures = barrier(_figures(now, then, experience, hyperparams, learner=learner))
  hyperparams = apply_controllers(hyperparams, state.controllers)
  experience = barrier(_first_masked(experience, key, learner=learner))
  by_term, grad = _by_term(state, experience, hyperparams, learner=learner, barrier=barrier)
  noise = barrier(_noise(state, experience, grad, hyperparams, learner=learner))
  return figures | by_term | noise


def sample_blocks(
  params: Any,
  problems: PromptBatch,
  key: jax.Array,
  temperature: jax.Array,
  *,
  model: Decoder,
  samples: int,
  sampling: SampleConfig,
  batch: int,
) -> Rollout:
  """K samples each of n problems, `batch` of them at a time; n is a multiple of `batch`. Consumes the key."""
  blocks = jax.tree.map(lambda a: a.reshape(-1, batch, *a.shape[1:]), problems)

  def draw(block: PromptBatch) -> Rollout:
    return generate(params, block, key, temperature, model=model, samples=samples, cfg=sampling)

  rollouts = jax.lax.map(draw, blocks)
  return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), rollouts)
