"""Long responses of unequal lengths: slot refill against the static batch, packing against padding, memory.

`bench.py --long` runs `main`. A response's length is log-normal, the largest six times the mean, and is where
a forced stop token stands: the sampler does not know it before. L = 4,096 of prompt and response.
"""

import functools
import json
import statistics
import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import workload

from o1jax.config import CountdownConfig, KLConfig, ModelConfig, RLConfig, TrainConfig
from o1jax.model.transformer import Decoder, init_params
from o1jax.rl.draw import stream_key
from o1jax.rl.experience import credit_and_experience
from o1jax.rl.generate import generate
from o1jax.rl.learner import compiled_epochs, first_state, hyperparams, rl_learner, run_epochs
from o1jax.rl.sampler import UNFORCED, SampleConfig
from o1jax.types import Experience, Rollout

SHAPE = dict(width=256, layers=2, heads=4, kv_heads=1, head_dim=64, mlp=1024, vocab=512)
PROMPTS, SAMPLES, PROMPT, LENGTH, SLOTS = 8, 4, 32, 4096, 8
RESPONSE, ROWS = LENGTH - PROMPT, PROMPTS * SAMPLES
SIGMA = 1.13  # of the logarithm of a length
STOP, NOT_STOP = 0, 1
LARGE = dict(width=512, layers=8, heads=8, kv_heads=4, head_dim=64, mlp=1536, vocab=151_936)


def lengths() -> np.ndarray:
  """i[B] quantiles of a log-normal distribution, the largest of RESPONSE tokens, in a random order."""
  normal = statistics.NormalDist()
  z = np.asarray([normal.inv_cdf((row + 0.5) / ROWS) for row in range(ROWS)])
  size = np.exp(SIGMA * (z - z.max())) * RESPONSE
  return np.random.default_rng(0).permutation(np.maximum(size.astype(int), 1))


def sample(model: Decoder, params: Any, slots: int) -> tuple[Rollout, float]:
  """(the rollout, its seconds, compilation apart) with `slots` slots; 0: the static batch."""
  prompts = workload.random_prompts(SHAPE["vocab"], PROMPTS, PROMPT)
  names = [str(row) for row in range(PROMPTS)]
  batch = workload.prompt_batch(prompts, list(range(PROMPTS)), names, PROMPT)
  forced = np.full((ROWS, RESPONSE), UNFORCED, np.int32)
  forced[np.arange(ROWS), lengths() - 1] = STOP
  inputs = (params, batch, stream_key(0, "train", 1), jnp.float32(1.0))
  arrays = {
    "forced": jnp.asarray(forced), "token_map": jnp.arange(SHAPE["vocab"]).at[STOP].set(NOT_STOP)
  }  # fmt: skip
  cfg = SampleConfig(RESPONSE, (STOP,), slots=slots)
  compiled = generate.lower(*inputs, **arrays, model=model, samples=SAMPLES, cfg=cfg).compile()
  start = time.perf_counter()
  rollout = jax.block_until_ready(compiled(*inputs, **arrays))
  return rollout, time.perf_counter() - start


def learner_of(model: ModelConfig, response: int, prompts: int, samples: int, **options: Any) -> Any:
  """(configuration, learner) of a GRPO step."""
  rl = RLConfig(1, prompts, samples, PROMPT, response, kl=KLConfig(0.04), **options)
  config = TrainConfig("bench", model, CountdownConfig(), rl=rl)
  return config, rl_learner(config)


def learn(cfg: ModelConfig, params: Any, rollout: Rollout, pack_length: int) -> float:
  """Seconds of an update on the rollout, in a second call; pack_length 0: padded rows, prompts shared."""
  config, learner = learner_of(
    cfg, RESPONSE, PROMPTS, SAMPLES, pack_length=pack_length, micro_batches=PROMPTS
  )
  numbers = hyperparams(config, learner, 1)
  reward = (np.asarray(rollout.tokens) == workload.REWARD_TOKEN).sum(1, dtype=np.float32)
  given = (rollout, jnp.asarray(reward.reshape(PROMPTS, SAMPLES)), None, rollout.logp_sampler)
  experience, _ = credit_and_experience(*given, rollout.logp_sampler, numbers["kl.coef"], cfg=config.rl)
  state = first_state(learner, jax.tree.map(jnp.copy, params))
  taken = 0.0
  for step in range(2):
    start = time.perf_counter()
    key = stream_key(0, "minibatch", step)
    state = jax.block_until_ready(run_epochs(state, experience, key, numbers, learner=learner).state)
    taken = time.perf_counter() - start
  return taken


def step_memory(length: int) -> dict[str, Any]:
  """Temporaries of the compiled update of two rows of `length` tokens, by a 0.1B model."""
  cfg = ModelConfig(**LARGE, qk_norm="head", scan_layers=True, remat="full")
  config, learner = learner_of(cfg, length - PROMPT, 1, 2, head_chunk=1024)
  params = jax.eval_shape(lambda key: nn.meta.unbox(init_params(learner.model, key)), jax.random.key(0))
  state = jax.eval_shape(functools.partial(first_state, learner), params)
  real, integer, flag = (jax.ShapeDtypeStruct((2, length), t) for t in (jnp.float32, jnp.int32, jnp.bool_))
  experience: Any = Experience(*[integer] * 3, flag, *[real] * 5)
  numbers = jax.eval_shape(lambda: hyperparams(config, learner, 1))
  key = jax.eval_shape(lambda: jax.random.key(0))
  lowered = compiled_epochs(state).lower(state, experience, key, numbers, learner=learner)
  analysis = lowered.compile().memory_analysis()
  return {"length": length, "temp_gb": analysis.temp_size_in_bytes / 1e9}


def main(slots: int = SLOTS) -> int:
  """Prints a JSON line for each of sampling, learning and memory."""
  cfg = workload.model_config(**SHAPE)
  model, tokens = Decoder(cfg), int(lengths().sum())
  params = jax.jit(lambda key: nn.meta.unbox(init_params(model, key)))(stream_key(0, "init", 0))
  refilled, taken = sample(model, params, slots)
  packed = learn(cfg, params, refilled, LENGTH)
  padded = learn(cfg, params, refilled, 0)
  ratio = float(lengths().max() / lengths().mean())
  learning = {"update": "long", "length": LENGTH, "padded_s": padded, "packed_s": packed}
  print(json.dumps({**learning, "times": padded / packed, "max_over_mean": ratio}), flush=True)
  print(json.dumps({"memory": [step_memory(length) for length in (2048, 4096, 8192)]}), flush=True)
  static, static_s = sample(model, params, 0)
  same = (np.asarray(static.tokens) == np.asarray(refilled.tokens)).all(1)
  sampling = {"sample": "long", "rows": ROWS, "slots": slots, "tokens": tokens}
  rates = {"static_tokens_per_s": tokens / static_s, "slots_tokens_per_s": tokens / taken}
  print(
    json.dumps({**sampling, **rates, "times": static_s / taken, "rows_equal": int(same.sum())}), flush=True
  )
  return 0
