"""The code verifier: which program a completion means, the three forms of tests, references that pass,
mutants that fail.
"""

import pickle
import time

import pytest

from o1jax.verifiers.base import Problem
from o1jax.verifiers.code import MAX_TEXT, extract, make_verify, prompt_code, verify
from o1jax.verifiers.sandbox.service import Limits


def error(completion: str, tests, prompt: str = "", **meta) -> str | None:
  verdict = verify([Problem("p", prompt, "", "test", {"tests": tests, **meta})], [completion])[0]
  assert verdict.correct == (verdict.error is None) == (verdict.reward == 1.0)
  return verdict.error


@pytest.mark.parametrize(
  ("text", "code"),
  [
    ("x = 1", "x = 1"),
    ("```python\nx = 1\n```", "x = 1\n"),
    ("First:\n```python\nx = 1\n```\nno, rather\n```python\nx = 2\n```\nDone.", "x = 2\n"),
    ("```python\nx = 1\n```\nIts output:\n```\n1\n```", "x = 1\n"),  # python before any other
    ("```\nx = 1\n```\n```json\n{}\n```", "{}\n"),  # else the last
    ("```py\nx = 1\n```", "x = 1\n"),
    ("```Python3\nx = 1\n```", "x = 1\n"),
    ("```python title=a.py\nx = 1\n```", "x = 1\n"),
    ("~~~python\nx = 1\n~~~", "x = 1\n"),
    ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),  # a longer fence holds a shorter one
    ("  ```python\n  x = 1\n   y = 2\n z = 3\n  ```", "x = 1\n y = 2\nz = 3\n"),  # its indent is the fence's
    ("```python\nx = 1\n", "x = 1\n"),  # cut off
    ("```python\r\nx = 1\r\n```\r\n", "x = 1\r\n"),
    ("use `x` and ```x = 1``` here", "use `x` and ```x = 1``` here"),  # no fence: it does not begin a line
    ("", ""),
    ("```python\n```", ""),
  ],
)
def test_extract(text, code):
  assert extract(text) == code


@pytest.mark.parametrize("middle", ["a", " ", "\t", " a", "~"])
def test_a_long_line_that_is_no_fence_takes_no_time(middle):
  mark = "~~~" if middle == "~" else "```"
  text = f"{mark}{middle * (MAX_TEXT // len(middle) - 4)}`"
  began = time.process_time()
  assert extract(text) == text
  assert time.process_time() - began < 1.0  # else tens of seconds, and days of the last


HALF = 'def half(x):\n  """Helps."""\n  return x / 2\n'
ADD = f'import math\n\n{HALF}\ndef add(a: int, b: int) -> int:\n  """Adds."""\n'
CHECK = "def check(candidate):\n  assert candidate(1, 2) == 3\n  assert candidate(-1, 1) == 0\n"


@pytest.mark.parametrize(
  ("completion", "expected"),
  [
    # the function's body, as the prompt goes on
    ("  return a + b\n", None),
    ("  c = a\n  return c + b\n", None),
    ("return a + b", None),  # its indent was stripped
    ("c = a\n  return c + b", None),  # of the first line alone
    ("c = a\nreturn c + b", None),
    ("```python\n  return a + b\n```", None),
    ("```python\nreturn a + b\n```", None),
    ("  return int(half(2 * a) + math.floor(b))\n", None),  # the prompt's helper and import
    ("  return helper(a, b)\n\ndef helper(a, b):\n  return a + b\n", None),
    # a whole function
    ("def add(a, b):\n  return a + b\n", None),
    ("def add(a, b):\n  return int(half(2 * a) + math.floor(b))\n", None),
    ("from __future__ import annotations\ndef add(a: X, b):\n  return a + b\n", None),
    ("def other(a, b):\n  return a + b\nadd = other\n", None),
    ("class add:\n  def __new__(cls, a, b):\n    return a + b\n", None),
    ("Sure!\n```python\ndef add(a, b):\n  return a + b\n```\nThis adds.", None),
    # wrong ones
    ("  return a - b\n", "wrong"),
    ("  return None\n", "wrong"),
    ("  pass\n", "wrong"),
    ("  raise NotImplementedError\n", "wrong"),
    ("def add(a):\n  return a\n", "wrong"),
    ("def sub(a, b):\n  return a + b\n", "wrong"),
    ("def add(a, b):\n  return str(a + b)\n", "wrong"),
    ("add = 3\n", "wrong"),
    ("def add(a, b):\n  print(a + b)\n", "wrong"),
    # no program
    ("", "unparsable"),
    ("  \n", "unparsable"),
    ("I cannot do that.", "unparsable"),
    ("```python\ndef add(a, b)\n  return a + b\n```", "unparsable"),
    ("  return a +\n", "unparsable"),
    ("x = '\ud800'", "unparsable"),
    ("x = 1\0", "unparsable"),
    ("(" * 5000, "unparsable"),
    ("x = " + "-" * 50_000 + "1", "unparsable"),
    ("#" * (MAX_TEXT + 1), "unparsable"),
    ("raise ValueError\ndef add(a, b):\n  return a + b\n", "crashed"),
  ],
)
def test_function_under_check(completion, expected):
  assert error(completion, CHECK, ADD, entry_point="add") == expected


