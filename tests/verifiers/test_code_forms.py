"""How a program is called, and what there is: functions, methods, scripts and their streams, limits."""

import pytest

from o1jax.verifiers.base import Problem
from o1jax.verifiers.code import make_verify
from o1jax.verifiers.sandbox.trial import same_lines, same_tokens

CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n"
ASSERTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]

# (what is tried, completion, tests and options, error)
ROWS = [
  (
    "solution entry",
    "```python\nclass Solution:\n  def add(self, a: int, b: List[int]) -> int:\n    return a + b\n```\n",
    {"tests": CHECK, "entry_point": "Solution().add"},
    None,
  ),
  (
    "solution entry2",
    "```python\nclass Solution:\n  def add(self, a, b):\n    return a + b\n```\n",
    {"tests": CHECK, "entry_point": "Solution.add"},
    None,
  ),
  (
    "solution entry asserts",
    "```python\nclass Solution:\n  def add(self, a, b):\n    return a + b\n```\n",
    {"tests": ASSERTS, "entry_point": "Solution.add"},
    None,
  ),
  (
    "solution entry wrong",
    "```python\nclass Solution:\n  def add(self, a, b):\n    return a - b\n```\n",
    {"tests": ASSERTS, "entry_point": "Solution.add"},
    "wrong",
  ),
  (
    "solution static",
    "```python\nclass Solution:\n  @staticmethod\n  def add(a, b):\n    return a + b\n```\n",
    {"tests": ASSERTS, "entry_point": "Solution.add"},
    None,
  ),
  (
    "solution missing",
    "```python\ndef add(a, b):\n    return a + b\n```\n",
    {"tests": ASSERTS, "entry_point": "Solution.add"},
    "wrong",
  ),
  (
    "fn_name",
    "```python\nclass Solution:\n  def twoSum(self, nums: List[int], target: int) -> List[int]:\n    d = "
    "{}\n    for i, n in enumerate(nums):\n      if target - n in d: return d[target - n], i\n      d[n] = "
    "i\n```\n",
    {
      "tests": [
        {"input": "[2, 7, 11]\n9", "output": "[0, 1]"},
        {"input": [[3, 3], 6], "output": [0, 1]},
        {"input": {"nums": [1, 2], "target": 3}, "output": [0, 1]},
      ],
      "fn_name": "twoSum",
    },
    None,
  ),
  (
    "fn_name bare",
    "def inc(x): return x + 1",
    {"tests": [{"input": "1", "output": "2"}], "fn_name": "inc"},
    None,
  ),
  (
    "fn_name wrong",
    "def inc(x): return x + 2",
    {"tests": [{"input": "1", "output": "2"}], "fn_name": "inc"},
    "wrong",
  ),
  (
    "method io",
    "class Solution:\n  def inc(self, x): return x + 1",
    {"tests": [{"input": "1", "output": "2"}], "entry_point": "Solution.inc"},
    None,
  ),
  (
    "fn float strict",
    "def h(x): return x / 3",
    {"tests": [{"input": "1", "output": "0.33333333"}], "fn_name": "h"},
    "wrong",
  ),
  (
    "fn float std",
    "def h(x): return x / 3",
    {"tests": [{"input": "1", "output": "0.33333333"}], "fn_name": "h", "policy": "standard"},
    None,
  ),
  (
    "fn stateful",
    "class Solution:\n  def __init__(self): self.a = []\n  def add(self, x):\n    self.a.append(x)\n    "
    "return self.a",
    {"tests": [{"input": "1", "output": "[1]"}, {"input": "2", "output": "[2]"}], "fn_name": "add"},
    None,
  ),
  (
    "eq everything fn",
    "class E:\n  def __eq__(self, o): return True\ndef inc(x): return E()",
    {"tests": [{"input": "1", "output": "2"}], "fn_name": "inc"},
    "policy",
  ),
  (
    "std class",
    "```python\nclass Solution:\n  def add(self, a, b):\n    return a + b\n```\n",
    {"tests": ASSERTS, "policy": "standard"},
    None,
  ),
  (
    "zoneinfo",
    "import zoneinfo, datetime\nprint(datetime.datetime(2024,7,1,tzinfo=zoneinfo.ZoneInfo"
    "('Europe/Berlin')).utcoffset())",
    {"tests": [{"input": "", "output": "2:00:00"}]},
    None,
  ),
  (
    "devnull",
    "import sys\nwith open('/dev/null','w') as f: print('x', file=f)\nprint(open('/dev/null').read() == '')",
    {"tests": [{"input": "", "output": "True"}]},
    None,
  ),
  (
    "devnull2",
    "import os, contextlib\nwith open(os.devnull,'w') as f, contextlib.redirect_stdout(f): "
    "print('x')\nprint(1)",
    {"tests": [{"input": "", "output": "1"}]},
    None,
  ),
  (
    "stdin pathlib",
    "import pathlib\nprint(pathlib.Path('/dev/stdin').read_text().strip())",
    {"tests": [{"input": "abc\n", "output": "abc"}]},
    None,
  ),
  (
    "stdin lines",
    "for line in open('/dev/stdin'):\n  print(line.strip())",
    {"tests": [{"input": "abc\nd\n", "output": "abc\nd"}]},
    None,
  ),
  (
    "stdin sys",
    "import sys\nsys.stdin = open('/dev/stdin')\nprint(input())",
    {"tests": [{"input": "abc\nd\n", "output": "abc"}]},
    None,
  ),
  (
    "stdin proc",
    "print(open('/proc/self/fd/0','rb').read().decode())",
    {"tests": [{"input": "abc", "output": "abc"}]},
    None,
  ),
  (
    "stdout sys",
    "import sys\nsys.stdout = open('/dev/stdout', 'w')\nprint(5)",
    {"tests": [{"input": "", "output": "5"}]},
    None,
  ),
  (
    "stdout both",
    "import sys\nprint(1, flush=True)\nopen('/dev/stdout', 'a').write('2\\n')\nprint(3)",
    {"tests": [{"input": "", "output": "1\n2\n3"}]},
    None,
  ),
  (
    "os.open",
    "import os\nfd = os.open('/dev/stdin', os.O_RDONLY)\nprint(os.read(fd, 99).decode())",
    {"tests": [{"input": "abc", "output": "abc"}]},
    None,
  ),
  (
    "fileinput",
    "import fileinput\nfor l in fileinput.input('/dev/stdin'): print(l.strip())",
    {"tests": [{"input": "abc", "output": "abc"}]},
    None,
  ),
  ("fd0", "import os\nprint(os.fdopen(0).read())", {"tests": [{"input": "abc", "output": "abc"}]}, None),
  (
    "codecs",
    "import codecs\nprint(codecs.open('/dev/stdin', encoding='utf-8').read())",
    {"tests": [{"input": "abc", "output": "abc"}]},
    None,
  ),
  (
    "stderr",
    "import sys\nprint('x', file=open('/dev/stderr','w'))\nprint(1)",
    {"tests": [{"input": "", "output": "1"}]},
    None,
  ),
]


