"""The whole run, top to bottom: cold start, reinforcement learning, evaluation, controls, summary and report.

Every step is a function of the state and the step's number: problems, demonstrations and noise are drawn
from the seed and a cursor, so that a run that was stopped goes on bitwise. Steps count over both stages.
`fit` is the loop of every stage; `rl_step` and `sft_step` are what it repeats.
"""

import contextlib
import dataclasses
import functools
import pathlib
import time
from typing import Any, Callable, Mapping, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich

from o1jax.config import TrainConfig
from o1jax.evaluate.controls import control_config, no_give_up
from o1jax.evaluate.figures import evaluate, figures, quick_evaluation, sample_and_grade
from o1jax.evaluate.heldout import diagnose
from o1jax.io.checkpoint import Checkpoints, read_cursor, restore_params
from o1jax.io.log import CLOCK_METRICS, RunLog, environment, shown, write_json
from o1jax.io.log import progress as progress_bar
from o1jax.io.report.run import results_table, write_report
from o1jax.io.run_config import located
from o1jax.io.run_folder import locked, new_run
from o1jax.parallel.hosts import EXIT_NONFINITE, EXIT_PREEMPTED, Preemption
from o1jax.parallel.sharding import put_rows
from o1jax.rl.draw import stream_key
from o1jax.rl.experience import trimmed
from o1jax.rl.learner import Learner, hyperparams, rl_learner, run_epochs, sft_learner
from o1jax.rl.step import RolloutScores, score_rollout, train_step
from o1jax.rollout import setup
from o1jax.rollout.answer import plain
from o1jax.rollout.collect import collect, demonstrations, learner_inputs
from o1jax.rollout.grade import Graded, rollout_rows
from o1jax.rollout.record import Progress, StepFn, StepRecord, StepResult, StepUsage, record
from o1jax.rollout.reward_model import reward_model_params
from o1jax.rollout.setup import Runtime
from o1jax.scaling import stats
from o1jax.scaling.flops import Ledger, sft_flops
from o1jax.tasks.stream import Exhausted
from o1jax.types import Rollout, TrainState, resolve_stats

COLD_START = "cold_start"  # folder of the cold start's last state
SUMMARY = "summary.json"  # the run's final figures

# One step of each stage


def sft_step(
  runtime: Runtime, learner: Learner, state: TrainState, step: int, progress: Progress
) -> StepResult:
  """Imitates one packed batch of demonstrations."""
  config = runtime.config
  experience, cursor, lengths = demonstrations(runtime, progress.cursor)
  batch, key = put_rows(experience, runtime.mesh), stream_key(config.seed, "sft", step)
  learned = run_epochs(state, batch, key, hyperparams(config, learner, step), learner=learner)
  actions = int(np.asarray(experience.is_action).sum())
  flops = sft_flops(config.model, config.sft.rows, config.sft.length, lengths, actions)
  usage = StepUsage(Ledger(update=flops), sum(lengths), cursor)
  return StepResult(learned.state, resolve_stats(learned.stats), usage)


class RLInputs(NamedTuple):
  """What the RL stage begins with, beside its state."""

  params: Any = None  # the parameters that it begins with, for diagnostics, where the states do not hold them
  reward_params: Any = None  # of the reward model; None: the verifier pays


def rl_step(
  runtime: Runtime, learner: Learner, state: TrainState, step: int, progress: Progress, *, begun: RLInputs
) -> StepResult:
  """Rollout -> verify -> reward -> advantages -> Experience -> update."""
  config = runtime.config
  numbers = hyperparams(config, learner, step)

  def overlapped(rollout: Rollout) -> RolloutScores:
    return score_rollout(state, trimmed(rollout, config.rl), numbers, learner=learner)

  collected = collect(runtime, state.params, step, progress, overlapped)
  began = time.perf_counter()
  inputs = learner_inputs(runtime, learner, step, collected, begun.reward_params)
  diagnosis, flops = diagnose(runtime, learner, state, step, begun.params, collected.sizes.learned, inputs)
  learned = train_step(state, inputs, learner=learner, scores=collected.scores)
  resolved = resolve_stats({**learned.stats, **collected.stats}) | diagnosis
  done = StepRecord(resolved, collected.sizes, collected.cursor, flops, collected.draws)
  metrics, usage = record(config, runtime.task, learner, progress, done)
  metrics |= {"time/generate": collected.seconds.generate, "time/verify": collected.seconds.verify}
  metrics["time/update"] = time.perf_counter() - began
  return StepResult(learned.state, metrics, usage, rollout_rows(runtime.task, collected.graded))


