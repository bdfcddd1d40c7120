"""o1jax behind the interface of a side-by-side benchmark: `Adapter(size, task, opts)` with `sample` and
`run_grpo`.

The harness passes `size` as {"d", "layers", "heads", "kv", "hd", "mlp", "vocab"} and a `gate` that times the
phases. `opts` may have "dtype" and "micro_batches". It is no program by itself: the harness loads it, and has
the module `spec`, with `prompts(size, rows, length)`, on its path.
"""

import importlib.metadata
import pathlib
import sys
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # the harness loads this file by its path

import workload

try:
  import spec  # the harness's own: the prompts that every library gets
except ImportError as error:
  raise SystemExit("error: bench_adapter.py needs `spec`, a module of the harness that loads it") from error


class Adapter:
  """One model of the harness's size."""

  def __init__(self, size: dict[str, int], task: str, opts: dict[str, Any]):
    names = {"width": "d", "kv_heads": "kv", "head_dim": "hd"}
    fields = ("width", "layers", "heads", "kv_heads", "head_dim", "mlp", "vocab")
    shape = {field: size[names.get(field, field)] for field in fields}
    model = workload.model_config(**shape, dtype=opts.get("dtype", "float32"))
    self.work = workload.Work(model, opts.get("micro_batches", workload.MICRO_BATCHES))
    self.size, self.params = size, self.work.params() if task == "sample" else None
    self.n_params = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(self.work.params)))
    self.versions = {name: importlib.metadata.version(name) for name in ("o1jax", "jax", "jaxlib")}

  def sample(self, rows: int, prompt: int, tokens: int, seed: int) -> np.ndarray:
    """i32[rows, tokens] on the host, one sample of each of `rows` prompts."""
    batch = self.work.batch(spec.prompts(self.size, rows, prompt))
    return np.asarray(self.work.sample(self.params, batch, 1, tokens, seed).tokens)[:, prompt:]

  def run_grpo(self, gate: Any, steps: int) -> None:
    """`steps` GRPO steps, each phase timed with its results awaited."""
    work, state = self.work, self.work.state()
    batch = work.batch(spec.prompts(self.size, workload.PROMPTS, workload.PROMPT))
    for step in range(steps):
      jax.block_until_ready(state)
      gate.tick()
      with gate.phase("sample"):
        rollout = jax.block_until_ready(
          work.sample(state.params, batch, workload.SAMPLES, workload.RESPONSE, step)
        )
      reward = work.reward(rollout)
      gate.note(reward=reward.mean(), tokens=workload.PROMPTS * workload.SAMPLES * workload.RESPONSE)
      with gate.phase("ref"):
        logp_ref = jax.block_until_ready(work.reference(state, rollout))
      with gate.phase("update"):
        state = jax.block_until_ready(work.update(state, rollout, reward, logp_ref))
    jax.block_until_ready(state)
    gate.close()
