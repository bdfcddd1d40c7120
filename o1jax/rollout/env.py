"""Environments: what the policy reads first, and the reply to what it wrote.

    start(problem) -> prompt -> response -> step -> Turn(text, done, verdict)

An environment is pure given its inputs, so that a resumed run meets the same replies. `SingleTurn` is the
default: the task's question, one response, its verdict.
"""

import dataclasses
from typing import NamedTuple, Protocol, Sequence

from o1jax.tasks.base import Task
from o1jax.verifiers.base import Problem, Verdict


class Turn(NamedTuple):
  """The reply to a response."""

  text: str  # what the policy reads next; no action of its own
  done: bool
  verdict: Verdict | None  # of an episode that is done


class Env(Protocol):
  """An environment of a task."""

  def start(self, problem: Problem) -> str:
    """The prompt of a problem."""

  def step(self, problems: Sequence[Problem], responses: Sequence[Sequence[str]]) -> list[Turn]:
    """The replies to the last of responses[i], the policy's own turns on problems[i] so far."""


@dataclasses.dataclass(frozen=True)
class SingleTurn:
  """One response to the task's question, judged by the task's verifier."""

  task: Task

  def start(self, problem: Problem) -> str:
    return self.task.question(problem)

  def step(self, problems: Sequence[Problem], responses: Sequence[Sequence[str]]) -> list[Turn]:
    verdicts = self.task.verify(problems, [turns[-1] for turns in responses])
    return [Turn("", True, verdict) for verdict in verdicts]