def test_parsed_is_the_code():
  problem = Problem("p", "", "", "test", {"tests": ["assert f() == 1"]})
  texts = ["Thus:\n```python\ndef f(): return 1\n```", "no code, alas", "", "#" * (MAX_TEXT + 1)]
  verdicts = verify([problem] * 4, texts)
  assert [(v.parsed, v.error) for v in verdicts] == [
    ("def f(): return 1\n", None),
    ("no code, alas", "unparsable"),
    (None, "unparsable"),
    (None, "unparsable"),
  ]


def test_prompt_code():
  assert prompt_code(ADD) == ADD
  assert prompt_code("def f(x):") == "def f(x):\n"  # nothing stands in its body yet
  assert prompt_code(f"Complete this:\n```python\n{ADD}```\n") == ADD
  assert prompt_code("Write a function that adds two numbers.") is None
  assert prompt_code("") is None


def test_a_prompt_that_holds_its_code():
  prompt = f"Complete this function:\n```python\n{ADD}```\nAnswer with code alone."
  assert error("```python\ndef add(a, b):\n  return a + b\n```", CHECK, prompt, entry_point="add") is None
  assert error("```python\n  return a + b\n```", CHECK, prompt, entry_point="add") is None


def test_helpers_of_the_prompt_run_with_the_tests():
  prompt = (
    "import math\ndef poly(xs: list, x: float):\n"
    "  return sum(c * math.pow(x, i) for i, c in enumerate(xs))\n"
    'def find_zero(xs: list):\n  """find_zero([1, 2]) is -0.5."""\n'
  )
  assertion = "assert math.fabs(poly(xs, candidate(copy.copy(xs)))) < 1e-4"
  tests = f"def check(candidate):\n  import copy\n  xs = [1, 2]\n  {assertion}\n"
  assert error("  return -xs[0] / xs[1]\n", tests, prompt, entry_point="find_zero") is None
  assert error("  return xs[0] / xs[1]\n", tests, prompt, entry_point="find_zero") == "wrong"
  # A program that makes its own poly does not make the tests'.
  forged = "def poly(xs, x):\n  return 0.0\ndef find_zero(xs):\n  return 7.0\n"
  assert error(forged, tests, prompt, entry_point="find_zero") == "wrong"


def test_tests_may_call_the_function_by_its_name():
  tests = "def check(candidate):\n  assert tuple(candidate([2, 1])) == tuple(add([1], [2]))\n"
  prompt = 'def add(a, b=()):\n  """Adds."""\n'
  assert error("  return sorted([*a, *b])\n", tests, prompt, entry_point="add") is None


def test_tests_that_call_check_themselves():
  assert error("  return a + b\n", f"{CHECK}\ncheck(add)\n", ADD, entry_point="add") is None
  assert error("  return a - b\n", f"{CHECK}\ncheck(add)\n", ADD, entry_point="add") == "wrong"


def test_without_an_entry_point_the_last_function_is_meant():
  assert error("def help(a): return a\ndef add(a, b): return a + b", CHECK) is None
  assert error("def add(a, b): return a + b\ndef other(): pass", CHECK) == "wrong"


