"""The runtime of a run (checked configuration, task, model, mesh), first states, a saved run read back."""

import collections
import contextlib
import dataclasses
import functools
import logging
import math
import pathlib
from typing import Any, Callable, Sequence

import flax.linen as nn
import jax
import numpy as np
import rich

from o1jax.config import EvalConfig, MeshConfig, ModelConfig, TrainConfig, require
from o1jax.io.checkpoint import check_params, latest_step, restore_params
from o1jax.io.log import environment, write_json
from o1jax.io.run_config import (
  META,
  check_same,
  config_to_dict,
  expanded,
  located,
  read_json,
  read_run_config,
  resolved_paths,
)
from o1jax.io.tokenizer import saved_fingerprint
from o1jax.io.weights import check_weights, is_weights_folder, load_params, read_model_config
from o1jax.model.transformer import Decoder, init_params
from o1jax.parallel.hosts import start_backend
from o1jax.parallel.mesh import make_mesh
from o1jax.parallel.sharding import RULES, batch_rows, param_shardings, put_rows, state_shardings
from o1jax.rl.critic import add_critic, policy_params
from o1jax.rl.draw import stream_key
from o1jax.rl.experience import check_prompt, prompt_batch
from o1jax.rl.learner import Learner, first_params, first_state
from o1jax.rollout.env import Env, SingleTurn
from o1jax.tasks.base import Task, check_demonstrations
from o1jax.tasks.catalog import build_task
from o1jax.types import PromptBatch, TrainState
from o1jax.verifiers.base import Problem

_LOG = logging.getLogger(__name__)
# Fields of a model in which two that share parameters may differ.
COMPUTATION = ("dtype", "param_dtype", "remat")


@dataclasses.dataclass(frozen=True)
class Runtime:
  """What a run is made of before any parameter: resolved configuration, task, model and mesh."""

  config: TrainConfig
  task: Task
  model: Decoder
  mesh: jax.sharding.Mesh
  env_of: Callable[[Task], Env] = SingleTurn

  @property
  def env(self) -> Env:
    return self.env_of(self.task)


def prepare(config: TrainConfig, devices: Sequence[jax.Device] | None = None) -> Runtime:
  """Builds task, model and mesh (of `devices`, None: all). Raises ConfigError where they do not fit."""
  config.validate()
  start_backend()
  config, mesh = expanded(config), mesh_of(config, devices)
  task = _task(config, mesh)
  can_give_up = not config.controls or task.give_up_token is not None
  require(can_give_up, "controls", f"task {task.name} cannot give up")
  return _with_init(_runtime(config, task, mesh))


def _with_init(runtime: Runtime) -> Runtime:
  """The runtime with the step of the run that it starts from, whose parameters have been compared.

  Raises ConfigError where `init.path` is no run, and no folder of weights, of this model and tokenizer.
  """
  init, model = runtime.config.init, runtime.config.model
  if init.path is None:
    return runtime
  folder = pathlib.Path(init.path)
  if is_weights_folder(folder):
    _check_weights_folder(runtime, folder)
    return runtime
  require(
    (folder / "config.json").is_file(),
    "init.path",
    f"{folder} is no folder of a run or of weights: no config.json",
  )
  _same_tokenizer(runtime, folder)
  _same_model(model, read_run_config(str(folder), quiet=True).model, COMPUTATION, f"the run {folder}")
  step = init.step or latest_step(folder / "checkpoints") or 0
  require(step > 0, "init.path", f"{folder} has no checkpoint")
  config = dataclasses.replace(runtime.config, init=dataclasses.replace(init, step=step))
  runtime = dataclasses.replace(runtime, config=config)
  check_params(folder / "checkpoints", step, _source_like(runtime))
  return runtime


def _check_weights_folder(runtime: Runtime, folder: pathlib.Path) -> None:
  """Raises ConfigError where a folder of weights is of another model or tokenizer, or broken."""
  init, model, tokenizer = runtime.config.init, runtime.config.model, runtime.task.tokenizer
  require(init.step is None, "init.step", f"is of a run, and {folder} has no checkpoints")
  places = (folder / "tokenizer.model", folder)  # SentencePiece's, or files beside the weights
  same = any(saved_fingerprint(place) == tokenizer.fingerprint for place in places)
  require(same, str(folder), "holds another tokenizer than the task's, which task.text.tokenizer can name")
  _same_model(model, read_model_config(folder), (*COMPUTATION, "scan_layers"), str(folder))
  check_weights(folder, model)


