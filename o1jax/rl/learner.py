"""The learner: what is static about learning in a stage, and a training step as one compiled program.

    Experience -> epochs x minibatches: denominators of the minibatch -> scan over micro-batches (scores,
    loss, gradient; shares only add) -> penalties -> clip -> AdamW -> reference, controllers -> TrainState

A loss or gradient that is not finite leaves parameters and optimiser as they were; the metrics show it.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from o1jax.config import RLConfig, TrainConfig, active_terms, static_config, traced_values
from o1jax.model.transformer import Decoder
from o1jax.parallel.sharding import batch_shards
from o1jax.rl.critic import add_critic, policy_params
from o1jax.rl.experience import make_packing, packed
from o1jax.rl.losses import Term, global_norms, needs, objective, rl_terms, sft_terms
from o1jax.rl.optim import decaying, learning_rate, make_optimizer
from o1jax.rl.regularisers import (
  REFERENCES,
  Controller,
  Penalty,
  Reference,
  TokenMask,
  first_coefficients,
  is_reset,
  moved,
  rl_controllers,
  rl_penalties,
  token_mask,
)
from o1jax.rl.reward_model import REWARDERS, Rewarder
from o1jax.rl.scoring import Grouped, Packed, score
from o1jax.types import Experience, Hyperparams, Mean, Norms, Stat, TrainState, blank_stats, merge_stats


@dataclasses.dataclass(frozen=True)
class Learner:
  """The static part of learning in a stage; hashable. Learners that differ in host fields share a program."""

  name: str  # "sft" | "rl"
  model: Decoder
  tx: optax.GradientTransformation
  terms: tuple[Term, ...]
  layout: Packed | Grouped
  max_tokens: int  # R_max of the dr_grpo aggregation
  cfg: RLConfig = RLConfig()  # `static_config` of the RL stage's options; not read in the cold start
  epochs: int = 1
  minibatches: int = 1
  micro_batches: int = 1
  head_chunk: int = 4096
  pack_length: int = 0  # tokens of a row that completions are packed into for their gradient; 0: not
  reference: Reference | None = None  # how the reference moves behind a step; None: it does not
  reset_optimizer: bool = False
  token_mask: TokenMask | None = None  # of a whole minibatch, before its first forward pass
  penalties: tuple[Penalty, ...] = ()
  controllers: tuple[Controller, ...] = ()
  # Whether a rollout's first optimiser step, whose policy is the old one, takes its own log-probs for the old
  # ones. Two programs round a text apart, in bfloat16 by more than the clips of a ratio of completions.
  exact_start: bool = False
  rewarder: Rewarder = REWARDERS["none"]
  # Read by the host alone.
  first: int = dataclasses.field(default=0, compare=False)  # steps of the run before this stage
  steps: int = dataclasses.field(default=0, compare=False)  # of this stage
  eval_every: int = dataclasses.field(default=0, compare=False)  # steps between evaluations; 0: none


def sft_learner(config: TrainConfig, steps: int, first: int = 0) -> Learner:
  """The learner of the cold start over `steps` steps."""
  cfg = config.sft
  return Learner(
    "sft", Decoder(config.model), make_optimizer(cfg.optim), sft_terms(), Packed(), cfg.length,
    micro_batches=cfg.micro_batches, first=first, steps=steps, eval_every=config.eval.every[0],
  )  # fmt: skip


def rl_learner(config: TrainConfig, terms: frozenset[str] | None = None) -> Learner:
  """The learner of the RL stage, after the cold start.

  terms: `active_terms` of the members of a population, which share the program; None: of this configuration
  alone.
  """
  cfg = config.rl
  terms = active_terms([cfg]) if terms is None else terms
  return Learner(
    "rl", Decoder(config.model), make_optimizer(cfg.optim),
    rl_terms(cfg, terms, segments=cfg.pack_length or 1, dtype=config.model.dtype),
    Grouped(cfg.max_prompt, cfg.samples), cfg.max_tokens, static_config(cfg), cfg.epochs, cfg.minibatches,
    cfg.micro_batches, cfg.head_chunk, cfg.pack_length, reference=REFERENCES[cfg.kl.reference],
    reset_optimizer=cfg.kl.reset_optimizer, token_mask=token_mask(cfg.cov), penalties=rl_penalties(terms),
    controllers=rl_controllers(cfg), exact_start=cfg.loss.logp_old == "learner",
    rewarder=REWARDERS[cfg.reward_model.kind], first=config.sft.steps, steps=cfg.steps,
    eval_every=config.eval.every[1],
  )  # fmt: skip


def hyperparams(config: TrainConfig, learner: Learner, step: int) -> Hyperparams:
  """The traced numbers of step `step` of the run (from 1), by dotted name below the stage's options.

  Schedules are applied; controllers overrule theirs (`apply_controllers`). The cold start is at temperature
  1.
  """
  done = step - 1 - learner.first
  if learner.name == "sft":
    optim, numbers = config.sft.optim, {"temperature": 1.0, **traced_values(config.sft)}
  else:
    optim, numbers, kl = config.rl.optim, traced_values(config.rl), config.rl.kl
    numbers["kl.coef"] = decaying(kl.coef, kl.schedule, kl.final_fraction, learner.steps)(done)
  numbers["optim.lr"] = learning_rate(optim, learner.steps)(done)
  return {name: jnp.float32(value) for name, value in numbers.items()}


def apply_controllers(hyperparams: Hyperparams, controllers: Hyperparams | None) -> Hyperparams:
  """The hyperparameters with the coefficients that controllers have moved."""
  return {**hyperparams, **(controllers or {})}


# States


def first_state(learner: Learner, params: Any) -> TrainState:
  """The state a stage begins with: `params`, its critic, copies for a reference or a distance to the start.

  One copy serves for both where the reference stays as it is.
  """
  params = nn.meta.unbox(add_critic(params, learner.cfg.critic.kind))
  with_reference = "logp_ref" in needs(learner.terms)
  with_init = bool(learner.penalties) and not (with_reference and learner.reference is None)

  def copy() -> Any:
    return jax.tree.map(jnp.copy, policy_params(params))

  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=learner.tx.init(params),
    ref_params=copy() if with_reference else None,
    init_params=copy() if with_init else None,
    controllers=first_coefficients(learner.controllers),
  )


def first_params(state: TrainState, learner: Learner) -> Any | None:
  """The policy's first parameters in the stage, where its state has them: a frozen reference is they."""
  if state.init_params is None and learner.reference is None:
    return state.ref_params
  return state.init_params