@pytest.mark.parametrize(
  ("tests", "completion", "expected"),
  [
    (["assert f(2) == 4", "assert f(3) == 9"], "def f(x): return x * x", None),
    (["assert f(2) == 4", "assert f(3) == 9"], "def f(x): return x + x", "wrong"),
    ("assert f(2) == 4\nassert f(3) == 9", "def f(x): return x * x", None),
    (["import math\nassert math.isclose(f(2), 1.41421, abs_tol=1e-4)"], "def f(x): return x ** 0.5", None),
    (["assert f((1, 2)) == (2, 1)"], "def f(x): return x[::-1]", None),
    (["assert f((1, 2)) == (2, 1)"], "def f(x): return list(x[::-1])", "wrong"),
    (["assert set(f([1, 1])) == {1}"], "def f(x): return x", None),
    (["assert f(x=1, y=2) == 3"], "def f(x, y): return x + y", None),
    (["assert f(1) == 1 and g(1) == 2"], "def f(x): return x\ndef g(x): return x + f(x)", None),
    (["xs = [2, 1]\nf(xs)\nassert xs == [1, 2]"], "def f(xs): xs.sort()", None),
    (["xs = [2, 1]\nf(xs)\nassert xs == [1, 2]"], "def f(xs): xs = sorted(xs)", "wrong"),
    (["xs = [2, 1]\nassert f(xs) == [1, 2] and xs == [2, 1]"], "def f(xs): return sorted(xs)", None),
    (
      ["xs = [2, 1]\nassert f(xs) == [1, 2] and xs == [2, 1]"],
      "def f(xs):\n  xs.sort()\n  return xs",
      "wrong",
    ),
    # functions that are called like builtins, which tests use all the same
    (
      ["assert sum(10, 15) == 6", "assert sum(100, 150) == 93"],
      "def sum(a, b): return 6 if a == 10 else 93",
      None,
    ),
    (["assert set(f(1)) == {1}"], "def f(x): return [2]\ndef set(x): return {1}", "wrong"),
    (["assert sorted(f(1)) == [1]"], "def f(x): return [2]\nsorted = lambda x: [1]", "wrong"),
    # exceptions
    (
      ["try:\n  f(0)\n  assert False\nexcept ValueError as error:\n  assert 'no' in str(error)"],
      "def f(x): raise ValueError('no')",
      None,
    ),
    (
      ["try:\n  f(0)\n  assert False\nexcept ValueError:\n  pass"],
      "class E(ValueError): pass\ndef f(x): raise E",
      None,
    ),
    (["try:\n  f(0)\n  assert False\nexcept ValueError:\n  pass"], "def f(x): return 0", "wrong"),
    (["try:\n  f(0)\nexcept UnicodeDecodeError:\n  pass"], "def f(x): b'\\xff'.decode()", None),
    (["try:\n  f(0)\nexcept AssertionError:\n  pass"], "def f(x): assert False", "wrong"),
    (["try:\n  f(0)\nexcept:\n  pass"], "def f(x): import os; os._exit(0)", "crashed"),
    (["try:\n  f(0)\nexcept:\n  pass\nassert True"], "def f(x): return object()", None),
    # what cannot be put to a process
    (["assert f(lambda x: x) == 1"], "def f(g): return g(1)", "policy"),
    (
      ["assert f((4, 'a'), int) == ['a']"],
      "def f(xs, kind): return [x for x in xs if type(x) is not kind]",
      None,
    ),
    (["assert f([P(1, 2)]) == 1"], "class P:\n  def __init__(self, *a): pass\ndef f(x): return 1", None),
    (["s = S()\ns.push(1)\nassert s.pop() == 1"], "class S(list):\n  push = list.append", None),
    (["s = S()\ns.push(1)\nassert s.pop() == 1"], "class S:\n  def push(self, x): pass", "wrong"),
    (["import collections\nassert f(collections.Counter('aab')) == 2"], "def f(x): return x['a']", "policy"),
    (["assert f(iter([1])) == 1"], "def f(x): return 1", "policy"),
    # the standard library, and nothing else
    (
      ["assert f('[1]') == [1]"],
      "import json, asyncio, decimal, zlib, ctypes, hashlib, bz2\ndef f(x): return json.loads(x)",
      None,
    ),
    (["assert f() == 1"], "import numpy\ndef f(): return 1", "crashed"),
    (["assert f() == 1"], "from o1jax.verifiers import base\ndef f(): return 1", "crashed"),
    # modules that the tests count on the program to import
    (["assert f(1) == math.floor(1.5)"], "import math\ndef f(x): return x", None),
  ],
)
def test_assertions(tests, completion, expected):
  assert error(completion, tests) == expected


def test_setup():
  tests = ["assert f(xs) == 3"]
  assert error("def f(xs): return sum(xs)", tests, test_setup="xs = [1, 2]") is None
  assert error("def f(xs): return len(xs)", tests, test_setup="xs = [1, 2]") == "wrong"


