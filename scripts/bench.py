"""Measures o1jax on this machine: a JSON line for each size and dtype, or a table of them.

    python scripts/bench.py                      # sizes S and M, float32 and bfloat16
    python scripts/bench.py --sizes S --dtypes float32 --repeats 9
    python scripts/bench.py --long               # slot refill and packing on lengths with a long tail
    python scripts/bench.py --population         # a sweep as one program against its members one after the
    other python scripts/bench.py --verifiers gsm8k    # verdicts a second; without names: gsm8k, math and
    code

Each line comes from a process of its own, so that peak memory and time to first step are that line's. Times
are medians after a warm-up. `matmul_gflops` is the machine's best square float32 product, measured in the
same process; `fraction` is the useful FLOPs (exact causal attention, prompts encoded once a group, no
recomputation) that a second of each phase did, over that rate. Time to first step runs from the process's
start: imports, compilation without a cache, and one whole step.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any, Callable

CELLS = ((64, 128), (64, 512), (1, 128))  # rows of one sample each, new tokens
MATMUL = 2048


def seconds_of(call: Callable[[int], Any], repeats: int) -> list[float]:
  """Seconds of each call, after one that warms up; results are awaited."""
  import jax

  jax.block_until_ready(call(0))
  taken = []
  for i in range(1, repeats + 1):
    start = time.perf_counter()
    jax.block_until_ready(call(i))
    taken.append(time.perf_counter() - start)
  return taken


def matmul_gflops() -> float:
  """GFLOP/s of a square float32 product, the best of many: the machine's limit as XLA reaches it."""
  import jax
  import jax.numpy as jnp

  a = jnp.ones((MATMUL, MATMUL))
  product = jax.jit(lambda a: a @ a)
  return 2 * MATMUL**3 / min(seconds_of(lambda i: product(a), 20)) / 1e9


def steps(work: Any, repeats: int, began: float) -> dict[str, Any]:
  """Seconds of `repeats` GRPO steps and of their phases, peak memory, and seconds from `began` to the first
  step."""
  import jax
  import workload

  state = work.state()
  batch = work.batch(workload.random_prompts(work.vocab, workload.PROMPTS, workload.PROMPT))
  taken: dict[str, list[float]] = {"sample": [], "reference": [], "update": [], "step": []}
  for i in range(repeats + 1):
    at = [time.perf_counter()]
    rollout = jax.block_until_ready(work.sample(state.params, batch, workload.SAMPLES, workload.RESPONSE, i))
    at.append(time.perf_counter())
    reward = work.reward(rollout)
    logp_ref = jax.block_until_ready(work.reference(state, rollout))
    at.append(time.perf_counter())
    state = jax.block_until_ready(work.update(state, rollout, reward, logp_ref))
    at.append(time.perf_counter())
    if i == 0:
      first = time.time() - began
      continue
    for name, start, end in zip(taken, at, at[1:]):
      taken[name].append(end - start)
    taken["step"].append(at[-1] - at[0])
  return {
    "first_step_s": first,
    "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    **{f"{name}_s": statistics.median(values) for name, values in taken.items()},
  }


def measure(size: str, dtype: str, repeats: int, micro_batches: int, began: float) -> dict[str, Any]:
  """All figures of one size and dtype."""
  import jax
  import numpy as np
  import workload

  from o1jax.scaling.flops import Sizes, learning_flops, sampling_flops

  cfg = workload.model_config(**workload.SIZES[size], dtype=dtype)
  work = workload.Work(cfg, micro_batches)
  timings = steps(work, repeats, began)
  tokens = workload.PROMPTS * workload.SAMPLES * workload.RESPONSE
  lengths = np.full((workload.PROMPTS, workload.SAMPLES), workload.RESPONSE)
  rollout = Sizes([workload.PROMPT] * workload.PROMPTS, lengths)
  sizes = (cfg, rollout, workload.PROMPT, workload.RESPONSE)
  flops = sampling_flops(*sizes) + learning_flops(*sizes, updates=1, references=1)
  rate = matmul_gflops()
  phases = {
    "sample": flops.prefill.useful + flops.decode.useful,
    "reference": flops.reference.useful,
    "update": flops.update.useful,
    "step": flops.useful,
  }
  params = work.params()
  cells = {}
  for rows, length in CELLS:
    batch = work.batch(workload.random_prompts(cfg.vocab, rows, workload.PROMPT))
    draw = lambda seed, batch=batch, length=length: work.sample(params, batch, 1, length, seed).tokens
    cells[f"{rows}x{length}"] = rows * length / statistics.median(seconds_of(draw, repeats))
  return {
    "size": size, "dtype": dtype, "device": jax.devices()[0].device_kind, "jax": jax.__version__,
    "micro_batches": micro_batches, "repeats": repeats, **timings,
    "update_tokens_per_s": tokens / timings["update_s"],
    "sample_tokens_per_s": tokens / timings["sample_s"], "sample_cells_tokens_per_s": cells,
    "matmul_gflops": rate,
    "fraction": {name: count / timings[f"{name}_s"] / 1e9 / rate for name, count in phases.items()},
  }  # fmt: skip


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--sizes", nargs="+", default=["S", "M"], choices=["S", "M"])
  parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
  parser.add_argument("--repeats", type=int, default=5, help="timed repeats after one that warms up")
  parser.add_argument(
    "--micro_batches", type=int, default=None, help="of the update (default: workload.MICRO_BATCHES)"
  )
  parser.add_argument(
    "--population", action="store_true", help="measure sweeps instead: XS, and the quickstart's size"
  )
  parser.add_argument(
    "--long", action="store_true", help="measure responses of up to 4,064 tokens: slots, packing, memory"
  )
  parser.add_argument(
    "--verifiers", nargs="*", default=None, choices=["gsm8k", "math", "code"],
    help="measure verifiers instead: all, or those named",
  )  # fmt: skip
  parser.add_argument("--workers", type=int, default=2, help="processes of the verifiers' pool")
  parser.add_argument(
    "--began", type=float, default=None, help=argparse.SUPPRESS
  )  # set in the measuring process
  return parser.parse_args()


def main() -> int:
  args = parse()
  if args.began is not None:
    import workload

    micro_batches = args.micro_batches or workload.MICRO_BATCHES
    print(json.dumps(measure(args.sizes[0], args.dtypes[0], args.repeats, micro_batches, args.began)))
    return 0
  if args.long:
    import long

    return long.main()
  if args.population:
    import population

    return population.main([("XS", 24, 400), ("quickstart", 4, 32)], args.repeats)
  if args.verifiers is not None:
    import verifiers

    return verifiers.main(args.verifiers or ("gsm8k", "math", "code"), args.workers, args.repeats)
  env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
  for size in args.sizes:
    for dtype in args.dtypes:
      command = [sys.executable, __file__, "--sizes", size, "--dtypes", dtype, "--repeats", str(args.repeats)]
      command += ["--micro_batches", str(args.micro_batches)] if args.micro_batches else []
      subprocess.run([*command, "--began", str(time.time())], env=env, check=True)
  return 0


if __name__ == "__main__":
  sys.exit(main())
