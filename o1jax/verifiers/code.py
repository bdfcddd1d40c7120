"""Programs, judged by their tests: functions (HumanEval, MBPP) and standard input and output. In a sandbox.

    completion -> its code -> ways to make a program of it -> sandbox: the program against meta["tests"] -> verdict

`meta["tests"]` has one of three forms:
  - a string that defines `check(candidate)` (Chen et al. 2021, HumanEval). The prompt is code too, or holds it in its
    last fenced block: the completion may go on with it, or be a whole function; what the prompt defines is there for
    both the program and the tests;
  - assertions, as a list of strings or one string (Austin et al. 2021, MBPP), behind
    `meta["test_setup"]` if there is one. The prompt is not looked at;
  - a list of {"input", "output"}: the program reads standard input and prints; lines are compared as text, without
    trailing whitespace and empty lines at the end.
`meta["entry_point"]`, where there is one, names the function under test.

Programs have Python's standard library, no other package. A completion is `unparsable` where it holds no code or
none that compiles. `sandbox.program` and `sandbox.trial` say which failure is which verdict.
"""

import ast
import functools
import re
import textwrap
from collections.abc import Sequence
from typing import Any, Literal

from o1jax.verifiers.base import Problem, Verdict, Verify
from o1jax.verifiers.completion import Policy, check_policy
from o1jax.verifiers.sandbox import service
from o1jax.verifiers.sandbox.names import left_to_the_program
from o1jax.verifiers.sandbox.service import Limits

MAX_TEXT = 200_000  # characters; a longer completion is unparsable
# Possessive: what has been matched is never given back, else a long line that is no fence takes quadratic time.
_FENCE = re.compile(r"[ \t]{0,3}+(`{3,}+|~{3,}+)[ \t]*+([^`\s]*+)[^`]*+")
_PYTHON = ("python", "py", "python3")


def extract(text: str) -> str:
  """The code of a completion: its last ```python block, else its last block, else all of it.

  A block that nothing closes reaches to the end.
  """
  blocks: list[tuple[str, str]] = []
  lines: list[str] = []
  fence = language = ""
  for line in text.splitlines(keepends=True):
    mark = _FENCE.fullmatch(line.rstrip())
    if not fence and mark is not None:
      fence, language, lines = mark[1], mark[2].lower(), []
    elif fence and mark is not None and mark[1].startswith(fence) and line.strip() == mark[1]:
      blocks.append((language, "".join(lines)))
      fence = ""
    elif fence:
      lines.append(line)
  if fence:
    blocks.append((language, "".join(lines)))
  python = [code for language, code in blocks if language in _PYTHON]
  return (python or [code for _, code in blocks] or [text])[-1]


def _compiles(source: str) -> bool:
  try:
    compile(source, "<prompt>", "exec", dont_inherit=True)
  except (SyntaxError, ValueError):
    return False
  return True


def prompt_code(prompt: str) -> str | None:
  """The code of a prompt that is code, or holds it in a fenced block; it may end in a function without a body."""
  for text in (prompt, extract(prompt)):
    text = text if text.endswith("\n") else f"{text}\n"
    if text.strip() and (_compiles(text) or _compiles(f"{text}    pass\n")):
      return text
  return None


def _alternatives(code: str, prompt: str | None) -> list[list[str]]:
  """Programs that a completion may mean, each as sources to run one after the other, the likeliest first."""
  if prompt is None:
    return [[code]]
  helpers = prompt if _compiles(prompt) else f"{prompt}    pass\n"
  # A body may have lost its indent, or that of its first line: it is the one of the docstring's last line.
  last = prompt.rstrip().rpartition("\n")[2]
  indent = last[: len(last) - len(last.lstrip())] or "    "
  indented = textwrap.indent(textwrap.dedent(code), indent)
  return [[helpers, code], *([prompt + body] for body in (code, indent + code, indented))]