def _same_model(ours: ModelConfig, theirs: ModelConfig, but: tuple[str, ...], source: str) -> None:
  """Raises ConfigError naming the first field, of those not in `but`, in which two models differ."""
  for field in dataclasses.fields(ours):
    here, there = vars(ours)[field.name], vars(theirs)[field.name]
    same = field.name in but or here == there
    require(same, f"model.{field.name}", f"is {here}, and {there} in {source}")


def _source_like(runtime: Runtime) -> Any:
  """Shapes and shardings of the parameters at `init`, as the run there has them."""
  init = runtime.config.init
  assert init.path is not None and init.step is not None
  source = read_run_config(init.path, quiet=True)
  return params_like(dataclasses.replace(runtime, config=source, model=Decoder(source.model)), init.step)


def mesh_of(config: TrainConfig, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
  """The mesh of a run on `devices` (None: all); says so where it leaves some out that were not refused.

  Raises ConfigError naming the rows of a batch that do not divide over it.
  """
  rows = _batch_rows(config)
  mesh = make_mesh(config.mesh, devices, rows=math.gcd(*rows.values()))
  for field, count in rows.items():
    shards = batch_rows(mesh)
    why = f"{count} does not divide over the mesh's {shards} shards of the batch"
    require(count % shards == 0, field, f"{why}: take a multiple of {shards}, or a smaller mesh")
  there = jax.device_count() if devices is None else len(devices)
  if mesh.size < there and -1 in (config.mesh.data, config.mesh.fsdp, config.mesh.tensor):
    sizes = ", ".join(f"{field}={count}" for field, count in rows.items())
    rich.print(f"[yellow]mesh: {mesh.size} of {there} devices: {sizes} divide over no more[/]")
  return mesh


def _batch_rows(config: TrainConfig) -> dict[str, int]:
  """Field -> rows (of an RL step: prompts) or slots that the shards must divide, of the stages that run."""
  rows = {}
  if config.rl.steps:
    chunks = config.rl.chunks
    rows["rl.prompts" if chunks == 1 else "rl.prompts / rl.chunks"] = config.rl.prompts // chunks
  if config.sft.steps:
    rows["sft.rows"] = config.sft.rows
  slots = {"rl.slots": config.rl.slots if config.rl.steps else 0, "eval.slots": config.eval.slots}
  return {**rows, "eval.batch": config.eval.batch, **{name: n for name, n in slots.items() if n}}


def prepare_evaluation(config: TrainConfig) -> Runtime:
  """The runtime of a saved run as evaluation needs it: what trained it, its mesh too, need not fit what is
  here.

  Only types and `eval` have been checked: the rest was, by the version that made the run. All devices are
  used that `eval.batch` and `eval.slots` divide over, parameters being split over them where the run split
  them.
  """
  start_backend()
  width, rows = config.model.width, math.gcd(config.eval.batch, config.eval.slots)
  split = (config.mesh.fsdp, config.mesh.tensor) != (1, 1)
  cfg = MeshConfig(data=1, fsdp=-1) if split else MeshConfig()
  mesh = make_mesh(cfg, rows=math.gcd(rows, width) if split else rows)
  return _runtime(config, _task(config, mesh), mesh)


def _task(config: TrainConfig, mesh: jax.sharding.Mesh) -> Task:
  """The task of a model that the mesh can hold: building one may verify thousands of references."""
  _check_splits(config, mesh, kv_heads="tensor", mlp="tensor", width="fsdp")
  return build_task(config.task)


def _check_splits(config: TrainConfig, mesh: jax.sharding.Mesh, **axes: str) -> None:
  for name, axis in axes.items():
    size, parts = vars(config.model)[name], mesh.shape[axis]
    require(size % parts == 0, f"model.{name}", f"{size} does not divide over mesh.{axis}={parts}")


def _runtime(config: TrainConfig, task: Task, mesh: jax.sharding.Mesh) -> Runtime:
  """What fits the task's tokens. Raises ConfigError where something does not."""
  vocab = config.model.vocab or task.tokenizer.vocab_size
  known = task.tokenizer.vocab_size
  require(vocab >= known, "model.vocab", f"{vocab} is below the tokenizer's {known}")
  forced = not config.eval.budgets or task.retry_token is not None
  require(forced, "eval.budgets", f"task {task.name} has no retry token to force")
  require(config.eval.top_k <= vocab, "eval.top_k", f"{config.eval.top_k} of only {vocab} tokens")
  config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab=vocab))
  _check_splits(config, mesh, vocab="tensor")
  return Runtime(config, task, Decoder(config.model), mesh)


