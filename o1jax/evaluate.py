"""Evaluation: parameters and held-out problems in, accuracies with intervals and test-time-compute curves out.

Flow: K samples a problem -> verdicts -> pass@k, maj@k and their intervals; lengths and verdicts together give the
curves. A forced budget replaces every early stop by the task's retry token, in one run to the largest budget, whose
prefixes are scored as the smaller ones.
"""

import contextlib
import dataclasses
import pathlib
import types
from typing import Any, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import rich

from o1jax.config import EvalConfig, TrainConfig, require
from o1jax.dist.mesh import make_mesh
from o1jax.dist.sharding import RULES, batch_rows, param_shardings, put_rows
from o1jax.io.checkpoint import latest_step, restore_params
from o1jax.io.log import write_json
from o1jax.io.run_config import META, read_json, read_run_config
from o1jax.model.transformer import Decoder, init_params
from o1jax.rl.batch import check_prompt, prompt_batch
from o1jax.rl.sample import SampleConfig, generate, greedy, inverse_cdf, still, stream_key
from o1jax.rl.value import ADD_CRITIC, policy_params
from o1jax.scaling import curves, passk, stats
from o1jax.scaling.text import reflection_rates, repetition_rate
from o1jax.tasks.base import Task, check_demonstrations
from o1jax.tasks.catalog import build_task
from o1jax.types import Rollout
from o1jax.verifiers.base import Problem, Verdict

FREELY: Mapping[int, int] = types.MappingProxyType({})  # no token stands in for another


@dataclasses.dataclass(frozen=True)
class Setup:
  """What a run is made of before any parameter: resolved configuration, task, model and mesh."""

  config: TrainConfig
  task: Task
  model: Decoder
  mesh: jax.sharding.Mesh


@dataclasses.dataclass(frozen=True)
class Graded:
  """n problems x K samples."""

  reward: np.ndarray  # f64[n, K]
  correct: np.ndarray  # bool[n, K]
  length: np.ndarray  # i64[n, K], response tokens
  texts: list[list[str]]  # [n][K]
  verdicts: list[list[Verdict]]  # [n][K]


def prepare(config: TrainConfig) -> Setup:
  """Builds task, model and mesh. Raises ConfigError where they do not fit each other."""
  config.validate()
  task = build_task(config.task, config.seed)
  vocab = config.model.vocab or task.tokenizer.vocab_size
  require(
    vocab >= task.tokenizer.vocab_size,
    "model.vocab",
    f"{vocab} is below the tokenizer's {task.tokenizer.vocab_size}",
  )
  budgets = config.eval.budgets
  require(
    not budgets or task.retry_token is not None,
    "eval.budgets",
    f"task {task.name} has no retry token to force",
  )
  require(
    not config.controls or task.give_up_token is not None, "controls", f"task {task.name} cannot give up"
  )
  require(config.eval.top_k <= vocab, "eval.top_k", f"{config.eval.top_k} of only {vocab} tokens")
  mesh = make_mesh(config.mesh)
  shards = batch_rows(mesh)
  rows = {"rl.prompts": config.rl.prompts, "sft.rows": config.sft.rows, "eval.batch": config.eval.batch}
  for field, count in rows.items():
    require(
      count % shards == 0, field, f"{count} does not divide over the mesh's {shards} shards of the batch"
    )
  config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab=vocab))
  for name, axis in (("kv_heads", "tensor"), ("mlp", "tensor"), ("vocab", "tensor"), ("width", "fsdp")):
    size, parts = vars(config.model)[name], mesh.shape[axis]
    require(size % parts == 0, f"model.{name}", f"{size} does not divide over mesh.{axis}={parts}")
  return Setup(config, task, Decoder(config.model), mesh)


def check_problems(setup: Setup) -> None:
  """Raises ConfigError where a problem that a whole run comes to is missing, or too long."""
  config, task = setup.config, setup.task
  if any(config.eval.every):
    held_out(setup, config.eval.problems, "eval.problems")
  tested = held_out(setup, config.eval.final_problems, "eval.final_problems")
  for problem in (*(task.train if config.rl.steps else ()), *tested):
    check_prompt(task.tokenizer.encode(problem.prompt), problem.id, config.rl.max_prompt)
  if config.sft.steps:
    check_demonstrations(task, config.sft.length)


