"""The optimiser and its schedules."""

from typing import Any

import jax
import optax

from o1jax.config import OptimConfig
from o1jax.model.transformer import VECTORS


def make_optimizer(cfg: OptimConfig) -> optax.GradientTransformation:
  """AdamW behind clipping by global norm; learning rate and decay are set from Hyperparams at every update.

  Decay (Loshchilov & Hutter 2019) leaves norms and biases alone, by name: scanned layers have an axis more,
  so that a rank does not show them.
  """

  def matrices(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in VECTORS, params)

  def chain(learning_rate: Any, weight_decay: Any) -> optax.GradientTransformation:
    adam = optax.adamw(learning_rate, cfg.b1, cfg.b2, cfg.eps, weight_decay=weight_decay, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(cfg.clip_norm), adam) if cfg.clip_norm else adam

  return optax.inject_hyperparams(chain)(learning_rate=cfg.lr, weight_decay=cfg.weight_decay)


def decaying(value: float, kind: str, final_fraction: float, steps: int) -> optax.Schedule:
  """Step (from 0) -> `value`, constant or falling to `final_fraction` of it after `steps`."""
  over = max(steps, 1)
  decays = {
    "constant": lambda: optax.constant_schedule(value),
    "linear": lambda: optax.linear_schedule(value, value * final_fraction, over),
    "cosine": lambda: optax.cosine_decay_schedule(value, over, final_fraction),
  }
  return decays[kind]()


def learning_rate(cfg: OptimConfig, steps: int) -> optax.Schedule:
  """Training step -> learning rate: linear warm-up, then constant, linear or cosine to `final_fraction`."""
  main = decaying(cfg.lr, cfg.schedule, cfg.final_fraction, steps - cfg.warmup_steps)
  if not cfg.warmup_steps:
    return main
  return optax.join_schedules(
    [optax.linear_schedule(0.0, cfg.lr, cfg.warmup_steps), main], [cfg.warmup_steps]
  )
