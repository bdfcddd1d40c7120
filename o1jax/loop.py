"""The loop that all stages of a run share: one step after another, saved, evaluated and logged on the way.

step -> metrics, rollouts, a quick evaluation -> a line of the log -> a checkpoint -> the next, or an end in order
"""

import dataclasses
import time
from typing import Any, Mapping

import numpy as np
import rich

from o1jax import evaluate as ev
from o1jax.parallel.hosts import EXIT_NONFINITE, EXIT_PREEMPTED, Preemption
from o1jax.io.checkpoint import Checkpoints
from o1jax.io.log import CLOCK_METRICS, RunLog, progress, shown
from o1jax.rl.stages import Progress, Stage
from o1jax.tasks.stream import Exhausted
from o1jax.types import TrainState


class Stopped(Exception):
  """A run that ends early, with its exit code."""

  def __init__(self, code: int, line: str):
    super().__init__(line)
    self.code = code


class Run:
  """The open files of a run, and the loop that both stages share."""

  def __init__(
    self, setup: ev.Setup, log: RunLog, checkpoints: Checkpoints, preemption: Preemption, where: Progress
  ):
    self.setup, self.log, self.checkpoints = setup, log, checkpoints
    self.preemption, self.where = preemption, where
    self.state: Any = None  # the newest; nobody else keeps one, so that memory holds one alone
    self.counted: Mapping[str, float] = {}  # of what the task's verifier has cost, what `where` holds

  def save(self, state: TrainState, where: Progress) -> None:
    """Saves unless this step is saved already."""
    self.checkpoints.wait()
    if self.checkpoints.latest() != where.step:
      self.checkpoints.save(where.step, state, where.to_json())

  def log_unlogged(self, stage: Stage, state: TrainState) -> None:
    """Evaluates again where the process before ended between a step's save and its line."""
    line, self.where = self.where.unlogged, dataclasses.replace(self.where, unlogged={})
    if line and self.log.last_step < self.where.step:
      metrics = {name: float(value) for name, value in line.items()}
      self.log.metrics(self.where.step, stage.name, metrics | self.quick_eval(state, self.where.step))

  def loop(self, stage: Stage, state: TrainState, steps: int, one_step: Any) -> TrainState:
    """Steps `stage` to its end; saves, evaluates and logs on the way. Raises Stopped on a signal or a NaN.

    Where the curriculum has dropped every problem the stage ends early, saved.
    """
    config, self.state = self.setup.config, state
    last = stage.first + steps
    self.log_unlogged(stage, state)
    began = time.perf_counter() - self.where.seconds.get(stage.name, 0.0)
    with progress(last, stage.name, config.log.progress) as tell:
      while self.where.step < last:
        step, started = self.where.step + 1, time.perf_counter()
        self.log.profile(step, config.log.profile)
        try:
          state, metrics, spent, *rows = one_step(self.setup, stage, state, step, self.where)
        except Exhausted as error:
          rich.print(f"[yellow]the stage ends at step {self.where.step} of {last}: {error}[/]")
          self.save(state, self.where)
          break
        self.state = state
        seconds = time.perf_counter() - started
        self.where = self.where.after(step, stage.name, spent, time.perf_counter() - began)
        self.where = self.where.with_costs(now := self.setup.task.spent(), self.counted)
        self.counted = now
        metrics |= self.where.costs
        metrics |= {"step_time": seconds, "tokens_per_second": spent.tokens / seconds}
        metrics |= {"num_tokens": float(self.where.tokens), **self.where.flops.metrics()}
        bad = not np.isfinite([metrics["loss"], metrics["grad_norm"]]).all()
        if rows and (bad or step % config.log.rollouts_every == 0):
          self.log.rollouts(step, stage.name, rows[0] if bad else rows[0][: config.log.rollouts])
        if stage.eval_every and (step - stage.first) % stage.eval_every == 0 and not bad:
          # First, for an evaluation may take longer than a scheduler that asked for an end waits.
          made = {name: value for name, value in metrics.items() if name not in CLOCK_METRICS}
          self.save(state, self.where.before_line(made))
          metrics |= self.quick_eval(state, step)
        self.log.metrics(step, stage.name, metrics)
        tell(step, shown(metrics))
        if bad:
          where = "; its rollouts are in rollouts.jsonl" if rows else ""
          raise Stopped(EXIT_NONFINITE, f"step {step}: loss or gradient is not finite{where}")
        if step % config.checkpoint.every == 0 or step == last or self.preemption.requested:
          self.save(state, self.where)
        self.leave_if_asked()
    self.log.profile(last + 1, config.log.profile)
    return state

  def give_up(self) -> TrainState:
    """The newest state, which nothing of the run holds on to any more, its last save included."""
    state, self.state = self.state, None
    self.checkpoints.wait()
    return state

  def leave_if_asked(self) -> None:
    if self.preemption.requested:
      self.checkpoints.wait()
      raise Stopped(
        EXIT_PREEMPTED, f"{self.preemption.requested}: saved step {self.where.step}; go on with --resume"
      )

  def quick_eval(self, state: TrainState, step: int) -> dict[str, float]:
    """Figures of a small evaluation, for the step's line."""
    cfg = self.setup.config.eval
    graded = ev.sample_and_grade(
      self.setup, state.params, ev.held_out(self.setup, cfg.problems, "eval.problems"), cfg, step
    )
    told = ev.figures(self.setup, graded)
    low, high = told["pass@1_ci95"]
    return {
      "eval/pass@1": told["pass@1"], "eval/pass@1_low": low, "eval/pass@1_high": high,
      "eval/mean_length": told["mean_length"],
    }  # fmt: skip