# The loop


class Stopped(Exception):
  """A run that ends early, with its exit code."""

  def __init__(self, code: int, line: str):
    super().__init__(line)
    self.code = code


class Run:
  """The open files of a run and its newest state."""

  def __init__(
    self,
    runtime: Runtime,
    preemption: Preemption,
    progress: Progress,
    *,
    log: RunLog | None = None,
    checkpoints: Checkpoints | None = None,
    label: str = "",
  ):
    """Without `log` nothing is evaluated or logged, without `checkpoints` nothing is saved; `label` names it
    in messages.
    """
    self.runtime, self.preemption, self.progress = runtime, preemption, progress
    self.log, self.checkpoints, self.label = log, checkpoints, label
    self.state: Any = None  # the newest; nobody else keeps one, so that memory holds one alone
    self.counted: Mapping[str, float] = {}  # of what the task's verifier has cost, what `progress` holds

  def restore(self, learner: Learner, step: int) -> TrainState:
    """The state of checkpoint `step`; the run goes on from there."""
    assert self.checkpoints is not None
    state, saved = self.checkpoints.restore(step, setup.state_like(self.runtime, learner), finite=True)
    self.progress = Progress.from_json(saved)
    return state

  def save(self, state: TrainState, progress: Progress) -> None:
    """Saves unless this step is saved already."""
    if self.checkpoints is None:
      return
    self.checkpoints.wait()
    if self.checkpoints.latest() != progress.step:
      self.checkpoints.save(progress.step, state, progress.to_json())

  def release(self) -> TrainState:
    """The newest state, which the run no longer refers to, its last save included."""
    state, self.state = self.state, None
    self.wait()
    return state

  def wait(self) -> None:
    """Until all that was saved is on the disk."""
    if self.checkpoints is not None:
      self.checkpoints.wait()

  def stop_if_requested(self) -> None:
    """Raises Stopped where a signal asked for an end."""
    if self.preemption.requested:
      self.wait()
      of = f" of the {self.label}" if self.label else ""
      at = f"step {self.progress.step}{of}"
      line = f"saved {at}" if self.checkpoints is not None else f"stopped at {at}"
      raise Stopped(EXIT_PREEMPTED, f"{self.preemption.requested}: {line}; go on with --resume")


def fit(
  run: Run, learner: Learner, state: TrainState, steps: int, step_fn: StepFn, *, every: int = 10
) -> TrainState:
  """Repeats `step_fn` to the end of the stage; saves, evaluates, logs. Raises Stopped on a signal or a NaN.

  Where the curriculum has dropped every problem the stage ends early, saved. every: steps a line of progress.
  """
  config, last, run.state = run.runtime.config, learner.first + steps, state
  _log_unlogged(run, learner, state)
  began = time.perf_counter() - run.progress.seconds.get(learner.name, 0.0)
  with progress_bar(last, run.label or learner.name, config.log.progress, every=every) as show:
    while run.progress.step < last:
      step, started = run.progress.step + 1, time.perf_counter()
      if run.log is not None:
        run.log.profile(step, config.log.profile)
      try:
        result = step_fn(state, step, run.progress)
      except Exhausted as error:
        rich.print(f"[yellow]the stage ends at step {run.progress.step} of {last}: {error}[/]")
        run.save(state, run.progress)
        break
      run.state = state = result.state
      seconds = time.perf_counter() - started
      run.progress = run.progress.after(step, learner.name, result.usage, time.perf_counter() - began)
      metrics, bad = _finish_step(run, learner, result, seconds)
      show(step, shown(metrics))
      if bad:
        rollouts = "; its rollouts are in rollouts.jsonl" if result.rows and run.log else ""
        of = f"{run.label}: " if run.label else ""
        raise Stopped(EXIT_NONFINITE, f"{of}step {step}: loss or gradient is not finite{rollouts}")
      if step % config.checkpoint.every == 0 or step == last or run.preemption.requested:
        run.save(state, run.progress)
      run.stop_if_requested()
  if run.log is not None:
    run.log.profile(last + 1, config.log.profile)
  return state


