"""The update: experience in, a new TrainState out, in one compiled and donated program.

Flow: denominators of the whole batch -> scan over micro-batches (score, objective, gradient; shares only add) ->
clip -> AdamW with traced strengths -> reference. `learn` runs `update` over the epochs and minibatches of a rollout.
A loss or gradient that is not finite leaves parameters and optimiser as they were; the metrics tell.
"""

import dataclasses
import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp
import optax

from o1jax.config import OptimConfig
from o1jax.model.transformer import VECTORS, Decoder
from o1jax.rl.objective import Term, global_norms, needs, objective
from o1jax.rl.regularise import Controller, HoldBack, Penalty, first_coefficients, moved
from o1jax.rl.score import Grouped, Packed, score
from o1jax.rl.value import policy_params
from o1jax.types import Experience, Mean, Norms, Stat, Strengths, TrainState, blank_stats, merge_stats


def frozen_reference(params: Any, ref: Any, step: jax.Array, strengths: Strengths) -> Any:
  """ref <- ref."""
  del params, step, strengths
  return ref


@dataclasses.dataclass(frozen=True)
class UpdateConfig:
  """What is static about learning."""

  terms: tuple[Term, ...]
  layout: Packed | Grouped
  max_tokens: int  # R_max of the dr_grpo aggregation
  epochs: int = 1
  minibatches: int = 1
  micro_batches: int = 1
  head_chunk: int = 4096
  segments: int = 1  # completions in a row at most
  reference: Callable[[Any, Any, jax.Array, Strengths], Any] = frozen_reference
  reset_optimizer: bool = False
  hold_back: HoldBack = lambda experience, key: None  # of a whole minibatch, before its first forward pass
  penalties: tuple[Penalty, ...] = ()
  controllers: tuple[Controller, ...] = ()
  # Whether a rollout's first optimiser step, whose policy is the old one, takes its own log-probs for the old ones.
  # Two programs round a text apart, in bfloat16 by more than the clips of a ratio of whole completions.
  exact_start: bool = False


def make_optimizer(cfg: OptimConfig) -> optax.GradientTransformation:
  """AdamW behind clipping by global norm; learning rate and decay are set from Strengths at every update.

  Decay (Loshchilov & Hutter 2019) leaves norms and biases alone, by name: their rank tells nothing, as scanned layers
  have an axis more.
  """
  matrices = lambda params: jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key not in VECTORS, params
  )

  def chain(learning_rate, weight_decay):
    adam = optax.adamw(learning_rate, cfg.b1, cfg.b2, cfg.eps, weight_decay=weight_decay, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(cfg.clip_norm), adam) if cfg.clip_norm else adam

  return optax.inject_hyperparams(chain)(learning_rate=cfg.lr, weight_decay=cfg.decay)


def decaying(value: float, kind: str, final_fraction: float, steps: int) -> optax.Schedule:
  """Step (from 0) -> `value`, constant or falling (linear, cosine) to `final_fraction` of it after `steps`."""
  over = max(steps, 1)
  decays = {
    "constant": lambda: optax.constant_schedule(value),
    "linear": lambda: optax.linear_schedule(value, value * final_fraction, over),
    "cosine": lambda: optax.cosine_decay_schedule(value, over, final_fraction),
  }
  return decays[kind]()


def learning_rate(cfg: OptimConfig, steps: int) -> optax.Schedule:
  """Training step -> learning rate: linear warm-up, then constant, linear or cosine to `final_fraction`."""
  main = decaying(cfg.lr, cfg.schedule, cfg.final_fraction, steps - cfg.warmup)
  if not cfg.warmup:
    return main
  return optax.join_schedules([optax.linear_schedule(0.0, cfg.lr, cfg.warmup), main], [cfg.warmup])


def init_state(
  params: Any,
  tx: optax.GradientTransformation,
  *,
  with_reference: bool,
  with_init: bool = False,
  controllers: tuple[Controller, ...] = (),
) -> TrainState:
  """A fresh state; the reference and the first parameters, where something needs them, are copies of the policy's."""
  copied = lambda wanted: jax.tree.map(jnp.copy, policy_params(params)) if wanted else None
  coefficients = first_coefficients(controllers)
  return TrainState(
    jnp.zeros((), jnp.int32), params, tx.init(params), copied(with_reference), copied(with_init), coefficients
  )


def first_params(state: TrainState, cfg: UpdateConfig) -> Any | None:
  """The policy's parameters that the stage began with, where its state holds them: a reference that stays is they."""
  stays = cfg.reference is frozen_reference
  return state.ref_params if state.init_params is None and stays else state.init_params


def in_force(strengths: Strengths, controllers: dict[str, jax.Array] | None) -> Strengths:
  """The strengths with the coefficients that controllers have moved."""
  return dataclasses.replace(strengths, **controllers) if controllers else strengths


def ema_reference(params: Any, ref: Any, step: jax.Array, strengths: Strengths) -> Any:
  """ref <- a params + (1 - a) ref, a = strengths.ema."""
  del step
  return jax.tree.map(lambda p, r: strengths.ema * p + (1 - strengths.ema) * r, params, ref)


