"""Tasks whose prompts and responses are free text: a source of problems and one tokenizer for all that it says."""

import dataclasses
import logging
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from o1jax.config import ConfigError, TextConfig, require
from o1jax.io.data import write_atomically
from o1jax.io.tokenizer import Tokenizer, load_tokenizer, text_tokenizer_key, train_text_tokenizer
from o1jax.tasks.base import Source, Task, with_tokens
from o1jax.tasks.template import (
  Template,
  answer_of,
  control_in,
  load_instruction,
  load_template,
  render,
  stop_tokens,
)
from o1jax.verifiers.base import Problem, Verdict, Verify

_LOG = logging.getLogger(__name__)


Ask = Callable[[Problem], str]


def text_task(source: Source, cfg: TextConfig, data_dir: str) -> Task:
  """The task of `source`: its problems put into a prompt template, and a tokenizer for them.

  Training problems that hold a control token of the template are left out, and their number logged. Raises ConfigError
  where a held-out one does, and naming the tokenizer's file where it loses a demonstration's answer.
  """
  template = load_template(cfg.template)
  instruction = load_instruction(cfg.instruction)
  source = _fitting(source, template)
  ask = lambda problem: render(template, problem.prompt, instruction)
  if template.answer or template.thought:
    source = dataclasses.replace(source, verify=_of_answers(source.verify, template))
  if template.answer:
    # A demonstration has no marks around its answer, nor the thought that such a template opens with.
    source = dataclasses.replace(source, demonstrated=())
  tokenizer = text_tokenizer(source, ask, cfg, data_dir)
  return with_tokens(source, tokenizer, ask=ask, stop_tokens=stop_tokens(template, tokenizer))


def _fitting(source: Source, template: Template) -> Source:
  """The source without training problems that hold a control token of the template, which would be read as the frame's."""
  fits = lambda problem: control_in(template, problem.prompt) is None
  train = [problem for problem in source.train if fits(problem)]
  if len(train) == len(source.train):
    return source
  left_out = len(source.train) - len(train)
  _LOG.warning("%s: %d training problems hold a control token of template %s and are left out", source.name, left_out, template.name)  # fmt: skip
  require(bool(train), "task.text.template", f"every training problem of {source.name} holds a control token")
  return dataclasses.replace(source, train=train, demonstrated=[p for p in source.demonstrated if fits(p)])


def _of_answers(verify: Verify, template: Template) -> Verify:
  """Grades what the template says is the answer (`answer_of`); a response without one is unparsable."""

  def verify_answers(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
    answers = [answer_of(template, completion) for completion in completions]
    asked = [(p, answer) for p, answer in zip(problems, answers, strict=True) if answer is not None]
    told = iter(verify([p for p, _ in asked], [answer for _, answer in asked]))
    return [
      next(told) if answer is not None else Verdict(0.0, False, None, "unparsable") for answer in answers
    ]

  return verify_answers


def text_tokenizer(source: Source, ask: Ask, cfg: TextConfig, data_dir: str) -> Tokenizer:
  """The configured tokenizer, or one trained on what is learned from alone and kept below `data_dir`."""
  if cfg.tokenizer is not None:
    tokenizer = load_tokenizer(cfg.tokenizer)
    _check_keeps_answers(cfg.tokenizer, tokenizer, source)
    return tokenizer
  text = list(_learned_text(source, ask))
  told = f"task {source.name} has no training problems, whose text one could be trained on: name a model file"
  require(bool(text), "task.text.tokenizer", told)
  key = text_tokenizer_key(text, vocab_size=cfg.vocab)
  path = pathlib.Path(data_dir) / "tokenizers" / f"{key}.model"
  if not path.is_file():
    try:
      trained = train_text_tokenizer(text, vocab_size=cfg.vocab)
    except ConfigError as error:  # the text has more characters than the vocabulary has room for
      raise ConfigError(f"task.text.vocab: {error}") from error
    write_atomically(path, trained.proto)
  return load_tokenizer(str(path))


def _learned_text(source: Source, ask: Ask) -> Iterator[str]:
  """Prompts of the training problems, each with a demonstration where there is one."""
  rng, shown = np.random.default_rng(0), {id(problem) for problem in source.demonstrated}
  for problem in source.train:
    shows = source.demonstrate is not None and id(problem) in shown
    yield ask(problem) + (source.demonstrate(problem, rng) if shows else "")  # type: ignore[misc]


def _check_keeps_answers(path: str, tokenizer: Tokenizer, source: Source) -> None:
  """Raises ConfigError where a demonstration no longer verifies after a round trip through the tokenizer."""
  if source.demonstrate is None or not source.one_demonstration or not source.demonstrated:
    return
  rng = np.random.default_rng(0)
  changed: list[tuple[Problem, str]] = []
  for problem in source.train:
    text = source.demonstrate(problem, rng)
    back = tokenizer.decode(tokenizer.encode(text))
    changed += [(problem, back)] if back != text else []
  problems: Sequence[Problem] = [problem for problem, _ in changed]
  for problem, verdict in zip(problems, source.verify(problems, [text for _, text in changed]), strict=True):
    require(verdict.correct, path, f"loses the answer of {problem.id} between encoding and decoding")
