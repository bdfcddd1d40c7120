"""The work that `bench.py` times and `bench_adapter.py` lends to other harnesses: one GRPO step of a random
model.

Rollout, reference log-probs, advantages and update are the library's own functions, with the settings of a
usual run: T = 1 over the whole vocabulary, no early stop, KL 0.04 (k3) to a frozen reference, AdamW behind
  clipping at 1.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from o1jax.config import CountdownConfig, KLConfig, ModelConfig, OptimConfig, RLConfig, TrainConfig
from o1jax.model.transformer import init_params
from o1jax.rl.draw import stream_key
from o1jax.rl.experience import credit_and_experience, prompt_batch, token_logp
from o1jax.rl.generate import generate
from o1jax.rl.learner import first_state, hyperparams, rl_learner, run_epochs
from o1jax.rl.sampler import SampleConfig
from o1jax.types import PromptBatch, Rollout, TrainState

PROMPTS, SAMPLES, PROMPT, RESPONSE = 8, 8, 32, 128
REWARD_TOKEN = 7  # the reward is its share of a completion
MICRO_BATCHES = 4  # bounds memory; costs nothing measurable on a CPU


def model_config(*, width, layers, heads, kv_heads, head_dim, mlp, vocab, dtype="float32") -> ModelConfig:
  """A Qwen 3 block (RMSNorm, norms on query and key heads, RoPE, SwiGLU) with a tied head."""
  return ModelConfig(
    width, layers, heads, kv_heads, head_dim, mlp, vocab, qk_norm="head", rope_theta=(1e6,), dtype=dtype
  )


SIZES = {
  "S": dict(width=256, layers=4, heads=4, kv_heads=2, head_dim=64, mlp=1024, vocab=512),
  "M": dict(width=512, layers=8, heads=8, kv_heads=4, head_dim=64, mlp=2048, vocab=4096),
}


def random_prompts(vocab: int, count: int, length: int, seed: int = 0) -> list[list[int]]:
  """`count` prompts of `length` tokens, clear of the first and the last eight."""
  return np.random.default_rng(seed).integers(8, vocab - 8, (count, length)).tolist()


class Work:
  """A random model of one size, and the calls of its GRPO step."""

  def __init__(self, model: ModelConfig, micro_batches: int):
    optim = OptimConfig(lr=1e-5, weight_decay=0.01, clip_norm=1.0)
    self.rl = RLConfig(
      1, PROMPTS, SAMPLES, PROMPT, RESPONSE, kl=KLConfig(0.04), micro_batches=micro_batches, optim=optim
    )
    # The task is never built: prompts are random, and the reward is counted.
    config = TrainConfig("bench", model, CountdownConfig(), rl=self.rl)
    self.learner, self.vocab = rl_learner(config), model.vocab
    self.model, self.hyperparams = self.learner.model, hyperparams(config, self.learner, 1)

  def params(self) -> Any:
    """Fresh float32 parameters."""
    return jax.jit(lambda key: nn.meta.unbox(init_params(self.model, key)))(stream_key(0, "init", 0))

  def state(self) -> TrainState:
    """A fresh state, with its frozen reference."""
    return jax.jit(functools.partial(first_state, self.learner))(self.params())

  def batch(self, prompts: list[list[int]]) -> PromptBatch:
    """The prompts, all of one length."""
    rows = range(len(prompts))
    return prompt_batch(prompts, list(rows), [str(row) for row in rows], len(prompts[0]))

  def sample(self, params: Any, batch: PromptBatch, samples: int, tokens: int, seed: int) -> Rollout:
    """Exactly `tokens` tokens for each of `samples` samples a prompt: no token of the vocabulary stops a
    row."""
    cfg = SampleConfig(tokens, stop_tokens=(self.vocab,))
    key = stream_key(seed, "train", 1)
    temperature = self.hyperparams["temperature"]
    return generate(params, batch, key, temperature, model=self.model, samples=samples, cfg=cfg)

  def reward(self, rollout: Rollout) -> np.ndarray:
    """f32[P, G] share of the reward's token, counted on the host, as a verifier's verdicts come."""
    tokens = np.asarray(rollout.tokens)[:, rollout.prompt_width :]
    return (tokens == REWARD_TOKEN).mean(1, dtype=np.float32).reshape(PROMPTS, SAMPLES)

  def reference(self, state: TrainState, rollout: Rollout) -> jax.Array:
    """f32[B, L] log-probs of the rollout under the reference."""
    return token_logp(
      state.ref_params, rollout, self.hyperparams["temperature"], model=self.model,
      layout=self.learner.layout,
      chunk=self.rl.head_chunk,
    )  # fmt: skip

  def update(
    self, state: TrainState, rollout: Rollout, reward: np.ndarray, logp_ref: jax.Array
  ) -> TrainState:
    """Advantages and one optimiser step. The state is donated."""
    given = (rollout, jnp.asarray(reward), None, rollout.logp_sampler, logp_ref, self.hyperparams["kl.coef"])
    experience, _ = credit_and_experience(*given, cfg=self.rl)
    key = stream_key(0, "minibatch", 1)
    return run_epochs(state, experience, key, self.hyperparams, learner=self.learner).state