def is_reset(step: jax.Array, strengths: Strengths) -> jax.Array:
  """Whether the reference is replaced after training step `step` (from 1)."""
  return jnp.mod(step.astype(jnp.float32), strengths.reset_every) == 0


def reset_reference(params: Any, ref: Any, step: jax.Array, strengths: Strengths) -> Any:
  """ref <- params every `strengths.reset_every` steps (ProRL, Liu et al. 2025, section 3)."""
  return jax.tree.map(lambda p, r: jnp.where(is_reset(step, strengths), p, r), params, ref)


REFERENCES = {
  "frozen": frozen_reference,
  "ema": ema_reference,
  "reset": reset_reference,
}


def _split(experience: Experience, parts: int, unit: int) -> Experience:
  """[B, L] -> [parts, B / parts, L]; part m takes every parts-th unit of `unit` rows, so each device gives to each."""

  def split(a: jax.Array) -> jax.Array:
    units = a.reshape(a.shape[0] // (unit * parts), parts, unit, *a.shape[1:])
    return units.swapaxes(0, 1).reshape(parts, a.shape[0] // parts, *a.shape[1:])

  return jax.tree.map(split, experience)


def _group(layout: Packed | Grouped) -> int:
  """Rows that must stay together."""
  return layout.samples if isinstance(layout, Grouped) else 1


def gradients(
  params: Any,
  ref_params: Any,
  experience: Experience,
  strengths: Strengths,
  norms: Norms,
  *,
  model: Decoder,
  cfg: UpdateConfig,
) -> tuple[jax.Array, Any, dict[str, Stat]]:
  """(loss f32[], gradients, statistics) of a whole minibatch, summed over its micro-batches."""
  loss_of = objective(cfg.terms)

  def share(weights: Any, micro: Experience):
    scores = score(
      weights, ref_params, micro.tokens, micro.segment, micro.position, model=model,
      temperature=strengths.temperature, needs=needs(cfg.terms), layout=cfg.layout, chunk=cfg.head_chunk,
    )  # fmt: skip
    if cfg.exact_start:
      micro = dataclasses.replace(micro, logp_old=jax.lax.stop_gradient(scores.logp))
    return loss_of(scores, micro, strengths, norms)

  value = jax.value_and_grad(share, has_aux=True)
  if cfg.micro_batches == 1:
    (loss, stats), grads = value(params, experience)
    return loss, grads, stats

  def add(carry, micro):
    (loss, stats), grads = value(params, micro)
    total, summed, merged = carry
    return (total + loss, jax.tree.map(jnp.add, summed, grads), merge_stats(merged, stats)), None

  pieces = _split(experience, cfg.micro_batches, _group(cfg.layout))
  shapes = jax.eval_shape(share, params, jax.tree.map(lambda a: a[0], pieces))[1]
  start = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params), blank_stats(shapes))
  return jax.lax.scan(add, start, pieces)[0]


def penalised(
  loss: jax.Array, grads: Any, state: TrainState, strengths: Strengths, cfg: UpdateConfig
) -> tuple[jax.Array, Any, dict[str, Stat]]:
  """(loss, gradients, statistics) with the penalties added: once, whatever the micro-batches."""
  stats: dict[str, Stat] = {}
  for penalty in cfg.penalties:
    value = jax.value_and_grad(penalty.apply, has_aux=True)
    (share, told), slope = value(state.params, first_params(state, cfg), strengths)
    loss, grads = loss + share, jax.tree.map(jnp.add, grads, slope)
    stats |= {**told, f"loss/{penalty.name}": Mean(share, jnp.ones(()))}
  return loss, grads, stats


def update(
  state: TrainState,
  experience: Experience,
  key: jax.Array,
  strengths: Strengths,
  *,
  model: Decoder,
  tx: optax.GradientTransformation,
  cfg: UpdateConfig,
) -> tuple[TrainState, dict[str, Stat]]:
  """One optimiser step on one minibatch. Denominators are those of all its rows, whatever the micro-batch.

  Consumes the key, where tokens to hold back are drawn; else it is not used.
  """
  experience = dataclasses.replace(experience, held_back=cfg.hold_back(experience, key))
  norms = global_norms(experience, cfg.max_tokens, cfg.segments)
  loss, grads, stats = gradients(
    state.params, state.ref_params, experience, strengths, norms, model=model, cfg=cfg
  )
  loss, grads, told = penalised(loss, grads, state, strengths, cfg)
  # Else a sum at the end of the backward pass is rounded as the optimiser, or whoever reads it next, likes.
  loss, grads, stats = jax.lax.optimization_barrier((loss, grads, stats))
  norm = optax.tree.norm(grads)
  opt_state: Any = state.opt_state
  hyper = {**opt_state.hyperparams, "learning_rate": strengths.lr, "weight_decay": strengths.decay}
  updates, opt_state = tx.update(grads, opt_state._replace(hyperparams=hyper), state.params)
  params = optax.apply_updates(state.params, updates)
  finite = jnp.isfinite(loss) & jnp.isfinite(norm)
  keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
  one = jnp.ones((), jnp.float32)
  stats = {**stats, **told, "loss": Mean(loss, one), "grad_norm": Mean(norm, one)}
  stats["learning_rate"] = Mean(strengths.lr, one)
  return dataclasses.replace(
    state, params=keep(params, state.params), opt_state=keep(opt_state, state.opt_state)
  ), stats