def check_problems(runtime: Runtime) -> None:
  """Raises ConfigError where a problem that a whole run comes to is missing, or too long."""
  config, task = runtime.config, runtime.task
  if any(config.eval.every):
    held_out(runtime, config.eval.problems, "eval.problems")
  final = held_out(runtime, config.eval.final_problems, "eval.final_problems")
  count, have = config.rl.problems, len(task.train)
  require(
    count is None or not task.shares, "rl.problems", "cannot act in a mixture, whose sources come by weight"
  )
  require(count is None or count <= have, "rl.problems", f"{count} of only {have} training problems")
  learns = have > 0 or not config.rl.steps
  require(
    learns, "task.held_out", f"all problems of {task.name} are held out, and rl.steps={config.rl.steps}"
  )
  most = config.rl.prompts * (1 + config.rl.dynamic_sampling)
  fresh = config.rl.dynamic_sampling == 0 or most <= have
  require(fresh, "rl.dynamic_sampling", f"a step may come to {most} problems, there are only {have}")
  ood = (problem for problems in task.ood.values() for problem in problems)
  for problem in (*(task.train if config.rl.steps else ()), *final, *ood):
    check_prompt(task.tokenizer.encode(runtime.env.start(problem)), problem.id, config.rl.max_prompt)
  if config.sft.steps:
    check_demonstrations(task, config.sft.length)


def same_data(runtime: Runtime, folder: pathlib.Path) -> None:
  """Raises ConfigError where the run in `folder` learned from other problems or token ids than the task has
  now.

  A run that did not keep the hash of its problems is taken as it is, with a warning.
  """
  config = folder / "config.json"
  known = read_json(config).get(META, {}).get("data_hash")
  if known is None:
    _LOG.warning("%s: meta.data_hash is missing: whether the problems are the run's is not known", config)
  other = f"has the data_hash of other problems than task {runtime.task.name} has now"
  require(known in (None, runtime.task.data_hash), str(config), other)
  _same_tokenizer(runtime, folder)


def _same_tokenizer(runtime: Runtime, folder: pathlib.Path) -> None:
  """Raises ConfigError where the run in `folder` had another tokenizer than the task has."""
  tokenizer = folder / runtime.task.tokenizer.saved_as
  same = saved_fingerprint(tokenizer) == runtime.task.tokenizer.fingerprint
  require(same, str(tokenizer), "is not the tokenizer that the task has now")


def params_like(runtime: Runtime, step: int) -> Any:
  """Shapes and shardings of the parameters after `step`, to restore onto: from the RL stage on, with the
  critic's.
  """
  kind = runtime.config.rl.critic.kind if step > runtime.config.sft.steps else "none"
  boxed = jax.eval_shape(lambda k: add_critic(init_params(runtime.model, k), kind), jax.random.key(0))
  return _placed(jax.eval_shape(nn.meta.unbox, boxed), param_shardings(boxed, runtime.mesh))


def state_like(runtime: Runtime, learner: Learner) -> TrainState:
  """Shapes and shardings of the states of a stage, to make the first one on, or to restore one onto."""
  boxed = jax.eval_shape(lambda k: init_params(runtime.model, k), jax.random.key(0))
  with_critic = jax.eval_shape(functools.partial(add_critic, kind=learner.cfg.critic.kind), boxed)
  params = param_shardings(with_critic, runtime.mesh)
  state = jax.eval_shape(functools.partial(first_state, learner), boxed)
  return _placed(state, state_shardings(state, params, runtime.mesh))


def _seed_params(model: Decoder, key: jax.Array) -> Any:
  return nn.meta.unbox(init_params(model, key))


def initial_params(runtime: Runtime) -> Any:
  """The parameters that a run begins with: drawn from its seed, or the policy or the weights at `init`."""
  init, like = runtime.config.init, params_like(runtime, 0)
  if init.path is not None and is_weights_folder(pathlib.Path(init.path)):
    return load_params(pathlib.Path(init.path), runtime.config.model, like)
  if init.path is not None:
    assert init.step is not None
    theirs = restore_params(pathlib.Path(init.path) / "checkpoints", init.step, _source_like(runtime))
    return jax.tree.map(lambda a, leaf: a.astype(leaf.dtype), policy_params(theirs), like)
  lies = jax.tree.map(lambda a: a.sharding, like)
  make = jax.jit(_seed_params, static_argnums=0, out_shardings=lies)
  return make(runtime.model, stream_key(runtime.config.seed, "init", 0))


def fresh_state(runtime: Runtime, learner: Learner, params: Any | None) -> TrainState:
  """The state a stage begins with, from the parameters before it, which are donated; None: the first."""
  params = initial_params(runtime) if params is None else params
  lies = jax.tree.map(lambda a: a.sharding, state_like(runtime, learner))
  return jax.jit(first_state, static_argnums=0, donate_argnums=1, out_shardings=lies)(learner, params)