def _finish_step(
  run: Run, learner: Learner, result: StepResult, seconds: float
) -> tuple[dict[str, float], bool]:
  """(metrics, whether loss or gradient is not finite) of a step; evaluates and logs where there is a log."""
  config, step = run.runtime.config, run.progress.step
  costs = run.runtime.task.spent()
  run.progress, run.counted = run.progress.with_costs(costs, run.counted), costs
  metrics = {**result.metrics, **run.progress.costs, "step_time": seconds}
  metrics |= {"tokens_per_second": result.usage.tokens / seconds, "num_tokens": float(run.progress.tokens)}
  metrics |= run.progress.flops.metrics()
  bad = not np.isfinite([metrics["loss"], metrics["grad_norm"]]).all()
  if run.log is None:
    return metrics, bad
  if result.rows and (bad or step % config.log.rollouts_every == 0):
    run.log.rollouts(step, learner.name, result.rows if bad else result.rows[: config.log.rollouts])
  if learner.eval_every and (step - learner.first) % learner.eval_every == 0 and not bad:
    # Saved first, for an evaluation may take longer than a scheduler that asked for an end waits.
    known = {name: value for name, value in metrics.items() if name not in CLOCK_METRICS}
    run.save(result.state, run.progress.before_line(known))
    metrics |= quick_evaluation(run.runtime, result.state.params, step)
  run.log.metrics(step, learner.name, metrics)
  return metrics, bad


def _log_unlogged(run: Run, learner: Learner, state: TrainState) -> None:
  """Evaluates again where the process before ended between a step's save and its line."""
  line, run.progress = run.progress.unlogged, dataclasses.replace(run.progress, unlogged={})
  if line and run.log is not None and run.log.last_step < run.progress.step:
    metrics = {name: float(value) for name, value in line.items()}
    metrics |= quick_evaluation(run.runtime, state.params, run.progress.step)
    run.log.metrics(run.progress.step, learner.name, metrics)


# The run


def train(config: TrainConfig, *, resume: bool) -> int:
  """Runs `config` into `config.out/config.name`; returns the exit code. Raises ConfigError where it cannot
  start.
  """
  began = time.perf_counter()
  folder = pathlib.Path(config.out).expanduser() / config.name
  runtime = setup.prepare(located(config, folder) if resume else config)
  setup.check_problems(runtime)
  with locked(folder), contextlib.nullcontext() if resume else new_run(folder):
    latest = setup.check_resumed(runtime, folder) if resume else None
    if not resume:
      setup.write_head(runtime, folder)
    with (
      setup.in_mesh(runtime), Preemption() as preemption,
      RunLog(folder, resume_step=latest, wandb=config.log.wandb) as log,
      Checkpoints(folder / "checkpoints", keep=config.checkpoint.keep) as checkpoints,
    ):  # fmt: skip
      run = Run(runtime, preemption, Progress(), log=log, checkpoints=checkpoints)
      try:
        cold = cold_start(run, folder, latest or 0)
        reinforce(run, folder, latest or 0)
        summary = summarise(run, folder, cold, began)
      except Stopped as stop:
        rich.print(f"[yellow]{stop}[/]")
        return stop.code
    summary["costs"] = run.progress.with_costs(runtime.task.spent(), run.counted).costs
    write_json(folder / SUMMARY, summary)
    rich.print(results_table(summary))
    print(f"report: {write_report(str(folder))}")
  return 0


def cold_start(run: Run, folder: pathlib.Path, latest: int) -> Progress:
  """Supervised steps from checkpoint `latest` (0: from the start) to the end of the stage; returns the
  progress there.
  """
  runtime, steps = run.runtime, run.runtime.config.sft.steps
  if latest > steps:
    return Progress.from_json(read_cursor(folder / COLD_START, steps)) if steps else run.progress
  learner = sft_learner(runtime.config, steps)
  state = run.restore(learner, latest) if latest else setup.fresh_state(runtime, learner, None)
  fit(run, learner, state, steps, functools.partial(sft_step, runtime, learner))
  if steps:
    with Checkpoints(folder / COLD_START, keep=1) as cold:  # before any RL step, whose resume needs it
      if cold.latest() is None:
        cold.save(run.progress.step, run.state, run.progress.to_json())
  return run.progress


def reinforce(run: Run, folder: pathlib.Path, latest: int) -> None:
  """RL steps from checkpoint `latest`, or from the parameters of the cold start, to the end of the stage."""
  runtime, config = run.runtime, run.runtime.config
  learner = rl_learner(config)
  if latest > config.sft.steps:
    begun = _rl_inputs(runtime, learner, folder, lambda: rl_begins_with(runtime, folder))
    first = run.restore(learner, latest)
  else:
    params = run.release().params
    begun = _rl_inputs(runtime, learner, folder, lambda: jax.tree.map(jnp.copy, params))
    first = setup.fresh_state(runtime, learner, params)
    run.progress = dataclasses.replace(run.progress, cursor=0)  # the RL stage has a stream of its own
  fit(run, learner, first, config.rl.steps, functools.partial(rl_step, runtime, learner, begun=begun))


