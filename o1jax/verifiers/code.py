"""Programs, judged by their tests: functions (HumanEval, MBPP) and standard input and output. In a sandbox.

    completion -> its code -> programs that it may mean -> sandbox: a program against meta["tests"] -> verdict

`meta["tests"]` has one of four forms:
  - a string that defines `check(candidate)` (Chen et al. 2021, HumanEval). The prompt is code too, or holds
    it in its last fenced block: the completion may go on with it, or be a function of its own; what the
    prompt defines is there for both the program and the tests;
  - assertions, as a list of strings or one string (Austin et al. 2021, MBPP), behind
    `meta["test_setup"]` if there is one. Of the prompt, its imports of the standard library are there;
  - a list of {"input", "output"}: the program reads standard input and prints;
  - the same with `meta["fn_name"]` (Jain et al. 2024, LiveCodeBench), or an entry point that is a method:
    the function's arguments (a list, an object of names, or a text of one JSON value a line) and its result,
    as JSON.
`meta["entry_point"]`, where there is one, names the function under test: `f`, or a method as `Solution.f` or
`Solution().f`, called on a new object each time. `fn_name` may be a function or a method of `Solution`.

Of a completion end tokens and thoughts are taken off; one that was cut off in its thoughts has no program.
Then comes the last fenced block (or the first, by `block`), python ones first; where that defines no target,
an earlier one; where it does and does not compile, none. A fence that closes what the prompt opened, an
indented, quoted or unclosed one are read. Programs have Python's standard library, as of the Python that runs
this and no other package, and nothing of the limits is lifted that Python has, as that on the digits of an
int. A completion is `unparsable` where it holds no code or none that compiles. What the tests ask of an
answer that is no literal is put to the program's process: `sandbox.program` says how, and which failure is
which verdict.

`policy` says what counts where graders differ:
                    strict                                        standard
  standard output   lines as text, without whitespace at their    tokens; for one with a point or an exponent
                    ends, nor empty lines at the end              numbers within 1e-6, relative or absolute
  fn_name: floats   equal                                         within 1e-6
  class Solution    where the entry point says so                 its method also in place of a function
  what goes on      belongs to the program                        ends at an end token; a function's body also
                                                                  at the next class, def, if, print or comment

Limits are those of `Limits` (`sandbox.service`): CPU time of all of an item's tests together, address space,
output.
"""

import ast
import functools
import json
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from o1jax.verifiers.base import UNPARSABLE, Problem, Verdict, Verify
from o1jax.verifiers.code_extract import Which, answer_text, candidates, extract
from o1jax.verifiers.completion import Policy, check_policy
from o1jax.verifiers.sandbox import service
from o1jax.verifiers.sandbox.names import left_to_the_program
from o1jax.verifiers.sandbox.service import Limits

__all__ = ["MAX_TEXT", "extract", "make_verify", "prompt_code", "verify"]

MAX_TEXT = 200_000  # characters; a longer completion is unparsable
_ENTRY = re.compile(r"(?:[^\W\d]\w*(?:\(\))?\.)?[^\W\d]\w*")
_SOLUTION = "Solution"  # LeetCode's name of the class
# What LeetCode's programs find imported.
_LEETCODE = """\
import bisect, collections, functools, heapq, itertools, math, re, string
from typing import *
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
"""
# What tests of the form fn_name run: JSON has no tuples.
_CALLS = """
import json, math
def plain(value):
  return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value
def same(result, expected):
  if isinstance(result, list) and isinstance(expected, list):
    return len(result) == len(expected) and all(map(same, result, expected))
  if TOLERANCE and isinstance(result, (int, float)) and isinstance(expected, float):
    return math.isclose(result, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
  return result == expected
def check(candidate):
  for arguments, expected in json.loads(ROWS):
    result = candidate(**arguments) if isinstance(arguments, dict) else candidate(*arguments)
    assert same(plain(result), expected)
"""


