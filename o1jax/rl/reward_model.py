"""Rewarders: the verifier, or a reward model trained on verified completions.

    policy, problems -> collect -> Examples -> flip -> fit -> reward model -> REWARDERS[kind] -> Reward

The reward model is a decoder of its own, initialised from the policy's, and a linear head on the hidden
state at a completion's last action: logit P(correct) (Cobbe et al. 2021, section 4.1). Left out: the
language modelling loss that Cobbe et al. add, verdicts on the tokens before the last, comparisons of pairs.
"""

import dataclasses
import functools
from typing import Any, Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from o1jax.config import RewardModelConfig
from o1jax.model.transformer import Context, Decoder, cast_params
from o1jax.rl.critic import CRITIC, ValueHead, add_critic, policy_params
from o1jax.rl.generate import generate
from o1jax.rl.sampler import SampleConfig
from o1jax.rl.scoring import Grouped
from o1jax.types import PromptBatch, Reward, Rollout, RolloutBatch

CLIP_NORM = 1.0  # global gradient norm of the proxy's own optimiser


@flax.struct.dataclass
class Examples:
  """N completions, one a row, and what the proxy shall say of them."""

  rollout: Rollout
  label: jax.Array  # f32[N], 1 where correct


def init(params: Any) -> Any:
  """{"decoder", "head"}: a copy of the policy's decoder, and a head that begins at 0, P(correct) = 1/2."""
  return nn.meta.unbox(add_critic(policy_params(params), "own")[CRITIC])


def logits(proxy: Any, rollout: Rollout, *, model: Decoder, layout: Grouped) -> jax.Array:
  """f32[B] logit P(correct) of each completion at its last action (of none: its first response column)."""
  weights = {"params": cast_params(proxy["decoder"], model.cfg)}
  segment = rollout.valid.astype(jnp.int32)
  rows = (rollout.tokens, segment, jnp.maximum(jnp.cumsum(segment, axis=1) - 1, 0))
  prompt = [a[:: layout.samples, : layout.prompt] for a in rows]
  _, keys = model.apply(weights, *prompt)
  prefix = Context(keys, prompt[1], prompt[2])
  hidden, _ = model.apply(weights, *(a[:, layout.prompt :] for a in rows), prefix=prefix)
  action = rollout.is_action[:, layout.prompt :]
  last = jnp.max(jnp.where(action, jnp.arange(action.shape[1]), 0), axis=1)
  read = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
  logit: Any = ValueHead().apply({"params": proxy["head"]}, read)
  return logit


def loss(proxy: Any, examples: Examples, *, model: Decoder, layout: Grouped) -> jax.Array:
  """f32[] mean logistic loss, nats an example."""
  logit = logits(proxy, examples.rollout, model=model, layout=layout)
  return optax.sigmoid_binary_cross_entropy(logit, examples.label).mean()


# Its examples


@functools.partial(jax.jit, static_argnames=("model", "sampling", "verify", "batch"))
def collect(
  params: Any,
  problems: PromptBatch,
  key: jax.Array,
  temperature: jax.Array,
  *,
  model: Decoder,
  sampling: SampleConfig,
  verify: Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, jax.Array, jax.Array]],
  batch: int,
) -> Examples:
  """One completion of each of N problems, `batch` (a divisor of N) at a time, labelled by the verifier.

  Consumes the key; each batch has one of its own, so that a problem that stands in several gets fresh noise
  in each.
  """
  blocks = jax.tree.map(lambda a: a.reshape(-1, batch, *a.shape[1:]), problems)
  keys = jax.random.split(key, blocks.tokens.shape[0])
  start = problems.tokens.shape[1]

  def one(given: tuple[PromptBatch, jax.Array]) -> Examples:
    block, own = given
    rollout = generate(params, block, own, temperature, model=model, samples=1, cfg=sampling)
    _, correct, _ = verify(rollout.tokens[:, start:], rollout.valid[:, start:], block.task_arrays)
    return Examples(rollout, correct.astype(jnp.float32))

  return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), jax.lax.map(one, (blocks, keys)))


def flip(label: jax.Array, noise: float, key: jax.Array) -> jax.Array:
  """f32[N] labels with round(noise N) of them, whichever, turned round. Consumes the key."""
  count = label.shape[0]
  chosen = jax.random.permutation(key, count) < round(noise * count)
  return jnp.where(chosen, 1.0 - label, label)


# Learning


def _orders(key: jax.Array, count: int, steps: int, rows: int) -> jax.Array:
  """i32[steps, rows]: which examples each step takes; all of them once before any a second time."""
  epochs = -(-steps * rows // count)
  each = jax.vmap(lambda k: jax.random.permutation(k, count))(jax.random.split(key, epochs))
  return each.reshape(-1)[: steps * rows].reshape(steps, rows)


@functools.partial(jax.jit, static_argnames=("model", "prompt", "cfg"))
def fit(
  params: Any, examples: Examples, key: jax.Array, *, model: Decoder, prompt: int, cfg: RewardModelConfig
) -> tuple[Any, jax.Array]:
  """(proxy, its loss at each step f32[steps]) from the policy's parameters and N examples.

  `cfg.noise` of the labels are flipped before anything is learned. Adam behind clipping by the global norm.
  Consumes the key.
  """
  flip_key, order_key = jax.random.split(key)
  examples = dataclasses.replace(examples, label=flip(examples.label, cfg.noise, flip_key))
  tx = optax.chain(
    optax.clip_by_global_norm(CLIP_NORM), optax.adam(optax.cosine_decay_schedule(cfg.lr, cfg.steps))
  )
  value_and_grad = jax.value_and_grad(functools.partial(loss, model=model, layout=Grouped(prompt, 1)))

  def step(carry, rows: jax.Array):
    proxy, moments = carry
    loss_now, gradient = value_and_grad(proxy, jax.tree.map(lambda a: a[rows], examples))
    updates, moments = tx.update(gradient, moments, proxy)
    return (optax.apply_updates(proxy, updates), moments), loss_now

  proxy = init(params)
  order = _orders(order_key, examples.label.shape[0], cfg.steps, cfg.rows)
  (proxy, _), losses = jax.lax.scan(step, (proxy, tx.init(proxy)), order)
  return proxy, losses


# Rewarders


def verifier_reward(params: Any, batch: RolloutBatch, *, model: Decoder) -> Reward:
  """The verifier's reward; `params` and `model` are not used."""
  return Reward(batch.verified)


def outcome_model_reward(params: Any, batch: RolloutBatch, *, model: Decoder) -> Reward:
  """P(correct) of each completion by the reward model `params`; `model` is the policy's decoder."""
  layout = Grouped(batch.prompts.tokens.shape[1], batch.verified.shape[1])
  logit = logits(params, batch.rollout, model=model, layout=layout)
  return Reward(jax.nn.sigmoid(logit).reshape(batch.verified.shape))


@dataclasses.dataclass(frozen=True)
class Rewarder:
  """What pays for a rollout, the same on the stepwise loop and in the fused program."""

  reward: Callable[..., Reward]  # (params or None, RolloutBatch, *, model) -> Reward; pure
  passes: int  # forward passes of a decoder, without the vocabulary's head, over a rollout


REWARDERS = {"none": Rewarder(verifier_reward, 0), "outcome": Rewarder(outcome_model_reward, 1)}


@functools.partial(jax.jit, static_argnames=("rewarder", "model"))
def reward_of(params: Any, batch: RolloutBatch, *, rewarder: Rewarder, model: Decoder) -> Reward:
  """What a Rewarder pays for verified groups."""
  return rewarder.reward(params, batch, model=model)
