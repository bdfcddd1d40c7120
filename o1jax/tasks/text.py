"""Tasks whose prompts and responses are free text: a source of problems and one tokenizer for all that it says."""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from o1jax.config import TextConfig, require
from o1jax.io.data import write_atomically
from o1jax.io.tokenizer import Tokenizer, load_tokenizer, text_tokenizer_key, train_text_tokenizer
from o1jax.tasks.base import Source, Task, with_tokens
from o1jax.verifiers.base import Problem


def text_task(source: Source, cfg: TextConfig, data_dir: str) -> Task:
  """The task of `source`. Raises ConfigError naming the tokenizer's file where it loses a demonstration's answer."""
  return with_tokens(source, text_tokenizer(source, cfg, data_dir))


def text_tokenizer(source: Source, cfg: TextConfig, data_dir: str) -> Tokenizer:
  """The configured tokenizer, or one trained on what is learned from alone and kept below `data_dir`."""
  if cfg.tokenizer is not None:
    tokenizer = load_tokenizer(cfg.tokenizer)
    _check_keeps_answers(cfg.tokenizer, tokenizer, source)
    return tokenizer
  text = list(_learned_text(source))
  told = f"task {source.name} has no training problems, whose text one could be trained on: name a model file"
  require(bool(text), "task.text.tokenizer", told)
  key = text_tokenizer_key(text, vocab_size=cfg.vocab)
  path = pathlib.Path(data_dir) / "tokenizers" / f"{key}.model"
  if not path.is_file():
    write_atomically(path, train_text_tokenizer(text, vocab_size=cfg.vocab).proto)
  return load_tokenizer(str(path))


def _learned_text(source: Source) -> Iterator[str]:
  """Prompts of the training problems, each with a demonstration where there is one."""
  rng = np.random.default_rng(0)
  for problem in source.train:
    yield problem.prompt + (source.demonstrate(problem, rng) if source.demonstrate else "")


def _check_keeps_answers(path: str, tokenizer: Tokenizer, source: Source) -> None:
  """Raises ConfigError where a demonstration no longer verifies after a round trip through the tokenizer."""
  if source.demonstrate is None or not source.one_demonstration:
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
