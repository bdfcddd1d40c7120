"""Evaluation: parameters and problems in, graded completions, accuracies with intervals and test-time-compute curves out."""

from o1jax.evaluate.figures import control, evaluate, evaluate_run, figures, sample_run
from o1jax.evaluate.groups import StepGroups, sizes_of, step_groups
from o1jax.evaluate.samples import (
  FREELY,
  Graded,
  grade,
  instead,
  no_give_up,
  responses,
  rollout_rows,
  sample_and_grade,
)
from o1jax.evaluate.setup import (
  Setup,
  batch_of,
  check_problems,
  held_out,
  in_mesh,
  load_run,
  params_like,
  prepare,
  same_data,
  state_like,
)
from o1jax.evaluate.tests import diagnosed, rewards_by_source, test_figures, tested, tests_of, text_metrics

__all__ = [
  "FREELY",
  "Graded",
  "Setup",
  "StepGroups",
  "batch_of",
  "check_problems",
  "control",
  "diagnosed",
  "evaluate",
  "evaluate_run",
  "figures",
  "grade",
  "held_out",
  "in_mesh",
  "instead",
  "load_run",
  "no_give_up",
  "params_like",
  "prepare",
  "responses",
  "rewards_by_source",
  "rollout_rows",
  "same_data",
  "sample_and_grade",
  "sample_run",
  "sizes_of",
  "state_like",
  "step_groups",
  "test_figures",
  "tested",
  "tests_of",
  "text_metrics",
]
