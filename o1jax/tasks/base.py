"""What a task is: problems, their prompts, a verifier, and the tokens that all of it is written in.

ProblemSet -> prompts by a template -> a tokenizer trained on what is learned from, or a given one -> Task
"""

import dataclasses
import functools
import hashlib
import itertools
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from o1jax.config import ConfigError, TextConfig, require
from o1jax.io.tokenizer import Tokenizer, load_tokenizer, text_tokenizer_key, train_text_tokenizer
from o1jax.tasks import template as templates
from o1jax.tasks.stream import Stream, name_of
from o1jax.tasks.template import PromptFormat
from o1jax.verifiers.base import Problem, Verdict, Verify

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Example:
  """A problem of a data set, with its place and its reference."""

  where: str  # its file and row, or what else it was made from
  question: str  # what it says itself, without the words that all prompts of its task have in common
  problem: Problem
  # A response that its verifier must accept; "": one that it need only be able to grade; None: there is none.
  reference: str | None


@dataclasses.dataclass(frozen=True)
class DeviceTask:
  """A task's verifier on the device, as pure functions of arrays that jit and vmap.

  Symbols: P problems, B = P * G rows (prompt-major: row = p * G + g), R response length. `valid` is true on
  response tokens. Verdicts are those that the task's verifier gives on the decoded tokens.
  """

  arrays: Callable[[Sequence[Problem]], dict[str, np.ndarray]]  # what `verify` reads of P problems, leading P
  # (tokens i32[B, R], valid bool[B, R], arrays) -> (reward f32[B], correct bool[B], parsed bool[B])
  verify: Callable[[Any, Any, Any], tuple[Any, Any, Any]]


Properties = Callable[[Problem, str], Mapping[str, bool]]  # (problem, response's text) -> by name


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProblemSet:
  """Problems, their splits and their verifier: a task before it has a tokenizer."""

  name: str
  train: Sequence[Problem]  # never shares a canonical problem with `held_out`
  held_out: Sequence[Problem]
  # What the cold start imitates: `train`, and where the task widens it, more; none is tested.
  sft_problems: Sequence[Problem]
  # Out-of-distribution problems by the respect in which they are; {}: none.
  ood: Mapping[str, Sequence[Problem]] = dataclasses.field(default_factory=dict)
  verify: Verify
  # A cold-start response, None: there is none.
  demonstrate: Callable[[Problem, np.random.Generator], str] | None
  one_demonstration: bool = True  # whether `demonstrate` draws nothing: a problem always has the same one
  count_tries: Callable[[Problem, str], int]  # tries in a response's text
  well_formed: Callable[[Problem, str], bool]  # whether a text is of the task's form, right or wrong
  # Sources (`Problem.source`) whose responses are wrong where they are cut off at their budget.
  must_end: frozenset[str] = frozenset()
  # By source: what a response's text is like, right or wrong; each property's share is a figure of a run.
  properties: Mapping[str, Properties] = dataclasses.field(default_factory=dict)
  data_hash: str  # of the problems, for the run's record
  # Of a mixture: the share of each part in training, by `Problem.source`, adding up to 1. {}: no mixture.
  shares: Mapping[str, float] = dataclasses.field(default_factory=dict)
  # What its verifier has cost so far in this process, as metrics; {}: nothing but time.
  spent: Callable[[], Mapping[str, float]] = dict

  def stream(self, seed: int, problems: int | None) -> Stream:
    """The order in which RL meets the training problems, or the first `problems` of them."""
    if self.shares:
      return dataclasses.replace(self._train_mixture, seed=seed)
    return Stream((self.train[:problems],), (1.0,), seed)

  def demonstrations(self, seed: int) -> Stream:
    """The order in which the cold start meets what it imitates. Raises ConfigError where there is nothing."""
    require(bool(self.sft_problems), "sft.steps", f"task {self.name} has no demonstrations to imitate")
    if self.shares:
      return dataclasses.replace(self._sft_mixture, seed=seed)
    return Stream((self.sft_problems,), (1.0,), seed)

  # The parts of a mixture are looked for once.
  @functools.cached_property
  def _train_mixture(self) -> Stream:
    return _mixture(self.train, self.shares)

  @functools.cached_property
  def _sft_mixture(self) -> Stream:
    return _mixture(self.sft_problems, self.shares)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(ProblemSet):
  """A problem set with the tokens that prompts and responses are made of."""

  question: Callable[[Problem], str]  # the prompt: all that the model reads of a problem
  tokenizer: Tokenizer
  stop_tokens: tuple[int, ...]  # drawing one ends a response (it stays in it, and is trained on)
  give_up_token: int | None  # the token by which a response gives up, None where the task knows none
  retry_token: int | None  # what takes the place of an early stop when a budget is forced
  device: DeviceTask | None  # None: responses are graded on the host alone
  rehashed: Mapping[str, int]  # what `rehash` says of all problems

  def hash_of(self, problem: Problem) -> int:
    """u32: the problem's part of every sampling key; no two problems of the task share it."""
    return self.rehashed.get(name_of(problem), problem_hash(problem))