def _compiles(source: str) -> bool:
  try:
    compile(source, "<prompt>", "exec", dont_inherit=True)
  except (SyntaxError, ValueError):
    return False
  return True


def prompt_code(prompt: str) -> str | None:
  """The code of a prompt that is code or holds it in a fenced block; perhaps a function without its body."""
  for text in (prompt, extract(prompt)):
    text = text if text.endswith("\n") else f"{text}\n"
    if text.strip() and (_compiles(text) or _compiles(f"{text}    pass\n")):
      return text
  return None


def _prompt_imports(prompt: str) -> str:
  """What a prompt imports of the standard library, in its text or its code, as source that cannot fail."""
  imports = []
  for line in map(str.strip, prompt.splitlines()):
    if line.startswith(("import ", "from ")) and _compiles(line):
      node: Any = ast.parse(line).body[0]
      named = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
      roots = {(name or "").partition(".")[0] for name in named} - {"__future__"}
      if roots and roots <= set(sys.stdlib_module_names):
        imports.append(f"try:\n  {line}\nexcept ImportError:\n  pass\n")
  return "".join(imports)


def _alternatives(code: str, prompt: str | None, imports: str) -> list[list[str]]:
  """Programs that a candidate may mean, each as sources to run one after the other, the likeliest first.

  All but the first go on with the function that the prompt begins.
  """
  if prompt is None:
    return [[imports, code] if imports else [code]]
  helpers = prompt if _compiles(prompt) else f"{prompt}    pass\n"
  # A body may have lost its indent, or that of its first line: it is the one of the docstring's last line.
  last = prompt.rstrip().rpartition("\n")[2]
  indent = last[: len(last) - len(last.lstrip())] or "    "
  indented = textwrap.indent(textwrap.dedent(code), indent)
  return [[helpers, code], *([prompt + body] for body in (code, indent + code, indented))]


def _order(problem: Problem, policy: Policy) -> dict[str, Any]:
  """The sandbox's order without the program; `prompt` and `imports` are what the program may go on with.

  Raises ValueError where the problem's fields have none of the known forms.
  """
  tests, name = problem.meta["tests"], problem.meta.get("fn_name")
  entry_point = problem.meta.get("entry_point") if name is None else name
  setup = problem.meta.get("test_setup") or ""
  if entry_point is not None and not (isinstance(entry_point, str) and _ENTRY.fullmatch(entry_point)):
    field = "entry_point" if name is None else "fn_name"
    raise ValueError(f"problem {problem.id}: {field} is no name: {entry_point!r}")
  order: dict[str, Any] = dict(
    entry_point=entry_point, helpers=[], tests="", check=False, names=[], modules=[],
    scripts=None, tokens=policy == "standard", prompt=None, imports="",
    solution=_SOLUTION if name is not None or policy == "standard" else None,
  )  # fmt: skip
  is_method = entry_point is not None and "." in entry_point
  if isinstance(tests, list) and tests and all(_is_call(test) for test in tests) and (name or is_method):
    source = _calls(problem.id, tests, 1e-6 if policy == "standard" else 0.0)
    return {**order, "tests": source, "check": True, "imports": _LEETCODE + _prompt_imports(problem.prompt)}
  if isinstance(tests, list) and tests and all(_is_script(test) for test in tests):
    _check_encodable(problem.id, tests)
    return {**order, "scripts": tests, "entry_point": None}
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
  order |= {"tests": source, "check": check, "names": names, "modules": modules}
  prompt = prompt_code(problem.prompt) if check else None
  imports = _prompt_imports(problem.prompt) if prompt is None else ""
  imports = _LEETCODE + imports if is_method and prompt is None else imports
  helpers = [] if prompt is None else [_alternatives("", prompt, "")[0][0]]
  return {**order, "helpers": helpers, "prompt": prompt, "imports": imports}


def _targets(order: dict[str, Any]) -> list[str]:
  """Names of which a program is to define one; none where that is not known."""
  entry_point = order["entry_point"]
  if entry_point is None:
    return [] if order["check"] else order["names"]
  root = entry_point.partition(".")[0].removesuffix("()")
  return [root, order["solution"]] if order["solution"] else [root]