def same_data(setup: Setup, folder: pathlib.Path) -> None:
  """Raises ConfigError where the run in `folder` learned from other problems or token ids than the task has now."""
  config, tokenizer = folder / "config.json", folder / "tokenizer.model"
  known = read_json(config).get(META, {}).get("data_hash") == setup.task.data_hash
  require(known, str(config), f"has the data_hash of other problems than task {setup.task.name} has now")
  proto = tokenizer.read_bytes() if tokenizer.is_file() else b""
  require(proto == setup.task.tokenizer.proto, str(tokenizer), "is not the tokenizer that the task has now")


def params_like(setup: Setup, step: int) -> Any:
  """Shapes and shardings of the parameters after `step`, to restore onto: from the RL stage on, with the critic's."""
  add_critic = ADD_CRITIC[setup.config.rl.critic.kind if step > setup.config.sft.steps else "none"]
  boxed = jax.eval_shape(lambda k: add_critic(init_params(setup.model, k)), jax.random.key(0))
  place = lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding)
  return jax.tree.map(place, jax.eval_shape(nn.meta.unbox, boxed), param_shardings(boxed, setup.mesh))


def batch_of(setup: Setup, problems: Sequence[Problem]) -> Any:
  """A PromptBatch of `problems`, sharded by row."""
  encode = setup.task.tokenizer.encode
  prompts = [encode(p.prompt) for p in problems]
  keys, names = [setup.task.hash_of(p) for p in problems], [p.id for p in problems]
  return put_rows(prompt_batch(prompts, keys, names, setup.config.rl.max_prompt), setup.mesh)


def responses(setup: Setup, rollout: Rollout) -> list[list[int]]:
  """Response tokens of each row, stop tokens and padding left out."""
  start = setup.config.rl.max_prompt
  tokens, valid = (np.asarray(a)[:, start:] for a in (rollout.tokens, rollout.valid))
  stops = set(setup.task.stop_tokens)
  return [[int(t) for t in row[keep] if int(t) not in stops] for row, keep in zip(tokens, valid)]


def _sample_config(setup: Setup, cfg: EvalConfig, max_tokens: int) -> SampleConfig:
  return SampleConfig(
    max_tokens, setup.task.stop_tokens,
    draw=inverse_cdf if cfg.temperature > 0 else greedy, top_k=cfg.top_k, top_p=cfg.top_p,
  )  # fmt: skip


def instead(setup: Setup, swaps: Mapping[int, int]) -> jax.Array:
  """`replace` of the sampler, i32[V]: every token stands for itself, but the drawn ones in {drawn: taken instead}."""
  table = np.arange(setup.config.model.vocab, dtype=np.int32)
  table[list(swaps.keys())] = list(swaps.values())
  return jnp.asarray(table)


def draw_samples(
  setup: Setup,
  params: Any,
  problems: Sequence[Problem],
  cfg: EvalConfig,
  sampling: SampleConfig,
  step: int,
  swaps: Mapping[int, int] = FREELY,
) -> tuple[list[list[int]], np.ndarray]:
  """(response tokens, lengths i64) of n * K rows; the last batch is filled up with the first problems.

  `swaps` as in `instead`; they are traced, so that one compiled program draws freely and with stopping forbidden.
  """
  key = stream_key(setup.config.seed, "eval", step)
  tokens: list[list[int]] = []
  lengths: list[np.ndarray] = []
  for start in range(0, len(problems), cfg.batch):
    some = list(problems[start : start + cfg.batch])
    filled = [*some, *(problems[i % len(problems)] for i in range(cfg.batch - len(some)))]
    rollout = generate(
      policy_params(params), batch_of(setup, filled), key, still(cfg.temperature or 1.0),
      model=setup.model, samples=cfg.samples, cfg=sampling, replace=instead(setup, swaps),
    )  # fmt: skip
    keep = len(some) * cfg.samples
    tokens += responses(setup, rollout)[:keep]
    lengths.append(np.asarray(rollout.valid)[:keep, setup.config.rl.max_prompt :].sum(1))
  return tokens, np.concatenate(lengths)


def grade(setup: Setup, problems: Sequence[Problem], tokens: list[list[int]], lengths: np.ndarray) -> Graded:
  """Verdicts of n * K responses, in rows of K."""
  samples = len(tokens) // len(problems)
  texts = [setup.task.tokenizer.decode(row) for row in tokens]
  verdicts = setup.task.verify([p for p in problems for _ in range(samples)], texts)
  shape = (len(problems), samples)
  rows = lambda items: [items[i : i + samples] for i in range(0, len(items), samples)]
  return Graded(
    np.asarray([v.reward for v in verdicts]).reshape(shape),
    np.asarray([v.correct for v in verdicts]).reshape(shape),
    lengths.reshape(shape),
    rows(texts),
    rows(verdicts),
  )