def with_tokens(
  problems: ProblemSet,
  tokenizer: Tokenizer,
  *,
  question: Callable[[Problem], str],
  stop_tokens: tuple[int, ...],
  give_up_token: int | None = None,
  retry_token: int | None = None,
  device: DeviceTask | None = None,
) -> Task:
  """The task of a problem set. Raises ValueError where two of its problems have one id."""
  everything = [*problems.train, *problems.held_out]
  known = set(map(id, everything))  # the sets below have these objects once more
  for problem in itertools.chain(problems.sft_problems, *problems.ood.values()):
    everything += [problem] if id(problem) not in known else []
    known.add(id(problem))
  return Task(
    **{field.name: vars(problems)[field.name] for field in dataclasses.fields(problems)},
    question=question,
    tokenizer=tokenizer,
    stop_tokens=stop_tokens,
    give_up_token=give_up_token,
    retry_token=retry_token,
    device=device,
    rehashed=rehash(everything),
  )


def _mixture(problems: Sequence[Problem], shares: Mapping[str, float]) -> Stream:
  """The stream of `problems` by `shares` at seed 0, in which a source without a problem has no part."""
  parts: dict[str, list[Problem]] = {name: [] for name in shares}
  for problem in problems:
    parts[problem.source].append(problem)
  there = {name: part for name, part in parts.items() if part}
  total = sum(shares[name] for name in there)
  return Stream(tuple(there.values()), tuple(shares[name] / total for name in there), seed=0)


def problem_hash(problem: Problem, salt: int = 0) -> int:
  """u32 hash of task and problem id, another for each `salt`."""
  digest = hashlib.blake2b(name_of(problem).encode(), digest_size=4, salt=salt.to_bytes(8, "little")).digest()
  return int.from_bytes(digest, "little")


def rehash(problems: Sequence[Problem]) -> dict[str, int]:
  """`name_of` -> u32, of the problems whose hash one before them has: their first salted hash that is free.

  Among n problems about n ** 2 / 2 ** 33 share a hash; the same problems in the same order give the same
  answer. Raises ValueError where two problems have one id.
  """
  taken: set[int] = set()
  names: set[str] = set()
  changed: dict[str, int] = {}
  for problem in problems:
    name = name_of(problem)
    if name in names:
      raise ValueError(f"two problems of {problem.source} have the id {problem.id!r}")
    salts = itertools.count()
    key = next(key for key in (problem_hash(problem, salt) for salt in salts) if key not in taken)
    if key != problem_hash(problem):
      changed[name] = key
    names.add(name)
    taken.add(key)
  return changed


def check_demonstrations(task: Task, length: int) -> None:
  """Raises ConfigError naming the first training problem whose demonstration does not fit `length` tokens.

  Prompt, response and end-of-sequence token count. A task that draws its demonstrations is passed over: what
  it will draw is not known before.
  """
  if task.demonstrate is None or not task.one_demonstration:
    return
  encode, rng = task.tokenizer.encode, np.random.default_rng(0)
  for problem in task.sft_problems:
    size = len(encode(task.question(problem))) + len(encode(task.demonstrate(problem, rng))) + 1
    error = f"problem {problem.id!r} and its demonstration have {size} tokens, a row {length}"
    require(size <= length, "sft.length", error)


# Free text