def _is_call(test: Any) -> bool:
  return isinstance(test, dict) and isinstance(test.get("input"), str | list | dict) and "output" in test


def _calls(name: str, tests: Sequence[dict[str, Any]], tolerance: float) -> str:
  """Tests of arguments and results as source that runs them. Raises ValueError where a text is no JSON."""
  rows = []
  for number, test in enumerate(tests, start=1):
    arguments, expected = test["input"], test["output"]
    try:
      if isinstance(arguments, str):
        arguments = [json.loads(line) for line in arguments.splitlines() if line.strip()]
      if isinstance(expected, str):
        expected = json.loads(expected)
    except ValueError as error:
      why = f"test {number} is no JSON: {error}"
      raise ValueError(f"problem {name}: its tests cannot be run: {why}") from None
    rows.append([arguments, expected])
  return f"TOLERANCE = {tolerance!r}\nROWS = {json.dumps(rows)!r}\n{_CALLS}"


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


def _verdict(
  problem: Problem,
  completion: str,
  *,
  limits: Limits,
  allow_unsandboxed_code: bool,
  policy: Policy,
  block: Which,
) -> Verdict:
  order = _order(problem, policy)
  prompt, imports, targets = order.pop("prompt"), order.pop("imports"), _targets(order)
  text = answer_text(completion, policy) if len(completion) <= MAX_TEXT else ""
  programs = candidates(text, targets, block, policy)
  if not programs:
    return UNPARSABLE
  order["targets"] = targets
  order["candidates"] = [
    {"alternatives": _alternatives(each.code, prompt, imports), "sealed": each.sealed} for each in programs
  ]
  answer = service.judge(order, limits, allow_unsandboxed_code)
  if "broken_tests" in answer:
    raise ValueError(f"problem {problem.id}: its tests cannot be run: {answer['broken_tests']}")
  error = answer["error"]
  return Verdict(float(error is None), error is None, programs[answer["chosen"]].code, error)


def _verify(
  judge: Callable[[Problem, str], Verdict], problems: Sequence[Problem], completions: Sequence[str]
) -> list[Verdict]:
  if len(problems) != len(completions):
    raise ValueError(f"{len(problems)} problems have {len(completions)} completions")
  return list(map(judge, problems, completions))


def make_verify(
  limits: Limits | None = None,
  allow_unsandboxed_code: bool = False,
  cpu_seconds: int | None = None,
  memory_mib: int | None = None,
  output_mib: int | None = None,
  policy: Policy = "strict",
  block: Which = "last",
) -> Verify:
  """`verify` with other settings than the default. `policy` and `block` are as in the module's docstring.

  Limits are given together, or one by one: CPU seconds an item, with ten times as much elapsed time; MiB of
  address space, and of standard output. `allow_unsandboxed_code` runs programs even where essential layers
  are missing. Raises ValueError where limits are given both ways, or an option has no such value.
  """
  options = {"cpu_seconds": cpu_seconds, "memory_mib": memory_mib, "output_mib": output_mib}
  single = {name: value for name, value in options.items() if value is not None}
  if limits is not None and single:
    raise ValueError(f"{' and '.join(single)} and limits both say what an item may use")
  check_policy(policy)
  if block not in ("last", "first"):
    raise ValueError(f"block: must be last or first, is {block!r}")
  changed: dict[str, Any] = {}
  if cpu_seconds is not None:
    changed |= {"cpu_seconds": cpu_seconds, "wall_seconds": 10.0 * cpu_seconds}
  for name, mib in (("memory_bytes", memory_mib), ("output_bytes", output_mib)):
    if mib is not None:
      changed[name] = mib << 20
  judge = functools.partial(
    _verdict,
    limits=limits or Limits(**changed),
    allow_unsandboxed_code=allow_unsandboxed_code,
    policy=policy,
    block=block,
  )
  return functools.partial(_verify, judge)


verify = make_verify()