@pytest.mark.parametrize(
  ("completion", "given", "expected"), [pytest.param(*row[1:], id=row[0]) for row in ROWS]
)
def test_how_a_program_is_called(completion, given, expected):
  options = {name: given[name] for name in ("policy", "block") if name in given}
  meta = {name: value for name, value in given.items() if name not in ("policy", "block", "prompt")}
  problem = Problem("p", given.get("prompt", ""), "", "test", meta)
  verdict = make_verify(**options)([problem], [completion])[0]
  assert verdict.error == expected


@pytest.mark.parametrize(
  ("printed", "wanted", "tokens", "lines"),
  [
    ("1 2\n", "1 2", True, True),
    ("1  2", "1 2", True, False),
    ("1\n2", "1 2", True, False),
    ("\nyes", "yes", True, False),
    ("0.333333", "0.333333333333", True, False),
    ("0.33333", "0.333333333333", False, False),
    ("0.250", "0.25", True, False),
    ("3.0000001 2.9999999", "3 3", True, False),
    ("3.0", "3", True, False),
    ("3.1", "3", False, False),
    ("1e3", "1000.0", True, False),
    ("1000000.0", "1000001", False, False),
    ("1000000", "1000001", False, False),
    ("123456789012345678", "123456789012345679", False, False),
    ("1000000.5", "1000000.0", True, False),
    ("007", "7", False, False),
    ("101", "0101", False, False),
    ("nan", "0.5", False, False),
    ("inf", "1e300", False, False),
    ("1_0.0", "10.0", False, False),
    ("YES", "yes", False, False),
    ("1 2 3", "1 2", False, False),
    ("", "0", False, False),
    ("-0.0", "0.0", True, False),
    ("x1.0", "x1", False, False),
  ],
)
def test_how_outputs_compare(printed, wanted, tokens, lines):
  assert same_tokens(printed.encode(), wanted.encode()) == tokens
  assert same_lines(printed.encode(), wanted.encode()) == lines


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"policy": "lenient"}, "'lenient' is no policy; there are strict, standard"),
    ({"block": "best"}, "block: must be last or first"),
    ({"memory_mib": 0}, "Limits.memory_bytes"),
    ({"output_mib": -1}, "Limits.output_bytes"),
  ],
)
def test_options_are_checked(options, message):
  with pytest.raises(ValueError, match=message):
    make_verify(**options)


def test_limits_are_options():
  problem = Problem("p", "", "", "test", {"tests": [{"input": "", "output": "20000000"}]})
  program = "print(len(list(range(20_000_000))))"
  assert make_verify()([problem], [program])[0].error == "crashed"
  assert make_verify(memory_mib=2048)([problem], [program])[0].correct
  long = Problem("p", "", "", "test", {"tests": [{"input": "", "output": "x" * (5 << 20)}]})
  assert make_verify()([long], ["print('x' * (5 << 20))"])[0].error == "crashed"
  assert make_verify(output_mib=8)([long], ["print('x' * (5 << 20))"])[0].correct


@pytest.mark.parametrize("name", ["f()", "a.b.c", "", "Solution().", 3])
def test_an_entry_point_is_a_name_or_a_method(name):
  for field in ("entry_point", "fn_name"):
    with pytest.raises(ValueError, match=f"problem p: {field} is no name"):
      make_verify()([Problem("p", "", "", "test", {"tests": ["assert f()"], field: name})], ["x = 1"])


def test_arguments_that_are_no_json():
  tests = [{"input": "[1, 2", "output": "3"}]
  with pytest.raises(ValueError, match="problem p: its tests cannot be run: test 1 is no JSON"):
    make_verify()([Problem("p", "", "", "test", {"tests": tests, "fn_name": "f"})], ["x = 1"])