def needs_first_params(runtime: Runtime, learner: Learner) -> bool:
  """Whether diagnostics measure to first parameters that the states of a stage do not hold."""
  return runtime.config.diagnostics.every > 0 and first_params(state_like(runtime, learner), learner) is None


def _placed(shapes: Any, shardings: Any) -> Any:
  place = lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding)
  return jax.tree.map(place, shapes, shardings)


def prompt_rows(runtime: Runtime, problems: Sequence[Problem]) -> PromptBatch:
  """Problems as rows of one PromptBatch, on the host."""
  task = runtime.task
  prompts = [task.tokenizer.encode(runtime.env.start(p)) for p in problems]
  keys, names = [task.hash_of(p) for p in problems], [p.id for p in problems]
  return prompt_batch(prompts, keys, names, runtime.config.rl.max_prompt)


def verifiable_rows(runtime: Runtime, problems: Sequence[Problem]) -> PromptBatch:
  """`prompt_rows` with the task arrays of the device verifier, where the task has one."""
  device, rows = runtime.task.device, prompt_rows(runtime, problems)
  return rows if device is None else dataclasses.replace(rows, task_arrays=device.arrays(problems))


def padded(batch: PromptBatch, multiple: int) -> PromptBatch:
  """The batch with its first rows again, up to a multiple."""
  count = batch.tokens.shape[0]
  index = np.arange(-(-count // multiple) * multiple) % count
  return jax.tree.map(lambda a: a[index], batch)


def batch_of(
  runtime: Runtime, problems: Sequence[Problem], before: Sequence[Problem] | None = None
) -> PromptBatch:
  """A PromptBatch of `problems`, sharded by row.

  `before`: problems of the chunks drawn before it with the same key; None where a rollout has one chunk
  alone.
  """
  batch = prompt_rows(runtime, problems)
  if before is not None:
    hash_of = runtime.task.hash_of
    counts = collections.Counter(hash_of(p) for p in before)
    earlier: Any = np.asarray([counts[hash_of(p)] for p in problems], np.int32)
    batch = dataclasses.replace(batch, earlier=earlier)
  return put_rows(batch, runtime.mesh)


def held_out(runtime: Runtime, count: int, field: str) -> Sequence[Problem]:
  """The first `count` held-out problems. Raises ConfigError where there are fewer."""
  have = len(runtime.task.held_out)
  require(count <= have, field, f"{count} of only {have} held-out problems")
  return runtime.task.held_out[:count]


def in_mesh(runtime: Runtime) -> Any:
  """The context in which logical axis names mean mesh axes."""
  stack = contextlib.ExitStack()
  stack.enter_context(jax.set_mesh(runtime.mesh))
  stack.enter_context(nn.logical_axis_rules(RULES))
  return stack


def load_run(run: str, overrides: EvalConfig | None = None) -> tuple[Runtime, Any, int]:
  """(runtime, the policy's parameters, step) of a run's newest checkpoint. Raises ConfigError naming the
  folder without one.

  On any devices, and from any working directory.
  """
  config = located(read_run_config(run), pathlib.Path(run))
  runtime = prepare_evaluation(dataclasses.replace(config, eval=overrides or config.eval))
  folder = pathlib.Path(run) / "checkpoints"
  step = latest_step(folder)
  require(step is not None, str(folder), "holds no checkpoint")
  same_data(runtime, pathlib.Path(run))
  assert step is not None
  return runtime, policy_params(restore_params(folder, step, params_like(runtime, step))), step


def write_head(runtime: Runtime, folder: pathlib.Path) -> None:
  """Writes what tells a run from any other folder, before there is anything else in it."""
  runtime.task.tokenizer.save(folder / runtime.task.tokenizer.saved_as)
  meta = {**environment(), "data_hash": runtime.task.data_hash, "paths": resolved_paths(runtime.config)}
  write_json(folder / "config.json", {**config_to_dict(runtime.config), "meta": meta})


def check_resumed(runtime: Runtime, folder: pathlib.Path) -> int:
  """The step of the checkpoint to go on from, 0 without one. Raises ConfigError where it is another run's."""
  check_same(runtime.config, located(read_run_config(str(folder)), folder), folder)
  same_data(runtime, folder)
  latest = latest_step(folder / "checkpoints")
  if latest is not None:
    check_params(folder / "checkpoints", latest, params_like(runtime, latest))
  return latest or 0