def sample_and_grade(
  setup: Setup,
  params: Any,
  problems: Sequence[Problem],
  cfg: EvalConfig,
  step: int,
  swaps: Mapping[int, int] = FREELY,
) -> Graded:
  """K responses a problem, graded; `swaps` as in `instead`."""
  sampling = _sample_config(setup, cfg, cfg.max_tokens)
  return grade(setup, problems, *draw_samples(setup, params, problems, cfg, sampling, step, swaps))


def completion_metrics(graded: Graded, rollout: Rollout) -> dict[str, float]:
  """Metrics of the responses themselves."""
  texts = [text for row in graded.texts for text in row]
  return {
    "accuracy": float(graded.correct.mean()),
    "completions/mean_length": float(graded.length.mean()),
    "completions/min_length": float(graded.length.min()),
    "completions/max_length": float(graded.length.max()),
    "completions/clipped_ratio": float(1.0 - np.asarray(rollout.finished).mean()),
    "repetition_rate": repetition_rate(texts),
    **reflection_rates(texts),
  }


def rollout_rows(problems: Sequence[Problem], graded: Graded) -> list[dict[str, Any]]:
  """All responses as lines of rollouts.jsonl: the first sample of each problem, then the second of each, ..."""
  return [
    {
      "problem_id": p.id, "prompt": p.prompt, "completion": texts[g],
      "reward": v[g].reward, "correct": v[g].correct, "error": v[g].error,
    }
    for g in range(graded.reward.shape[1])
    for p, texts, v in zip(problems, graded.texts, graded.verdicts)
  ]  # fmt: skip


def no_give_up(task: Task) -> dict[int, int]:
  """The swap that forbids giving up: the retry token stands in its place."""
  require(
    task.give_up_token is not None and task.retry_token is not None, "controls", f"{task.name} cannot give up"
  )
  return {task.give_up_token: task.retry_token}  # type: ignore[dict-item]