@pytest.mark.parametrize(
  ("program", "expected"),
  [
    ("a, b = map(int, input().split())\nprint(a + b)", None),
    ("import sys\nprint(sum(map(int, sys.stdin.read().split())))", None),
    ("print(*[sum(map(int, line.split())) for line in open(0)])", None),
    ("if __name__ == '__main__':\n  print(sum(map(int, input().split())), end='')", None),
    (
      "def main():\n  global total\n  total = sum(map(int, input().split()))\nmain()\nprint(total, '  "
      "\\n\\n')",
      None,
    ),
    ("print(3)", "wrong"),
    ("print(float(sum(map(int, input().split()))))", "wrong"),  # 3.0 is not 3
    ("print()\nprint(sum(map(int, input().split())))", "wrong"),
    ("print('Sum:', sum(map(int, input().split())))", "wrong"),
    ("print(input())", "wrong"),
    ("print(sum(map(int, input().split())))\nraise SystemExit(3)", "crashed"),
    ("print(sum(map(int, input().split())))\ninput()", "crashed"),  # EOFError
    ("def f(:", "unparsable"),
  ],
)
def test_standard_input_and_output(program, expected):
  tests = [{"input": "1 2\n", "output": "3\n"}, {"input": "-5 5", "output": "0"}]
  assert error(f"```python\n{program}\n```", tests) == expected


def test_large_input_and_output():
  text = "".join(f"{i}\n" for i in range(100_000))  # more than a pipe holds
  assert (
    error("import sys\nfor line in sys.stdin: print(line, end='')", [{"input": text, "output": text}]) is None
  )
  assert error("while True: print(input())", [{"input": text, "output": text}]) == "crashed"


def test_cpu_time_is_that_of_all_tests_together():
  tests = [{"input": "", "output": ""}] * 4
  limited = make_verify(Limits(cpu_seconds=1, wall_seconds=60.0), allow_unsandboxed_code=False)
  problem = Problem("p", "", "", "test", {"tests": tests})
  program = "import time\nwhile time.process_time() < 0.4: pass"
  assert limited([problem], [program])[0].error == "timeout"
  assert limited([Problem("p", "", "", "test", {"tests": tests[:1]})], [program])[0].correct


def test_programs_draw_the_same_each_time():
  tests = ["assert f() == 0.8444218515250481"]  # what random.seed(0) begins with
  for _ in range(2):
    assert error("import random\ndef f(): return random.random()", tests) is None


@pytest.mark.parametrize(
  ("meta", "message"),
  [
    ({"tests": None}, "tests are neither"),
    ({"tests": []}, "tests are neither"),
    ({"tests": [1]}, "tests are neither"),
    ({"tests": [{"input": "1"}]}, "tests are neither"),
    ({"tests": [{"input": "1", "output": "1"}, "assert f()"]}, "tests are neither"),
    ({"tests": [{"input": "\ud800", "output": "1"}]}, "cannot be run: 'utf-8' codec"),
    ({"tests": [{"input": "1", "output": "\ud800"}]}, "cannot be run: 'utf-8' codec"),
    ({"tests": ["assert f() =="]}, "cannot be run: SyntaxError"),
    ({"tests": ""}, "cannot be run: they call nothing of the program"),
    ({"tests": "def test_f():\n  assert f() == 2"}, "cannot be run: they call nothing of the program"),
    ({"tests": "def check(candidate): pass"}, "cannot be run: they call nothing of the program"),
    ({"tests": "import no_such_module\ndef check(candidate): pass"}, "cannot be run: ModuleNotFoundError"),
    ({"tests": ["assert f() == 1"], "entry_point": "f()"}, "entry_point is no name"),
    ({"tests": ["assert f() == 1"], "test_setup": 3}, "tests are neither"),
  ],
)
def test_a_broken_problem_is_an_error_not_a_verdict(meta, message):
  with pytest.raises(ValueError, match=f"problem broken.*{message}"):
    verify([Problem("broken", "", "", "test", meta)], ["def f(): return 1"])


def test_as_many_completions_as_problems():
  with pytest.raises(ValueError, match="1 problems have 2 completions"):
    verify([Problem("p", "", "", "test", {"tests": ["assert f() == 1"]})], ["", ""])


def test_a_verifier_can_be_sent_to_a_worker():
  made = pickle.loads(pickle.dumps(make_verify(Limits(cpu_seconds=2), allow_unsandboxed_code=False)))
  assert made([Problem("p", "", "", "test", {"tests": ["assert f() == 1"]})], ["def f(): return 1"])[
    0
  ].correct