def text_task(problems: ProblemSet, cfg: TextConfig, data_dir: str) -> Task:
  """The task of free text that a template and a tokenizer make of `problems`.

  Training problems that hold a control token of the template are left out, and their number logged. Raises
  ConfigError where a held-out one does, and naming a tokenizer's file that loses a demonstration's answer.
  """
  given = None if cfg.tokenizer is None else load_tokenizer(cfg.tokenizer)
  template = templates.task_template(cfg, given)
  instruction = templates.load_instruction(cfg.instruction)
  problems = _without_control_tokens(problems, template)

  def question(problem: Problem) -> str:
    return templates.render(template, problem.prompt, instruction)

  if template.answer or template.thought:
    problems = dataclasses.replace(problems, verify=_of_answers(problems.verify, template))
  if template.answer or template.opens_thought:
    # A demonstration has no marks around its answer, nor the end of a thought that the template opens.
    problems = dataclasses.replace(problems, sft_problems=())
  if given is None:
    tokenizer: Tokenizer = trained_tokenizer(problems, question, cfg, data_dir)
  else:
    tokenizer = given
    _check_keeps_answers(str(cfg.tokenizer), given, problems)
  stops = templates.stop_tokens(template, tokenizer)
  return with_tokens(problems, tokenizer, question=question, stop_tokens=stops)


def _without_control_tokens(problems: ProblemSet, template: PromptFormat) -> ProblemSet:
  """`problems` without training problems that hold a control token, which would be read as the template's."""
  train, sft_problems = (
    [problem for problem in split if templates.control_in(template, problem.prompt) is None]
    for split in (problems.train, problems.sft_problems)
  )
  if len(train) == len(problems.train):
    return problems
  _LOG.warning(
    "%s: %d training problems hold a control token of template %s and are left out",
    problems.name,
    len(problems.train) - len(train),
    template.name,
  )
  nothing_left = f"every training problem of {problems.name} holds a control token"
  require(bool(train), "task.text.template", nothing_left)
  return dataclasses.replace(problems, train=train, sft_problems=sft_problems)


def _of_answers(verify: Verify, template: PromptFormat) -> Verify:
  """Grades what the template says is the answer (`answer_of`); a response without one is unparsable."""

  def verify_answers(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
    answers = [templates.answer_of(template, completion) for completion in completions]
    stated = [(p, answer) for p, answer in zip(problems, answers, strict=True) if answer is not None]
    verdicts = iter(verify([p for p, _ in stated], [answer for _, answer in stated]))
    unparsable = Verdict(0.0, False, None, "unparsable")
    return [unparsable if answer is None else next(verdicts) for answer in answers]

  return verify_answers


def trained_tokenizer(
  problems: ProblemSet, question: Callable[[Problem], str], cfg: TextConfig, data_dir: str
) -> Tokenizer:
  """A tokenizer trained on what is learned from alone, kept below `data_dir`."""
  text = list(_learned_text(problems, question))
  no_text = f"task {problems.name} has no training problems, whose text one could be trained on"
  require(bool(text), "task.text.tokenizer", f"{no_text}: name a model file")
  key = text_tokenizer_key(text, vocab_size=cfg.vocab)
  path = pathlib.Path(data_dir) / "tokenizers" / f"{key}.model"
  if not path.is_file():
    try:
      trained = train_text_tokenizer(text, vocab_size=cfg.vocab)
    except ConfigError as error:  # the text has more characters than the vocabulary has room for
      raise ConfigError(f"task.text.vocab: {error}") from error
    trained.save(path)
  return load_tokenizer(str(path))


def _learned_text(problems: ProblemSet, question: Callable[[Problem], str]) -> Iterator[str]:
  """Prompts of the training problems, each with a demonstration where there is one."""
  rng, shown = np.random.default_rng(0), {id(problem) for problem in problems.sft_problems}
  for problem in problems.train:
    response = ""
    if problems.demonstrate is not None and id(problem) in shown:
      response = problems.demonstrate(problem, rng)
    yield question(problem) + response


def _check_keeps_answers(path: str, tokenizer: Tokenizer, problems: ProblemSet) -> None:
  """Raises ConfigError where a demonstration no longer verifies after a round trip through the tokenizer."""
  if problems.demonstrate is None or not problems.one_demonstration or not problems.sft_problems:
    return
  rng = np.random.default_rng(0)
  changed: list[Problem] = []
  texts: list[str] = []
  for problem in problems.train:
    text = problems.demonstrate(problem, rng)
    decoded = tokenizer.decode(tokenizer.encode(text))
    if decoded != text:
      changed.append(problem)
      texts.append(decoded)
  for problem, verdict in zip(changed, problems.verify(changed, texts), strict=True):
    require(verdict.correct, path, f"loses the answer of {problem.id} between encoding and decoding")
