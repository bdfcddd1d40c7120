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
  mesh_of,
  params_like,
  prepare,
  prepare_evaluation,
  same_data,
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
  "mesh_of",
  "no_give_up",
  "params_like",
  "prepare",
  "prepare_evaluation",
  "responses",
  "rewards_by_source",
  "rollout_rows",
  "same_data",
  "sample_and_grade",
  "sample_run",
  "sizes_of",
  "step_groups",
  "test_figures",
  "tested",
  "tests_of",
  "text_metrics",
]