def control(cfg: EvalConfig) -> EvalConfig:
  """The evaluation of controls and forced budgets: fewer samples a problem, as many rows a call."""
  batch = cfg.batch * max(cfg.samples // cfg.control_samples, 1)
  return dataclasses.replace(cfg, samples=cfg.control_samples, batch=batch)


def forced_budget(
  setup: Setup, params: Any, problems: Sequence[Problem], cfg: EvalConfig, step: int
) -> dict[int, Graded]:
  """budget -> graded prefixes of one run to the largest budget, in which every early stop becomes the retry token."""
  task = setup.task
  early = [t for t in (*task.stop_tokens, task.give_up_token) if t is not None]
  swaps: Mapping[int, Any] = dict.fromkeys(early, task.retry_token)
  cfg = control(cfg)
  tokens, _ = draw_samples(
    setup, params, problems, cfg, _sample_config(setup, cfg, cfg.budgets[-1]), step, swaps
  )
  full = lambda b: np.full(len(tokens), b)
  return {b: grade(setup, problems, [row[:b] for row in tokens], full(b)) for b in cfg.budgets}


def figures(setup: Setup, graded: Graded, cfg: EvalConfig) -> dict[str, Any]:
  """What summary.json says of one evaluation, its curves apart."""
  n, samples = graded.correct.shape
  rng = np.random.default_rng(0)
  low, high = stats.bootstrap_ci(graded.correct.mean(1), rng, cfg.bootstrap)
  tries = np.asarray([[setup.task.count_tries(t) for t in row] for row in graded.texts])
  k = min(8, samples)
  answers = [[v.parsed for v in row] for row in graded.verdicts]
  return {
    "pass@1": float(graded.correct.mean()),
    "pass@1_ci95": [low, high],
    f"pass@{k}": float(np.mean(passk.pass_at_k(samples, graded.correct.sum(1), k))),
    f"maj@{k}": float(np.mean([passk.maj_at_k(a, list(c), k) for a, c in zip(answers, graded.correct)])),
    "mean_length": float(graded.length.mean()),
    "tries_per_response": float(tries.mean()),
    "success_per_try": float(graded.correct.sum() / max(tries.sum(), 1)),
    "problems": n,
    "samples": samples,
  }


def all_curves(
  setup: Setup, params: Any, problems: Sequence[Problem], graded: Graded, cfg: EvalConfig, step: int
) -> dict:
  """Accuracy against completion tokens: pooled, within-prompt, forced budget, natural stopping, best of n."""
  rng = np.random.default_rng(0)
  out = {
    "pooled": curves.pooled_bins(graded.correct, graded.length, rng, resamples=cfg.bootstrap),
    "within_prompt": curves.within_prompt_bins(graded.correct, graded.length, rng, resamples=cfg.bootstrap),
    "natural": curves.natural(graded.correct, graded.length, rng, resamples=cfg.bootstrap),
  }
  if cfg.budgets:
    forced = forced_budget(setup, params, problems, cfg, step)
    correct = {b: g.correct for b, g in forced.items()}
    out["forced_budget"] = curves.forced_budget(correct, rng, resamples=cfg.bootstrap)
    first, last = (correct[cfg.budgets[i]].mean(1) for i in (0, -1))
    out["forced_budget_gain"] = stats.paired_bootstrap(last, first, rng, cfg.bootstrap)
    budgets = list(cfg.budgets)
    out["best_of_n"] = curves.best_of_n(graded.correct, graded.length, budgets, rng, resamples=cfg.bootstrap)
  return out


def evaluate(
  setup: Setup, params: Any, problems: Sequence[Problem], cfg: EvalConfig, step: int
) -> tuple[dict, Graded]:
  """(figures with their curves, the graded samples) of natural stopping on `problems`."""
  graded = sample_and_grade(setup, params, problems, cfg, step)
  told = figures(setup, graded, cfg)
  return {**told, "curves": all_curves(setup, params, problems, graded, cfg, step)}, graded


def held_out(setup: Setup, count: int, field: str) -> Sequence[Problem]:
  """The first `count` held-out problems. Raises ConfigError where there are fewer."""
  have = len(setup.task.held_out)
  require(count <= have, field, f"{count} of only {have} held-out problems")
  return setup.task.held_out[:count]


def in_mesh(setup: Setup) -> Any:
  """The context in which logical axis names mean mesh axes."""
  stack = contextlib.ExitStack()
  stack.enter_context(jax.set_mesh(setup.mesh))
  stack.enter_context(nn.logical_axis_rules(RULES))
  return stack


def load_run(run: str, overrides: EvalConfig | None = None) -> tuple[Setup, Any, int]:
  """(setup, the policy's parameters, step) of a run's newest checkpoint. Raises ConfigError naming the folder without one."""
  config = read_run_config(run)
  setup = prepare(dataclasses.replace(config, eval=overrides or config.eval))
  folder = pathlib.Path(run) / "checkpoints"
  step = latest_step(folder)
  require(step is not None, str(folder), "holds no checkpoint")
  same_data(setup, pathlib.Path(run))
  assert step is not None
  return setup, policy_params(restore_params(folder, step, params_like(setup, step))), step


def evaluate_run(run: str, *, overrides: EvalConfig) -> int:
  """`o1jax eval RUN`: evaluates the newest checkpoint, prints the figures and writes RUN/eval.json. Returns 0."""
  setup, params, step = load_run(run, overrides)
  problems = held_out(setup, overrides.final_problems, "eval.final_problems")
  with in_mesh(setup):
    told, _ = evaluate(setup, params, problems, overrides, step)
  write_json(pathlib.Path(run) / "eval.json", {"step": step, **told})
  rich.print({"step": step, **{k: v for k, v in told.items() if k != "curves"}})
  return 0


def sample_run(run: str, prompt: str, *, samples: int, temperature: float, seed: int) -> int:
  """`o1jax sample RUN --prompt ...`: prints `samples` responses of the newest checkpoint. Returns 0."""
  setup, params, step = load_run(run)
  setup.task.tokenizer.require_known(prompt, "--prompt")
  problem = Problem(prompt, prompt, "", "prompt")
  cfg = dataclasses.replace(
    setup.config.eval, samples=samples, temperature=temperature, batch=batch_rows(setup.mesh)
  )
  setup = dataclasses.replace(setup, config=dataclasses.replace(setup.config, seed=seed))
  sampling = _sample_config(setup, cfg, cfg.max_tokens)
  with in_mesh(setup):
    tokens, _ = draw_samples(setup, params, [problem], cfg, sampling, step)
  for row in tokens:
    print(setup.task.tokenizer.decode(row))
  return 0