# One optimiser step


def _group(layout: Packed | Grouped) -> int:
  """Rows that must stay together."""
  return layout.samples if isinstance(layout, Grouped) else 1


def _split(experience: Experience, parts: int, unit: int) -> Experience:
  """[B, L] -> [parts, B / parts, L]; part m is every parts-th unit of `unit` rows, so of each device."""

  def split(a: jax.Array) -> jax.Array:
    units = a.reshape(a.shape[0] // (unit * parts), parts, unit, *a.shape[1:])
    return units.swapaxes(0, 1).reshape(parts, a.shape[0] // parts, *a.shape[1:])

  return jax.tree.map(split, experience)


def gradients(
  params: Any,
  ref_params: Any,
  experience: Experience,
  hyperparams: Hyperparams,
  norms: Norms,
  *,
  learner: Learner,
) -> tuple[jax.Array, Any, dict[str, Stat]]:
  """(loss f32[], gradients, statistics) of a minibatch, summed over its micro-batches.

  Where completions are packed, micro-batches that none of them needs are skipped.
  """
  loss_of, layout = objective(learner.terms), learner.layout
  if learner.pack_length:
    layout, shards = Packed(), batch_shards()
    valid, parts = experience.segment > 0, learner.micro_batches
    experience = packed(experience, make_packing(valid, learner.pack_length, parts, shards))

  def share(weights: Any, micro: Experience) -> tuple[jax.Array, dict[str, Stat]]:
    """A micro-batch's share of the loss, and its statistics."""
    scores = score(
      weights, ref_params, micro.tokens, micro.segment, micro.position, model=learner.model,
      temperature=hyperparams["temperature"], needs=needs(learner.terms), layout=layout,
      chunk=learner.head_chunk,
    )  # fmt: skip
    if learner.exact_start:
      micro = dataclasses.replace(micro, logp_old=jax.lax.stop_gradient(scores.logp))
    return loss_of(scores, micro, hyperparams, norms)

  value = jax.value_and_grad(share, has_aux=True)
  if learner.micro_batches == 1:
    (loss, stats), grads = value(params, experience)
    return loss, grads, stats

  def sum_of(carry: Any, micro: Experience) -> Any:
    (loss, stats), grads = value(params, micro)
    total, summed, merged = carry
    return total + loss, jax.tree.map(jnp.add, summed, grads), merge_stats(merged, stats)

  def add(carry: Any, micro: Experience) -> tuple[Any, None]:
    """The sums with a micro-batch more."""
    if not learner.pack_length:
      return sum_of(carry, micro), None
    return jax.lax.cond(micro.is_action.any(), sum_of, lambda carry, micro: carry, carry, micro), None

  pieces = _split(experience, learner.micro_batches, _group(layout))
  shapes = jax.eval_shape(share, params, jax.tree.map(lambda a: a[0], pieces))[1]
  blank = jax.tree.map(lambda a: jnp.zeros(a.shape, jnp.float32), params)  # bfloat16 sums would stall
  loss, grads, stats = jax.lax.scan(add, (jnp.zeros(()), blank, blank_stats(shapes)), pieces)[0]
  return loss, jax.tree.map(lambda grad, a: grad.astype(a.dtype), grads, params), stats


def add_penalties(
  loss: jax.Array, grads: Any, state: TrainState, hyperparams: Hyperparams, learner: Learner
) -> tuple[jax.Array, Any, dict[str, Stat]]:
  """(loss, gradients, penalty statistics) with the penalties added: once, whatever the micro-batches."""
  stats: dict[str, Stat] = {}
  for penalty in learner.penalties:
    value = jax.value_and_grad(penalty.apply, has_aux=True)
    (share, penalty_stats), slope = value(state.params, first_params(state, learner), hyperparams)
    loss, grads = loss + share, jax.tree.map(jnp.add, grads, slope)
    stats |= {**penalty_stats, f"loss/{penalty.name}": Mean(share, jnp.ones(()))}
  return loss, grads, stats


def masked_experience(experience: Experience, key: jax.Array, learner: Learner) -> Experience:
  """A minibatch with the tokens that clip_cov or kl_cov picks; consumes the key where they are drawn."""
  if learner.token_mask is None:
    return experience
  return dataclasses.replace(experience, cov_mask=learner.token_mask(experience, key))


class MinibatchOutput(NamedTuple):
  """The result of an optimiser step."""

  state: TrainState
  stats: dict[str, Stat]


def minibatch_step(
  state: TrainState, experience: Experience, key: jax.Array, hyperparams: Hyperparams, *, learner: Learner
) -> MinibatchOutput:
  """One optimiser step on one minibatch. Denominators are those of all its rows, whatever the micro-batch.

  Consumes the key, where tokens are drawn to lose their gradient; else it is not used.
  """
  experience = masked_experience(experience, key, learner)
  norms = global_norms(experience, learner.max_tokens)
  loss, grads, stats = gradients(
    state.params, state.ref_params, experience, hyperparams, norms, learner=learner
  )
  loss, grads, penalty_stats = add_penalties(loss, grads, state, hyperparams, learner)
  # Else a sum at the end of the backward pass is rounded as the optimiser, or whoever reads it next, likes.
  loss, grads, stats = jax.lax.optimization_barrier((loss, grads, stats))
  norm = optax.tree.norm(jax.tree.map(lambda grad: grad.astype(jnp.float32), grads))
  opt_state: Any = state.opt_state
  injected = {"learning_rate": hyperparams["optim.lr"], "weight_decay": hyperparams["optim.weight_decay"]}
  opt_state = opt_state._replace(hyperparams={**opt_state.hyperparams, **injected})
  updates, opt_state = learner.tx.update(grads, opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  finite = jnp.isfinite(loss) & jnp.isfinite(norm)

  def keep(new: Any, old: Any) -> Any:
    return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

  one = jnp.ones((), jnp.float32)
  stats = {**stats, **penalty_stats, "loss": Mean(loss, one), "grad_norm": Mean(norm, one)}
  stats["learning_rate"] = Mean(hyperparams["optim.lr"], one)
  params, opt_state = keep(params, state.params), keep(opt_state, state.opt_state)
  return MinibatchOutput(dataclasses.replace(state, params=params, opt_state=opt_state), stats)


# One training step


def run_epochs(
  state: TrainState, experience: Experience, key: jax.Array, hyperparams: Hyperparams, *, learner: Learner
) -> MinibatchOutput:
  """One training step: `epochs` passes of `minibatches` optimiser steps, then the reference.

  Minibatches are drawn by prompt group, afresh each epoch. Consumes the key: epoch e orders its groups by
  fold_in(key, e), optimiser step s (from 0) draws by fold_in(key, epochs + s). Statistics are merged over
  the optimiser steps, but `logp_gap`, which is the first one's, as is what moves the controllers: later
  ones are off-policy. The state is donated, where this is not traced.
  """
  return compiled_epochs(state)(state, experience, key, hyperparams, learner=learner)


def compiled_epochs(state: TrainState) -> Any:
  """`run_epochs` compiled for states that lie as `state` (arrays, or shapes with shardings) does.

  They come back as they went in: else XLA chooses, the donation is lost and the next step compiles anew. A
  leaf that is bound to no device, and a state that is traced, are laid out by the program.
  """
  leaves, structure = jax.tree.flatten(state)
  if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
    return _compiled(structure, None)
  return _compiled(structure, tuple(map(_sharding, leaves)))


def _sharding(leaf: Any) -> jax.sharding.Sharding | None:
  """Where a leaf is bound to; None: nowhere."""
  if isinstance(leaf, jax.Array):
    return leaf.sharding if leaf.committed else None
  return leaf.sharding if isinstance(leaf, jax.ShapeDtypeStruct) else None


@functools.cache
def _compiled(structure: Any, shardings: tuple | None) -> Any:
  """`_run_epochs` with its state laid out by the shardings of its leaves; None: as XLA chooses."""
  state = None if shardings is None else jax.tree.unflatten(structure, shardings)
  out: Any = None if state is None else MinibatchOutput(state, None)  # type: ignore[arg-type]
  return jax.jit(_run_epochs, out_shardings=out, static_argnames="learner", donate_argnames="state")


def _run_epochs(
  state: TrainState, experience: Experience, key: jax.Array, hyperparams: Hyperparams, *, learner: Learner
) -> MinibatchOutput:
  """What `run_epochs` says, not compiled."""
  hyperparams = apply_controllers(hyperparams, state.controllers)
  steps = learner.epochs * learner.minibatches

  def draw_key(step: jax.Array | int) -> jax.Array:
    return jax.random.fold_in(key, learner.epochs + step)

  if steps == 1:
    state, stats = minibatch_step(state, experience, draw_key(0), hyperparams, learner=learner)
    first = stats
  else:
    later, rows = dataclasses.replace(learner, exact_start=False), _minibatch_rows(experience, key, learner)

    def take(index: jax.Array) -> Experience:
      return jax.tree.map(lambda a: a[index], experience)

    state, first = minibatch_step(state, take(rows[0]), draw_key(0), hyperparams, learner=learner)

    def step(carry: Any, now: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
      index, s = now
      state, new = minibatch_step(carry[0], take(index), draw_key(s), hyperparams, learner=later)
      return (state, merge_stats(carry[1], new)), None

    (state, stats), _ = jax.lax.scan(step, (state, first), (rows[1:], jnp.arange(1, steps)))
    stats = {k: first[k] if k.startswith("logp_gap/") else v for k, v in stats.items()}
  if learner.controllers:
    assert state.controllers is not None
    coefficients = moved(learner.controllers, state.controllers, first, experience.tokens.shape[0])
    state = dataclasses.replace(state, controllers=coefficients)
  return MinibatchOutput(_finish(state, hyperparams, learner), stats)


def _minibatch_rows(experience: Experience, key: jax.Array, learner: Learner) -> jax.Array:
  """i32[epochs * minibatches, rows]: the rows of each optimiser step."""
  unit, steps = _group(learner.layout), learner.epochs * learner.minibatches
  groups = experience.tokens.shape[0] // unit
  orders = [jax.random.permutation(jax.random.fold_in(key, e), groups) for e in range(learner.epochs)]
  order = jnp.concatenate(orders).reshape(steps, groups // learner.minibatches)
  return (order[:, :, None] * unit + jnp.arange(unit)).reshape(steps, -1)


def _finish(state: TrainState, hyperparams: Hyperparams, learner: Learner) -> TrainState:
  """Counts the step, and moves the reference as configured."""
  state = dataclasses.replace(state, step=state.step + 1)
  if state.ref_params is None or learner.reference is None:
    return state
  ref = learner.reference(policy_params(state.params), state.ref_params, state.step, hyperparams)
  opt_state = state.opt_state
  if learner.reset_optimizer:
    reset, fresh = is_reset(state.step, hyperparams), learner.tx.init(state.params)
    opt_state = jax.tree.map(lambda n, o: jnp.where(reset, n, o), fresh, opt_state)
  return dataclasses.replace(state, ref_params=ref, opt_state=opt_state)
