"""What a state is like before a step: exact KLs, gradients by term, their noise, entropy by position, one step's way, tests.

`examine` looks at a rollout that the state has drawn and takes the step it would take, and then forgets it. Its phases are
executables of their own, so that it holds at once what the greediest of them does, which is about what the step itself
does; within a program they are the program's. It only reads the state.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from o1jax.config import RLConfig
from o1jax.model.transformer import Decoder
from o1jax.rl.dynamic_sampling import Barrier
from o1jax.rl.objective import CLIP_MEANS, POLICY_LOSSES, RATIOS, global_norms, mean_of_tokens, token_ratio
from o1jax.rl.sampler import SampleConfig, generate
from o1jax.rl.score import score
from o1jax.rl.stages import Stage
from o1jax.rl.step import LearnerInputs, make_experience
from o1jax.rl.update import UpdateConfig, gradients, in_force, learn
from o1jax.types import Experience, PromptBatch, Rollout, Strengths, TokenScores, TrainState

POSITIONS = 8  # bins of a response's positions
EXACT = frozenset({"entropy", "kl_reverse", "kl_forward"})


def _mean(value: Any, mask: jax.Array) -> jax.Array:
  """Mean of f32[B, L] where bool[B, L]; NaN where there is nothing."""
  return jnp.where(mask, value, 0.0).sum() / mask.sum()


def _a_completion(value: Any, mask: jax.Array) -> jax.Array:
  """Mean over completions of the sum of f32[B, L] where bool[B, L]; completions of nothing are left out, NaN of none."""
  return jnp.where(mask, value, 0.0).sum() / mask.any(1).sum()


@functools.partial(jax.jit, static_argnames=("model", "stage", "cfg"))
def _scores(params: Any, ref: Any, experience: Experience, strengths, *, model, stage, cfg) -> TokenScores:
  """Log-probs, entropies and exact KLs of `params` against `ref` on the tokens of `experience`."""
  return score(
    params, ref, experience.tokens, experience.segment, experience.position, model=model,
    temperature=strengths.temperature, needs=EXACT, layout=stage.update.layout, chunk=cfg.head_chunk,
  )  # fmt: skip


@functools.partial(jax.jit, static_argnames=("model", "stage"))
def _stepped(state: TrainState, experience: Experience, key: jax.Array, strengths, *, model, stage) -> Any:
  """The parameters behind the step, without its moments."""
  return learn(state, experience, key, strengths, model=model, tx=stage.tx, cfg=stage.update)[0].params


@functools.partial(jax.jit, static_argnames=("model", "cfg"))
def _gradient(
  params: Any, ref: Any, experience: Experience, strengths, *, model: Decoder, cfg: UpdateConfig
) -> Any:
  """The gradient of a minibatch under the terms of `cfg`."""
  norms = global_norms(experience, cfg.max_tokens, cfg.segments)
  return gradients(params, ref, experience, strengths, norms, model=model, cfg=cfg)[1]


_norm = jax.jit(optax.tree.norm)


@functools.partial(jax.jit, static_argnames=("model", "cfg"))
def _beside(policy: Any, *given: Any, **static: Any) -> tuple[jax.Array, jax.Array]:
  """(norm of a term's gradient, its product with the policy's), of which nothing else stays."""
  grad = _gradient(*given, **static)
  return optax.tree.norm(grad), optax.tree.vdot(grad, policy)


def _by_term(
  state: TrainState, experience: Experience, strengths, *, model, stage, barrier: Barrier = lambda tree: tree
) -> tuple[dict[str, jax.Array], Any]:
  """grad_norm/<term> of each term alone, grad_cosine/<term> to the policy's gradient, and that gradient.

  A cosine with a gradient of 0 is NaN. One term after the other: no gradient is held but the policy's and the term's own.
  """
  alone = {term.name: dataclasses.replace(stage.update, terms=(term,)) for term in stage.update.terms}
  given = (state.params, state.ref_params, experience, strengths)
  policy = barrier(_gradient(*given, model=model, cfg=alone["policy"]))
  norm = {"policy": barrier(_norm(policy))}
  told = {}
  for name in alone.keys() - {"policy"}:
    norm[name], product = barrier(_beside(policy, *given, model=model, cfg=alone[name]))
    told[f"grad_cosine/{name}"] = product / (norm[name] * norm["policy"])
  return told | {f"grad_norm/{name}": value for name, value in norm.items()}, policy


@functools.partial(jax.jit, static_argnames=("model", "stage", "groups"))
def _noise(
  state: TrainState, experience: Experience, mean: Any, strengths: Strengths, *, model, stage, groups: int
) -> dict[str, jax.Array]:
  """grad_noise/{trace,signal,scale} of the policy term; `mean` is its gradient g over the whole batch.

  The batch's loss is a sum over its P prompt groups, so that g = mean_p g_p with g_p = P times group p's share of it.
  Then trace = sum_p |g_p - g|^2 / (P (P - 1)) estimates E |g - E g|^2, the trace of the covariance of g;
  signal = max(|g|^2 - trace, 0) estimates |E g|^2, as E |g|^2 = |E g|^2 + trace; and scale = trace / |g|^2 is the simple
  noise scale tr(Sigma) / |G|^2 of McCandlish et al. 2018 (eq. 2.9) over the number of prompts, with g for the true G.
  Groups count as independent: an advantage that is whitened over the batch, and the batch's own count of tokens, tie
  them a little, which this does not see; after refill rounds they are the groups that were chosen. {} where there is one
  group alone; the scale of a gradient of 0 is NaN.
  """
  if groups < 2:
    return {}
  update = stage.update
  norms = global_norms(experience, update.max_tokens, update.segments)
  terms = tuple(term for term in update.terms if term.name == "policy")
  alone = dataclasses.replace(update, terms=terms, micro_batches=1)

  def away(group: Experience) -> jax.Array:
    grad = gradients(state.params, state.ref_params, group, strengths, norms, model=model, cfg=alone)[1]
    gaps = jax.tree.map(lambda own, whole: jnp.sum((groups * own - whole) ** 2), grad, mean)
    return sum(jax.tree.leaves(gaps), jnp.zeros(()))

  apart = jax.tree.map(lambda a: a.reshape(groups, -1, *a.shape[1:]), experience)
  trace = jax.lax.map(away, apart).sum() / (groups * (groups - 1))
  square = optax.tree.norm(mean, squared=True)
  return {
    "grad_noise/trace": trace,
    "grad_noise/signal": jnp.maximum(square - trace, 0.0),
    "grad_noise/scale": jnp.where(square > 0, trace / square, jnp.nan),
  }


def _by_position(entropy: Any, mask: jax.Array, prompt: int) -> dict[str, jax.Array]:
  """entropy_at/<first token of a bin>: mean entropy of the response tokens in each of 8 bins of position, NaN of none."""
  size = -(-(mask.shape[1] - prompt) // POSITIONS)
  starts = range(0, mask.shape[1] - prompt, size)
  cut = lambda a, first: a[:, prompt + first : prompt + first + size]
  return {f"entropy_at/{first:03d}": _mean(cut(entropy, first), cut(mask, first)) for first in starts}


def _moved(
  new: jax.Array, experience: Experience, strengths: Strengths, stage: Stage, cfg: RLConfig
) -> dict[str, jax.Array]:
  """ess and clipped/{positive,negative} after the step, by the ratio that the loss has: a token's, or a completion's.

  ess: (sum w)^2 / (n sum w^2) of the n ratios w (Kish 1965). clipped/<sign of A>: the share of what has that sign whose
  gradient the loss cuts (cispo: whose weight it caps).
  """
  segments, kind = stage.update.segments, cfg.loss.kind
  mask, advantage = experience.is_action, experience.advantage
  gap = jnp.where(mask, new - experience.logp_old, 0.0)
  log_ratio = RATIOS.get(kind, token_ratio)(gap, experience, segments)
  mean = lambda value, where: CLIP_MEANS.get(kind, mean_of_tokens)(
    value, dataclasses.replace(experience, is_action=where), segments
  ).value()
  weight = jnp.exp(log_ratio - jnp.max(jnp.where(mask, log_ratio, -jnp.inf)))  # of any scale: it cancels
  told = {"ess": mean(weight, mask) ** 2 / mean(weight**2, mask)}
  cuts = POLICY_LOSSES[kind](log_ratio, new, advantage, strengths, cfg.loss)[1]
  if cuts is not None:
    cut = functools.reduce(jnp.logical_or, cuts).astype(jnp.float32)
    told["clipped/positive"] = mean(cut, mask & (advantage > 0))
    told["clipped/negative"] = mean(cut, mask & (advantage < 0))
  return told


@functools.partial(jax.jit, static_argnames=("stage", "cfg"))
def _figures(
  now: TokenScores,
  then: TokenScores,
  experience: Experience,
  strengths: Strengths,
  *,
  stage: Stage,
  cfg: RLConfig,
) -> dict[str, jax.Array]:
  """What the scores before and behind the step say."""
  mask = experience.is_action
  return {
    "kl_reverse": _mean(now.kl_reverse, mask),
    "kl_forward": _mean(now.kl_forward, mask),
    "kl_sequence": _a_completion(now.kl_reverse, mask),
    "kl_of_step": _mean(then.kl_forward, mask),
    **_by_position(now.entropy, mask, cfg.max_prompt),
    **_moved(then.logp, experience, strengths, stage, cfg),
  }


@functools.partial(jax.jit, static_argnames=("cfg",))
def _held_back(experience: Experience, key: jax.Array, *, cfg: UpdateConfig) -> Experience:
  """The experience as the first optimiser step sees it."""
  held_back = cfg.hold_back(experience, jax.random.fold_in(key, cfg.epochs))
  return dataclasses.replace(experience, held_back=held_back)


def examine(
  state: TrainState,
  first_params: Any,
  inputs: LearnerInputs,
  *,
  model: Decoder,
  stage: Stage,
  cfg: RLConfig,
  barrier: Barrier = lambda tree: tree,
) -> dict[str, jax.Array]:
  """f32[] figures of `state` on a rollout it drew; `inputs` as in `train_step`, whose step is taken and forgotten.

  first_params: the policy the stage began with, to which `kl_reverse` = KL(pi || first) and `kl_forward` are exact
  over the vocabulary, nats a token; `kl_sequence` is the former summed over a completion's actions, nats a completion:
  as the rollout is pi's, its expectation is the KL of whole completions (after refill rounds, on the problems that were
  chosen). What nothing was measured of is NaN. Consumes the key, which is the step's own.
  """
  strengths, key = inputs.strengths, inputs.key
  experience, _ = make_experience(state, inputs, model=model, stage=stage, cfg=cfg, barrier=barrier)
  scored = functools.partial(_scores, model=model, stage=stage, cfg=cfg)
  now = barrier(scored(state.params, first_params, experience, strengths))
  after = barrier(_stepped(state, experience, key, strengths, model=model, stage=stage))
  then = barrier(scored(after, state.params, experience, strengths))
  del after  # its memory is the gradients'
  told = barrier(_figures(now, then, experience, strengths, stage=stage, cfg=cfg))
  effective = in_force(strengths, state.controllers)
  experience = barrier(_held_back(experience, key, cfg=stage.update))
  told_by_term, grad = _by_term(state, experience, effective, model=model, stage=stage, barrier=barrier)
  noise = barrier(_noise(state, experience, grad, effective, model=model, stage=stage, groups=cfg.prompts))
  return told | told_by_term | noise


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
  draw = lambda block: generate(params, block, key, temperature, model=model, samples=samples, cfg=sampling)
  rollouts = jax.lax.map(draw, blocks)
  return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), rollouts)
