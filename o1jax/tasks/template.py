"""Prompt templates: what a file or a tokenizer's folder says of a chat format, and questions put into it.

    templates.toml, or a file of one's own -> Template -----+
    the chat template of a tokenizer -> ChatTemplate -------+-> render -> prompt -> response -> answer_of

A question is data. One that holds a control token of the format (`<|im_end|>` in Qwen's) could end its own
turn and speak as another, since tokenizers read such text as the token; it is refused rather than changed, so
that no problem is asked otherwise than it was written. `control_in` tells such questions beforehand: a task
that leaves them out counts them.
Left out: several turns, tools, images.
"""

import abc
import dataclasses
import datetime
import difflib
import importlib.resources
import pathlib
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from o1jax.config import CHAT_TEMPLATE, ConfigError, TextConfig, require
from o1jax.io.chat_template import ChatRenderer, literal_text
from o1jax.io.tokenizer import Tokenizer

SHIPPED = "templates.toml"


THOUGHT = ("<think>", "</think>")  # the marks of every published chat template that has any


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptFormat(abc.ABC):
  """What both kinds of template have; templates.toml says what each field means."""

  name: str
  opens: str
  stop: tuple[str, ...]
  control: str
  answer: tuple[str, ...]
  thought: tuple[str, ...]

  @abc.abstractmethod
  def prompt(self, question: str, instruction: str) -> str:
    """The prompt of a question, with an instruction or with "", which ends with `opens`."""

  @property
  def opens_thought(self) -> bool:
    """Whether a response goes on within a thought."""
    return bool(self.thought) and self.thought[0] in self.opens.rpartition(self.thought[1])[2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Template(PromptFormat):
  """A format as data: what stands around a question."""

  bare: tuple[str, str]
  instructed: tuple[str, str, str]
  strip: bool

  def prompt(self, question: str, instruction: str) -> str:
    question, instruction = (text.strip() if self.strip else text for text in (question, instruction))
    if not instruction:
      before, behind = self.bare
      return f"{before}{question}{behind}{self.opens}"
    before, between, behind = self.instructed
    return f"{before}{instruction}{between}{question}{behind}{self.opens}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatTemplate(PromptFormat):
  """The chat template of a tokenizer: a question is the user's turn, an instruction the system prompt."""

  renderer: ChatRenderer

  def prompt(self, question: str, instruction: str) -> str:
    system = [{"role": "system", "content": instruction}] if instruction else []
    return self.renderer.render([*system, {"role": "user", "content": question}])


def task_template(cfg: TextConfig, tokenizer: Tokenizer | None) -> PromptFormat:
  """The configured template; with a given tokenizer, what that reads as control tokens is refused as well.

  Raises ConfigError as `load_template` does, and naming the option that cannot act with the chat template.
  """
  if tokenizer is None:
    return load_template(cfg.template)
  template = chat_template(cfg, tokenizer) if cfg.template == CHAT_TEMPLATE else load_template(cfg.template)
  control = "|".join(filter(None, (template.control, tokenizer.control)))
  return dataclasses.replace(template, control=control)


def chat_template(cfg: TextConfig, tokenizer: Tokenizer) -> ChatTemplate:
  """The tokenizer's chat template. Raises ConfigError where it has none, or an option that cannot act."""
  source = tokenizer.chat_source
  no_template = f"{cfg.tokenizer} has no chat template (chat_template.jinja, or in tokenizer_config.json)"
  if source is None:
    raise ConfigError(f"task.text.template: {no_template}")
  switch = {} if cfg.enable_thinking is None else {"enable_thinking": cfg.enable_thinking}
  variables = {**source.special_tokens, **switch}
  renderer = ChatRenderer(source.file, source.text, variables, datetime.date.fromisoformat(cfg.date))
  for field, variable in (("enable_thinking", "enable_thinking"), ("date", "strftime_now")):
    acts = vars(cfg)[field] == vars(TextConfig())[field] or variable in renderer.reads
    require(acts, f"task.text.{field}", f"cannot act: {source.file} does not read {variable}")
  thinks = THOUGHT[0] in literal_text(source.file, source.text)
  template = ChatTemplate(
    name=CHAT_TEMPLATE, opens="", stop=(), control="", answer=(), thought=THOUGHT if thinks else (),
    renderer=renderer,
  )  # fmt: skip
  prompt = template.prompt("?", "")
  opened = THOUGHT[0] if thinks and prompt.rstrip().endswith(THOUGHT[0]) else None
  return template if opened is None else dataclasses.replace(template, opens=prompt[prompt.rindex(opened) :])


def load_template(name: str) -> Template:
  """A shipped template by its name, one of a file's as `FILE.toml:NAME`, or the only one of `FILE.toml`.

  Raises ConfigError naming the file, the template and the field that is wrong, or the templates there are.
  """
  path, inner = _place(name)
  source, tables = _read(path)
  templates = _table(source, tables, "template")
  if inner is None:
    require(len(templates) == 1, source, f"holds {len(templates)} templates: name one as {source}:NAME")
    (inner,) = templates
  require(inner in templates, source, f"has no template {inner!r}{_others(inner, templates)}")
  return parse_template(source, inner, templates[inner])


def load_instruction(name: str) -> str:
  """A shipped instruction by name, or a file's as `FILE.toml:NAME`. Raises ConfigError as for a template."""
  path, inner = _place(name)
  source, tables = _read(path)
  texts = _table(source, tables, "instruction")
  inner = inner or ""
  require(inner in texts, source, f"has no instruction {inner!r}{_others(inner, texts)}")
  text = texts[inner]
  require(isinstance(text, str), source, f"instruction {inner!r} is {type(text).__name__}, not a string")
  return text


def render(template: PromptFormat, question: str, instruction: str = "") -> str:
  """The prompt of a question, with an instruction or without; it ends where the response goes on.

  Raises ConfigError naming the control token that the question or the instruction holds.
  """
  parts = {"question": question, "instruction": instruction}
  for what, text in parts.items():
    token = control_in(template, text)
    refused = f"the {what} holds {token!r}, which only the frame may"
    require(token is None, f"template {template.name!r}", refused)
  return template.prompt(question, instruction)


def control_in(template: PromptFormat, text: str) -> str | None:
  """The first control token of the format in a text; None where there is none."""
  match = re.search(template.control, text) if template.control else None
  return match[0] if match else None


def stop_tokens(template: PromptFormat, tokenizer: Tokenizer) -> tuple[int, ...]:
  """Tokens that end a response: the tokenizer's ends of text, then the template's.

  Raises ConfigError where one is no token of its own in the vocabulary, which then is another model's.
  """
  stops = list(tokenizer.eos_ids)
  for stop in template.stop:
    tokens = tokenizer.encode(stop)
    single = len(tokens) == 1 and tokenizer.decode(tokens) in ("", stop)  # a control token has no text
    another = f"{stop!r} is no token of the tokenizer: it is another model's"
    require(single, f"template {template.name!r}", another)
    stops.append(tokens[0])
  return tuple(dict.fromkeys(stops))


def answer_of(template: PromptFormat, response: str) -> str | None:
  """The answer of a response without what `opens` it; None where there is none.

  It stands between the template's answer marks, else behind its last thought; it is all of the response where
  the template has neither, or the response no thought. Answers that differ are none, nor is what follows a
  thought without an end. Takes time linear in the text.
  """
  text = template.opens + response
  if not template.answer:
    return _behind_thought(template, text)
  start, end = template.answer
  blocks = text.split(end)[:-1]  # each ends in an answer
  answers = {block.rpartition(start)[2].strip() for block in blocks if start in block}
  return answers.pop() if len(answers) == 1 else None


def _behind_thought(template: PromptFormat, text: str) -> str | None:
  """What follows the last thought of an opened response and empty lines; None of a thought without an end."""
  if not template.thought:
    return text[len(template.opens) :]
  start, end = template.thought
  _, ended, rest = text.rpartition(end)
  if start in rest:
    return None
  return rest.lstrip("\n") if ended else rest


# Files


def _place(name: str) -> tuple[str | None, str | None]:
  """(file, template in it) of a name; no file: the shipped one; no template: the file's only one."""
  if name.endswith(".toml"):
    return name, None
  path, colon, inner = name.rpartition(":")
  return (path, inner) if colon and path.endswith(".toml") else (None, name)


def _read(path: str | None) -> tuple[str, dict[str, Any]]:
  """(the file's name for errors, its tables)."""
  try:
    if path is None:
      shipped = importlib.resources.files(__package__).joinpath(SHIPPED)
      return SHIPPED, tomllib.loads(shipped.read_text(encoding="utf-8"))
    return path, tomllib.loads(pathlib.Path(path).read_text(encoding="utf-8"))
  except OSError as error:
    raise ConfigError(f"{path or SHIPPED}: cannot be read: {error.strerror}") from error
  except (ValueError, RecursionError) as error:  # bytes that are no UTF-8, or text that is no TOML
    raise ConfigError(f"{path or SHIPPED}: is no TOML: {' '.join(str(error).split())}") from error


def _table(source: str, tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
  unknown = sorted(set(tables) - {"template", "instruction"})
  other = f"has a table {''.join(unknown[:1])!r}: tables are [template.NAME] and [instruction]"
  require(not unknown, source, other)
  table = tables.get(name, {})
  require(isinstance(table, dict) and bool(table), source, f"has no table [{name}]")
  return table


def _others(name: str, known: Mapping[str, Any]) -> str:
  close = difflib.get_close_matches(name, known, n=1)
  return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"


def _strings(*lengths: int) -> Callable[[Any], bool]:
  """Whether a value is a list of strings, of one of these lengths where some are given."""
  return lambda value: (
    isinstance(value, list)
    and all(isinstance(item, str) for item in value)
    and (not lengths or len(value) in lengths)
  )


_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
  "bare": (_strings(2), "two strings"),
  "instructed": (_strings(3), "three strings"),
  "opens": (lambda value: isinstance(value, str), "a string"),
  "strip": (lambda value: isinstance(value, bool), "true or false"),
  "stop": (_strings(), "a list of strings"),
  "control": (lambda value: isinstance(value, str), "a string"),
  "answer": (_strings(0, 2), "two strings, or []"),
  "thought": (_strings(0, 2), "two strings, or []"),
}


def parse_template(source: str, name: str, table: Any) -> Template:
  """The template of a file's table. Raises ConfigError naming `source`, the template and the field."""
  where = f"{source}: template {name!r}"
  require(isinstance(table, dict), where, "is no table")
  for field in table:
    require(field in _FIELDS, where, f"field {field!r} is unknown{_others(field, _FIELDS)}")
  for field, (fits, kind) in _FIELDS.items():
    require(field in table, where, f"field {field!r} is missing")
    require(fits(table[field]), where, f"field {field!r} must be {kind}")
  frozen: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
  template = Template(name=name, **frozen)
  _check_control(where, template)
  for field in ("answer", "thought"):
    marks = vars(template)[field]
    require(all(marks), where, f"field {field!r} has an empty mark")
    require(len(set(marks)) == len(marks), where, f"field {field!r} has one mark twice")
  need = "field 'thought' cannot act: what is graded stands between the marks of 'answer'"
  require(not (template.answer and template.thought), where, need)
  return template


def _check_control(where: str, template: Template) -> None:
  """What refuses questions must work, and refuse at least the tokens that end a response."""
  try:
    empty = bool(template.control) and re.search(template.control, "") is not None
  except (re.error, RecursionError, OverflowError) as error:
    raise ConfigError(f"{where}: field 'control' is no regular expression: {error}") from error
  require(not empty, where, "field 'control' matches no text at all, so that every question would be refused")
  loose = _unmatched(template.control, template.stop)
  require(not loose, where, f"field 'stop': {''.join(loose[:1])!r} must be matched by field 'control'")


def _unmatched(pattern: str, texts: Sequence[str]) -> list[str]:
  return [text for text in texts if not pattern or re.fullmatch(pattern, text) is None]