def learn(
  state: TrainState,
  experience: Experience,
  key: jax.Array,
  strengths: Strengths,
  *,
  model: Decoder,
  tx: optax.GradientTransformation,
  cfg: UpdateConfig,
) -> tuple[TrainState, dict[str, Stat]]:
  """One training step: `epochs` passes over the experience in `minibatches` optimiser steps each, then the reference.

  Minibatches are drawn by prompt group, afresh each epoch. Consumes the key: epoch e orders its groups by fold_in(key, e),
  optimiser step s (from 0) draws by fold_in(key, epochs + s). Statistics are merged over the optimiser steps, but
  `logp_gap`, which is the first one's, as is what moves the controllers: later ones are off-policy. The state is donated,
  where this is not traced.
  """
  return learner(state)(state, experience, key, strengths, model=model, tx=tx, cfg=cfg)


def learner(state: TrainState) -> Any:
  """`learn` compiled for states that lie as `state` (arrays, or shapes with shardings) does.

  They come back as they went in: else XLA chooses, the donation is lost and the next step compiles anew. A leaf that is
  bound to no device, and a state that is traced, are laid out by the program.
  """
  leaves, structure = jax.tree.flatten(state)
  if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
    return _learner(structure, None)
  bound = lambda leaf: getattr(leaf, "committed", True)
  return _learner(
    structure, tuple(getattr(leaf, "sharding", None) if bound(leaf) else None for leaf in leaves)
  )


@functools.cache
def _learner(structure: Any, lies: tuple | None) -> Any:
  """`_learn` with its state laid out by the shardings `lies` of its leaves; None: as XLA chooses."""
  out = None if lies is None else (jax.tree.unflatten(structure, lies), None)
  return jax.jit(
    _learn, out_shardings=out, static_argnames=("model", "tx", "cfg"), donate_argnames=("state",)
  )


def _learn(
  state: TrainState,
  experience: Experience,
  key: jax.Array,
  strengths: Strengths,
  *,
  model: Decoder,
  tx: optax.GradientTransformation,
  cfg: UpdateConfig,
) -> tuple[TrainState, dict[str, Stat]]:
  """What `learn` says, not compiled."""
  strengths = in_force(strengths, state.controllers)
  later = dataclasses.replace(cfg, exact_start=False)
  run = functools.partial(update, model=model, tx=tx)
  steps = cfg.epochs * cfg.minibatches
  drawing = lambda s: jax.random.fold_in(key, cfg.epochs + s)
  if steps == 1:
    state, stats = run(state, experience, drawing(0), strengths, cfg=cfg)
    first = stats
  else:
    unit = _group(cfg.layout)
    groups = experience.tokens.shape[0] // unit
    orders = [jax.random.permutation(jax.random.fold_in(key, e), groups) for e in range(cfg.epochs)]
    order = jnp.concatenate(orders).reshape(steps, groups // cfg.minibatches)
    rows = (order[:, :, None] * unit + jnp.arange(unit)).reshape(steps, -1)
    take = lambda index: jax.tree.map(lambda a: a[index], experience)
    state, first = run(state, take(rows[0]), drawing(0), strengths, cfg=cfg)

    def step(carry, now):
      index, s = now
      state, new = run(carry[0], take(index), drawing(s), strengths, cfg=later)
      return (state, merge_stats(carry[1], new)), None

    (state, stats), _ = jax.lax.scan(step, (state, first), (rows[1:], jnp.arange(1, steps)))
    stats = {k: first[k] if k.startswith("logp_gap/") else v for k, v in stats.items()}
  if cfg.controllers:
    coefficients = moved(cfg.controllers, state.controllers, first, experience.tokens.shape[0])
    state = dataclasses.replace(state, controllers=coefficients)
  return _finish(state, strengths, tx, cfg), stats


def _finish(
  state: TrainState, strengths: Strengths, tx: optax.GradientTransformation, cfg: UpdateConfig
) -> TrainState:
  """Counts the step, and moves the reference as configured."""
  state = dataclasses.replace(state, step=state.step + 1)
  if state.ref_params is None:
    return state
  ref = cfg.reference(policy_params(state.params), state.ref_params, state.step, strengths)
  opt_state = state.opt_state
  if cfg.reset_optimizer:
    fresh = tx.init(state.params)
    opt_state = jax.tree.map(lambda n, o: jnp.where(is_reset(state.step, strengths), n, o), fresh, opt_state)
  return dataclasses.replace(state, ref_params=ref, opt_state=opt_state)
