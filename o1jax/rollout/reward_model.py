"""The reward model of a run or a sweep: trained once on verified completions of the policy that RL begins
with, and saved.

    policy -> completions of training problems -> verdicts, of the device or the host -> Examples -> fit ->
      parameters

Noise comes from the run's seed and the stream "proxy": step 0 for the examples, 1 for their fit.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich

from o1jax.io.checkpoint import Checkpoints
from o1jax.rl.draw import stream_key
from o1jax.rl.generate import generate
from o1jax.rl.reward_model import Examples, collect, fit, init
from o1jax.rl.sampler import SampleConfig
from o1jax.rollout.grade import grade, response_lengths, response_tokens
from o1jax.rollout.setup import Runtime, padded, verifiable_rows
from o1jax.tasks.stream import draw_order
from o1jax.types import PromptBatch, TrainState

COLLECTED = 256  # completions that are drawn at a time


def reward_model_params(runtime: Runtime, cold: Any, folder: pathlib.Path) -> Any:
  """Parameters on the host: read from `folder` where they were saved, else trained from the policy `cold`
  and saved.
  """
  cfg, seed = runtime.config.rl.reward_model, runtime.config.seed
  like = TrainState(jnp.int32(cfg.steps), init(cold), ())
  with Checkpoints(folder, keep=1) as saved:
    if saved.latest() == cfg.steps:
      return jax.device_get(saved.restore(cfg.steps, jax.tree.map(jnp.asarray, like))[0].params)
    examples = training_examples(runtime, cold)
    params, losses = fit(
      cold, examples, stream_key(seed, "proxy", 1), model=runtime.model,
      prompt=runtime.config.rl.max_prompt, cfg=cfg,
    )  # fmt: skip
    fitted = {
      "correct": float(examples.label.mean()),
      "loss": float(losses[-max(cfg.steps // 10, 1) :].mean()),
    }
    correct, loss = fitted["correct"], fitted["loss"]
    rich.print(f"proxy {folder.name}: {cfg.examples} examples, {correct:.2f} correct, loss {loss:.3f}")
    saved.save(cfg.steps, dataclasses.replace(like, params=params), fitted)
  return jax.device_get(params)


def training_examples(runtime: Runtime, cold: Any) -> Examples:
  """One verified completion of each of `rl.reward_model.examples` training problems, in the order of the
  run's own stream.
  """
  task, rl, seed = runtime.task, runtime.config.rl, runtime.config.seed
  order = draw_order(len(task.train[: rl.problems]), seed, 0, rl.reward_model.examples)
  batch = min(COLLECTED, rl.reward_model.examples)
  rows = padded(verifiable_rows(runtime, [task.train[i] for i in order]), batch)
  key, sampling = (
    stream_key(seed, "proxy", 0),
    SampleConfig(rl.max_tokens, task.stop_tokens, pad=task.tokenizer.pad),
  )
  if task.device is None:
    examples = _verified_by_host(runtime, cold, rows, order, key, sampling, batch)
  else:
    examples = collect(
      cold, rows, key, jnp.float32(rl.temperature), model=runtime.model, sampling=sampling,
      verify=task.device.verify, batch=batch,
    )  # fmt: skip
  return jax.tree.map(lambda a: a[: rl.reward_model.examples], examples)


def _verified_by_host(
  runtime: Runtime,
  cold: Any,
  rows: PromptBatch,
  order: np.ndarray,
  key: jax.Array,
  sampling: SampleConfig,
  batch: int,
) -> Examples:
  """As `rl.reward_model.collect`, with the host's verdicts for labels."""
  task, count = runtime.task, rows.tokens.shape[0]
  problems = [task.train[order[i % len(order)]] for i in range(count)]
  blocks = []
  for start, own in zip(range(0, count, batch), jax.random.split(key, count // batch)):
    block = jax.tree.map(lambda a, start=start: a[start : start + batch], rows)
    temperature = jnp.float32(runtime.config.rl.temperature)
    rollout = generate(cold, block, own, temperature, model=runtime.model, samples=1, cfg=sampling)
    tokens = response_tokens(runtime, rollout)
    graded = grade(runtime, problems[start : start + batch], tokens, response_lengths(rollout))
    blocks.append(Examples(rollout, jnp.asarray(graded.correct.reshape(-1), jnp.float32)))
  return jax.tree.map(lambda *parts: jnp.concatenate(parts), *blocks)