def _order(problem: Problem, code: str) -> dict[str, Any]:
  """What the sandbox is asked. Raises ValueError where the problem's fields have none of the known forms."""
  tests, entry_point = problem.meta["tests"], problem.meta.get("entry_point")
  setup = problem.meta.get("test_setup") or ""
  if entry_point is not None and not (isinstance(entry_point, str) and entry_point.isidentifier()):
    raise ValueError(f"problem {problem.id}: entry_point is no name: {entry_point!r}")
  order: dict[str, Any] = {
    "entry_point": entry_point,
    "helpers": [],
    "tests": "",
    "check": False,
    "scripts": None,
  }
  if isinstance(tests, list) and tests and all(_is_script(test) for test in tests):
    _check_encodable(problem.id, tests)
    return {**order, "alternatives": [[code]], "scripts": tests}
  rows = [tests] if isinstance(tests, str) else tests
  if not (
    isinstance(rows, list) and rows and all(isinstance(row, str) for row in rows) and isinstance(setup, str)
  ):
    raise ValueError(
      f"problem {problem.id}: tests are neither text, nor a list of texts, nor of input and output"
    )
  source = "\n".join([setup, *rows])
  check = defines_check(source)
  try:
    names, modules = left_to_the_program(source, known=check or entry_point is not None)
  except (SyntaxError, ValueError) as error:
    raise ValueError(
      f"problem {problem.id}: its tests cannot be run: {type(error).__name__}: {error}"
    ) from error
  order = {**order, "tests": source, "check": check, "names": names, "modules": modules}
  if not check:
    return {**order, "alternatives": [[code]]}
  prompt = prompt_code(problem.prompt)
  helpers = [] if prompt is None else [_alternatives(code, prompt)[0][0]]
  return {**order, "alternatives": _alternatives(code, prompt), "helpers": helpers}


def _is_script(test: Any) -> bool:
  return isinstance(test, dict) and all(isinstance(test.get(key), str) for key in ("input", "output"))


def _check_encodable(name: str, tests: Sequence[dict[str, str]]) -> None:
  """Raises ValueError where an input or output cannot be bytes, as a process reads and writes them."""
  try:
    for test in tests:
      for text in (test["input"], test["output"]):
        text.encode("utf-8", "surrogateescape")
  except UnicodeEncodeError as error:
    raise ValueError(f"problem {name}: its tests cannot be run: {error}") from None


def defines_check(source: str) -> bool:
  """Whether tests define `check`. Text that does not parse does not."""
  try:
    body = ast.parse(source).body
  except (SyntaxError, ValueError):
    return False
  return any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in body)


def _verdict(problem: Problem, completion: str, limits: Limits, allow_unsandboxed_code: bool) -> Verdict:
  code = extract(completion) if len(completion) <= MAX_TEXT else ""
  order = _order(problem, code)
  if not code.strip():
    return Verdict(0.0, False, None, "unparsable")
  answer = service.judge(order, limits, allow_unsandboxed_code)
  if "broken_tests" in answer:
    raise ValueError(f"problem {problem.id}: its tests cannot be run: {answer['broken_tests']}")
  error = answer["error"]
  return Verdict(float(error is None), error is None, code, error)


def _verify(
  problems: Sequence[Problem], completions: Sequence[str], *, limits: Limits, allow_unsandboxed_code: bool
) -> list[Verdict]:
  if len(problems) != len(completions):
    raise ValueError(f"{len(problems)} problems have {len(completions)} completions")
  return [_verdict(p, c, limits, allow_unsandboxed_code) for p, c in zip(problems, completions, strict=True)]


def make_verify(
  limits: Limits | None = None,
  allow_unsandboxed_code: bool = False,
  cpu_seconds: int | None = None,
  policy: Policy = "strict",
  block: Literal["last", "first"] = "last",
) -> Verify:
  """`verify` under other limits: given as a whole, or as CPU seconds an item, with ten times as much elapsed time.

  `allow_unsandboxed_code` runs programs even where essential layers are missing. Raises ValueError where both are given.
  """
  check_policy(policy)
  if limits is not None and cpu_seconds is not None:
    raise ValueError("cpu_seconds and limits both say what an item may use")
  if cpu_seconds is not None:
    limits = Limits(cpu_seconds=cpu_seconds, wall_seconds=10.0 * cpu_seconds)
  limits = limits or Limits()
  return functools.partial(_verify, limits=limits, allow_unsandboxed_code=allow_unsandboxed_code)


verify = make_verify()