def _rl_inputs(
  runtime: Runtime, learner: Learner, folder: pathlib.Path, params: Callable[[], Any]
) -> RLInputs:
  """What RL steps read beside their state; `params` gives the parameters that RL begins with, where they are
  needed.
  """
  learned = runtime.config.rl.reward_model.kind != "none"
  reward = reward_model_params(runtime, params(), folder / "reward_model") if learned else None
  return RLInputs(params() if setup.needs_first_params(runtime, learner) else None, reward)


def rl_begins_with(runtime: Runtime, folder: pathlib.Path) -> Any:
  """The parameters that RL begins with: the cold start's, read back, or the run's first."""
  step = runtime.config.sft.steps
  if not step:
    return setup.initial_params(runtime)
  return restore_params(folder / COLD_START, step, setup.params_like(runtime, step))


# The summary


def summarise(run: Run, folder: pathlib.Path, cold: Progress, began: float) -> dict[str, Any]:
  """The final evaluations and controls, as summary.json has them; `cold`: progress at the end of the cold
  start.

  Written without the controls before they begin, which train once more. Seconds of a stage count all
  processes of a resumed run, `total` the last one alone.
  """
  runtime, cfg, step = run.runtime, run.runtime.config.eval, run.progress.step
  seconds = {
    name: run.progress.seconds.get(stage, 0.0) for name, stage in (("cold_start", "sft"), ("rl", "rl"))
  }
  problems = setup.held_out(runtime, cfg.final_problems, "eval.final_problems")
  started = time.perf_counter()
  final, final_graded = evaluate(runtime, run.release().params, problems, cfg, step)
  summary: dict[str, Any] = {"final": final | _costs(run.progress), "paired": {}, "controls": {}}
  run.stop_if_requested()

  def compare(name: str, graded: Graded) -> None:
    rng = np.random.default_rng(0)
    gain = stats.paired_difference(final_graded.correct.mean(1), graded.correct.mean(1), rng, cfg.bootstrap)
    summary["paired"][f"final_minus_{name}"] = gain

  def complete() -> dict[str, Any]:
    seconds["evaluation"] = time.perf_counter() - started
    seconds["total"] = time.perf_counter() - began
    flops = {"train_flops": run.progress.flops.useful, "cold_start_flops": cold.flops.useful}
    return {**summary, **flops, "seconds": seconds, "steps": step, "commit": environment()["git"]}

  if not (runtime.config.sft.steps and runtime.config.rl.steps):
    return complete()
  params = rl_begins_with(runtime, folder)
  cold_figures, graded = evaluate(runtime, params, problems, cfg, step)
  summary["cold_start"] = cold_figures | _costs(cold)
  compare("cold_start", graded)
  run.stop_if_requested()
  if runtime.config.controls:
    write_json(folder / SUMMARY, complete())
    control = control_config(cfg)
    graded = sample_and_grade(
      runtime, params, problems, control, step, plain(runtime, control, no_give_up(runtime.task))
    )
    summary["controls"]["no_give_up"] = figures(runtime, graded)
    compare("no_give_up", graded)
    training = time.perf_counter()
    params, steps = more_sft(run, params, run.progress.flops.useful, cold.flops.useful)
    seconds["control"] = time.perf_counter() - training
    started += seconds["control"]
    graded = sample_and_grade(runtime, params, problems, control, step)
    summary["controls"]["more_sft"] = {**figures(runtime, graded), "steps": steps}
    compare("more_sft", graded)
  return complete()


def _costs(progress: Progress) -> dict[str, float]:
  return {"train_flops": progress.flops.useful, "seconds": sum(progress.seconds.values())}


def more_sft(run: Run, params: Any, total: float, cold: float) -> tuple[Any, int]:
  """(parameters, steps) of more cold start, on demonstrations not yet imitated, for RL's `total` - `cold`
  useful FLOPs.

  `params` are donated. The learning rate begins anew: warm-up, then its decay over these steps. Nothing is
  logged or saved.
  """
  runtime, cfg = run.runtime, run.runtime.config.sft
  steps = max(1, round((total - cold) / cold * cfg.steps))
  learner = sft_learner(runtime.config, steps)
  behind = Progress(cursor=cfg.steps * cfg.rows * cfg.length)  # the cold start's demonstrations
  control = Run(runtime, run.preemption, behind, label="control: more cold start")
  first = setup.fresh_state(runtime, learner, params)
  return fit(control, learner, first, steps, functools.partial(sft_step, runtime, learner)).params, steps
