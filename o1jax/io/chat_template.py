"""Chat templates of Hugging Face folders, rendered in jinja2's sandbox as transformers renders them.

    text -> ChatRenderer -> render(messages) -> prompt, which ends where the response goes on

What transformers gives a template is here too: trim_blocks and lstrip_blocks, break and continue, the tag
`generation`, `raise_exception`, `strftime_now`, and a `tojson` that escapes no HTML. Two things differ: the
clock stands at a day that is given, so that a prompt does not change from day to day, and loops over `range`
have a bound.
Left out: tools and documents (None), images.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from o1jax.config import ConfigError
from o1jax.io.json_rows import one_line

MAX_TURNS = 100_000  # of a rendering's loops over `range`, nested ones together

Message = Mapping[str, str]  # role, content


class ChatRenderer:
  """A compiled chat template with its variables. Raises ConfigError naming the file where it is no template.

  file: its name for messages; variables: what it reads beside the messages, such as bos_token and
  enable_thinking; day: what `strftime_now` formats; `reads`: all names that it looks up.
  """

  def __init__(self, file: str, text: str, variables: Mapping[str, Any], day: datetime.date) -> None:
    self.file = file
    self._variables = dict(variables)
    self._environment = _environment()
    moment = datetime.datetime.combine(day, datetime.time())
    self._environment.globals["strftime_now"] = moment.strftime
    self._environment.globals["range"] = self._range
    self._turns = 0
    names = _parsed(self._environment, file, text).find_all(jinja2.nodes.Name)
    self.reads = frozenset(name.name for name in names if name.ctx == "load")
    self._template = self._environment.from_string(text)

  def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
    """The prompt of a conversation. Raises ConfigError naming the file and what the template says."""
    self._turns = 0
    try:
      return self._template.render(
        messages=[dict(message) for message in messages], tools=None, documents=None,
        add_generation_prompt=add_generation_prompt, **self._variables,
      )  # fmt: skip
    except jinja2.TemplateError as error:
      raise ConfigError(
        f"{self.file}: the chat template refuses: {' '.join(str(error).split())[:300]}"
      ) from error
    except Exception as error:  # whatever its expressions raise
      raise ConfigError(f"{self.file}: the chat template fails: {one_line(error)}") from error

  def _range(self, *bounds: int) -> range:
    turns = range(*bounds)
    self._turns += len(turns)
    if self._turns > MAX_TURNS:
      raise jinja2.sandbox.SecurityError(f"its loops take more than {MAX_TURNS:,} turns")
    return turns


def literal_text(file: str, text: str) -> str:
  """All that a template writes letter by letter, a NUL between the parts; errors as of `ChatRenderer`."""
  tree = _parsed(_environment(), file, text)
  parts = [node.data for node in tree.find_all(jinja2.nodes.TemplateData)]
  constants = (node.value for node in tree.find_all(jinja2.nodes.Const))
  return "\0".join([*parts, *(value for value in constants if isinstance(value, str))])


def _parsed(environment: jinja2.Environment, file: str, text: str) -> jinja2.nodes.Template:
  try:
    environment.compile(text)  # finds filters and tests that there are not
    return environment.parse(text)
  except jinja2.TemplateSyntaxError as error:
    why = " ".join(str(error.message).split())[:300]
    raise ConfigError(f"{file}: the chat template, line {error.lineno}: {why}") from error
  except RecursionError as error:
    raise ConfigError(f"{file}: the chat template is nested too deeply") from error


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
  environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
  )
  environment.filters["tojson"] = _to_json
  environment.globals["raise_exception"] = _raise_exception
  return environment


class _Generation(jinja2.ext.Extension):
  """`{% generation %}...{% endgeneration %}`, which marks what the model writes: its body as it stands."""

  tags = {"generation"}

  def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
    line = next(parser.stream).lineno
    body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
    return jinja2.nodes.Scope(body, lineno=line)


def _raise_exception(message: str) -> NoReturn:
  raise jinja2.TemplateError(message)


# `json.dumps` with transformers' defaults; its own `ensure_ascii` would spell characters in escapes.
def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
  return json.dumps(value, ensure_ascii=ensure_ascii, **options)
