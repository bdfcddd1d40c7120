"""Answers that are no literal: what tests ask of them, what cannot be told, and objects that would pass for
others.
"""

import pytest

from o1jax.verifiers.base import Problem
from o1jax.verifiers.code import verify


def error(completion: str, tests: list[str]) -> str | None:
  return verify([Problem("p", "", "", "test", {"tests": tests})], [completion])[0].error


# (program, tests that each hold of it)
RIGHT = [
  ("import re\ndef f(s): return re.search('a', s)", ["assert f('cat')", "assert not f('dog')"]),
  (
    "import re\ndef f(s): return re.search('a', s)",
    [
      "assert f('cat') is not None",
      "assert f('cat').group() == 'a'",
      "assert f('cat').span() == (1, 2)",
      "assert f('cat')[0] == 'a'",
    ],
  ),
  ("import re\ndef f(s): return re.search('a', s)", ["assert bool(f('cat')) == True"]),
  ("import re\ndef f(s): return re.finditer('a', s)", ["assert [m.start() for m in f('banana')] == [1,3,5]"]),
  (
    "def f(n): return map(abs, range(-n, 0))",
    [
      "assert list(f(3)) == [3,2,1]",
      "assert sum(f(3)) == 6",
      "assert sorted(f(2)) == [1,2]",
      "assert max(f(3)) == 3",
      "assert 2 in f(3)",
      "assert tuple(f(1)) == (1,)",
    ],
  ),
  (
    "def f(n): return range(n)",
    [
      "assert list(f(3)) == [0,1,2]",
      "assert f(3) == range(3)",
      "assert len(f(3)) == 3 and f(3)[1] == 1 and f(3).stop == 3",
      "assert isinstance(f(1), range)",
    ],
  ),
  (
    "def f(n): return zip(range(n), 'abc')",
    ["assert list(f(2)) == [(0,'a'),(1,'b')]", "assert dict(f(2)) == {0:'a',1:'b'}"],
  ),
  (
    "def f(n):\n  for i in range(n): yield i",
    [
      "assert list(f(5)) == [0,1,2,3,4]",
      "g=f(3)\nassert next(g)==0 and next(g)==1 and next(g)==2 and next(g, None) is None",
      "import types\nassert isinstance(f(1), types.GeneratorType)",
    ],
  ),
  (
    "def f(n):\n  while True:\n    yield n\n    n += 1",
    [
      "import itertools\nassert list(itertools.islice(f(0), 100)) == list(range(100))",
      "assert next(f(7)) == 7",
      "for i, v in zip(range(500), f(1)):\n  assert v == i + 1",
    ],
  ),
  ("def f(n):\n  x = yield n\n  yield x", ["g = f(1)\nassert next(g) == 1\nassert g.send(5) == 5"]),
  (
    "def f(n):\n  yield 1\n  raise ValueError('x')",
    ["try:\n  list(f(1))\n  assert False\nexcept ValueError:\n  pass"],
  ),
  (
    "def f(n): return {1: 2, 3: 4}.keys()",
    ["assert sorted(f(1)) == [1, 3]", "assert f(1) == {1, 3}", "assert 1 in f(1)"],
  ),
  (
    "def f(n): return {1: 2, 3: 4}.values()",
    ["assert list(f(1)) == [2, 4]", "assert sum(f(1)) == 6", "assert len(f(1)) == 2"],
  ),
  ("def f(n): return {1: 2}.items()", ["assert list(f(1)) == [(1, 2)]", "assert dict(f(1)) == {1: 2}"]),
  (
    "from collections import deque\ndef f(n): return deque(range(n), maxlen=5)",
    [
      "assert list(f(2)) == [0, 1]",
      "from collections import deque\nassert f(2) == deque([0, 1])",
      "assert f(3)[-1] == 2",
    ],
  ),
  (
    "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(n): return P(n, 2)",
    [
      "assert f(1).x == 1 and f(1).y == 2",
      "assert f(1) == (1, 2)",
      "assert f(1)._asdict() == {'x': 1, 'y': 2}",
      "x, y = f(3)\nassert x == 3",
      "assert str(f(1)) == 'P(x=1, y=2)'",
      "assert f(1)._replace(x=9).x == 9",
      "assert f(1) == P(1, 2)",
    ],
  ),
  (
    "from decimal import Decimal\ndef f(n): return Decimal(n) / 4",
    [
      "from decimal import Decimal\nassert f(1) == Decimal('0.25')",
      "assert f(1) == 0.25",
      "assert float(f(1)) == .25",
      "assert round(f(1), 1) == Decimal('0.2')",
    ],
  ),
  (
    "from fractions import Fraction\ndef f(n): return Fraction(n, 2)",
    [
      "assert f(1) == 0.5",
      "from fractions import Fraction\nassert f(3) == Fraction(3, 2)",
      "assert f(1).numerator == 1",
    ],
  ),
  (
    "import datetime\ndef f(n): return datetime.date(2024, 1, n)",
    [
      "import datetime\nassert f(1) == datetime.date(2024,1,1)",
      "assert f(2).isoformat() == '2024-01-02'",
      "assert f(1).year == 2024",
      "assert str(f(1)) == '2024-01-01'",
    ],
  ),
  (
    "import datetime\ndef f(n): return datetime.datetime(2024, 1, n, 5) + datetime.timedelta(1)",
    [
      "import datetime\nassert f(1) == datetime.datetime(2024,1,2,5)",
      "assert f(2) - f(1) == datetime.timedelta(days=1)",
    ],
  ),
  (
    "from dataclasses import dataclass\n@dataclass\nclass P:\n  x: int\n  def double(self): return 2 * "
    "self.x\ndef f(n): return P(n)",
    [
      "assert f(1).x == 1",
      "assert f(1) == P(1)",
      "assert f(1) != P(2)",
      "assert f(3).double() == 6",
      "assert repr(f(1)) == 'P(x=1)'",
      "assert isinstance(f(1), P)",
      "assert f(1) in [P(1)]",
    ],
  ),
  ("async def f(n): return n", ["import asyncio\nassert asyncio.run(f(1)) == 1"]),
  ("def f(xs): return sum(xs)", ["assert f(range(4)) == 6"]),
  (
    "from functools import cache\n@cache\ndef f(n): return n",
    ["assert f(1) == 1\nassert f(1) == 1\nassert f.cache_info().hits == 1"],
  ),
  ("def f(n): return ...", ["assert f(1) is ..."]),
  ("def f(n): return memoryview(b'ab')", ["assert bytes(f(1)) == b'ab'"]),
  ("def f(n): return bytearray(n)", ["assert f(2) == b'\\0\\0'"]),
  ("def f(n): return filter(None, [0, 1])", ["assert list(f(1)) == [1]"]),
  ("def f(n): return lambda x: x + n", ["assert f(2)(3) == 5", "assert callable(f(1))"]),
  (
    "class S:\n  def __init__(self): self.a = []\n  def push(self, x): self.a.append(x)\n  def pop(self): "
    "return self.a.pop()\n  def __len__(self): return len(self.a)",
    ["s = S()\ns.push(1)\ns.push(2)\nassert len(s) == 2\nassert s.pop() == 2\nassert s.a == [1]"],
  ),
  (
    "class Solution:\n  def add(self, a, b): return a + b",
    ["s = Solution()\nassert s.add(1, 2) == 3", "assert Solution().add(a=1, b=2) == 3"],
  ),
  (
    "class Node:\n  def __init__(self, v, n=None): self.val, self.next = v, n\ndef rev(h):\n  p = None\n  "
    "while h: h.next, p, h = p, h, h.next\n  return p",
    ["h = rev(Node(1, Node(2)))\nassert h.val == 2 and h.next.val == 1 and h.next.next is None"],
  ),
  (
    "import enum\nclass C(enum.Enum):\n  RED = 1\ndef f(n): return C.RED",
    ["assert f(1) == C.RED", "assert f(1).name == 'RED' and f(1).value == 1", "assert f(1) is C.RED"],
  ),
  (
    "from collections import Counter\ndef f(s): return Counter(s)",
    [
      "assert f('aab') == {'a': 2, 'b': 1}",
      "assert f('aab').most_common(1) == [('a', 2)]",
      "from collections import Counter\nassert f('a') == Counter('a')",
      "assert f('a')['z'] == 0",
    ],
  ),
  (
    "from collections import defaultdict\ndef f(s):\n  d = defaultdict(list)\n  d[s].append(1)\n  return d",
    ["assert f('a') == {'a': [1]}", "assert f('a')['z'] == []"],
  ),
  (
    "from collections import OrderedDict\ndef f(s): return OrderedDict(a=1, b=2)",
    [
      "assert f(1) == {'b': 2, 'a': 1}",
      "from collections import OrderedDict\nassert f(1) != OrderedDict(b=2, a=1)",
    ],
  ),
  (
    "def f(n): return [map(str, range(n)), {1: (x for x in 'ab')}]",
    ["a, b = f(2)\nassert list(a) == ['0', '1'] and list(b[1]) == ['a', 'b']"],
  ),
  (
    "import itertools\ndef f(n): return itertools.permutations(range(n))",
    ["assert len(list(f(3))) == 6", "assert (0, 1, 2) in f(3)"],
  ),
  ("def f(n): return reversed([1, 2, 3])", ["assert list(f(3)) == [3, 2, 1]"]),
  ("def f(n): return enumerate('ab')", ["assert list(f(3)) == [(0, 'a'), (1, 'b')]"]),
  (
    "class V:\n  def __init__(self, x): self.x = x\n  def __add__(self, o): return V(self.x + o.x)\n  def "
    "__repr__(self): return f'V({self.x})'",
    ["assert (V(1) + V(2)).x == 3", "assert str(V(1)) == 'V(1)'"],
  ),
  ("def f(n): return type(n)", ["assert f(1) is int", "assert f(1) == int"]),
  ("def f(n): return complex(1, 2), b'a', frozenset({1})", ["assert f(1) == (1+2j, b'a', {1})"]),
  (
    "def f(n): return [x for x in range(n)].__iter__()",
    [
      "assert sorted(f(3), reverse=True) == [2,1,0]",
      "a, b, c = f(3)\nassert c == 2",
      "assert list(zip(f(2), f(2))) == [(0,0),(1,1)]",
      "assert [*f(2)] == [0, 1]",
      "assert ''.join(map(str, f(3))) == '012'",
    ],
  ),
  ("def f(n): return 3", ["assert f(1) == f(1) and f"]),
  (
    "def f(n): return (c for c in 'abc')",
    ["assert ''.join(f(3)) == 'abc'", "assert set(f(1)) == {'a','b','c'}", "assert len(list(f(1))) == 3"],
  ),
  (
    "class A(str):\n  @property\n  def twice(self): return self * 2\ndef f(n): return A('x')",
    ["assert f(1) == 'x' and f(1).twice == 'xx' and f(1) + 'y' == 'xy' and ','.join([f(1)]) == 'x'"],
  ),
  (
    "import enum\nclass L(enum.IntEnum):\n  LOW = 1\ndef f(n): return L.LOW",
    ["assert f(1) == 1 and f(1).name == 'LOW' and f(1) + 1 == 2 and f(1) in (1, 2)"],
  ),
  ("def f(n): return object()", ["try:\n  f(0)\nexcept:\n  pass"]),
  ("import array\ndef f(n): return array.array('i', [1, 2])", ["assert list(f(1)) == [1, 2]"]),
  ("import types\ndef f(n): return types.SimpleNamespace(a=1)", ["assert f(1).a == 1"]),
  (
    "import pathlib\ndef f(n): return pathlib.PurePosixPath('a/b')",
    ["assert str(f(1)) == 'a/b'", "assert f(1).name == 'b'"],
  ),
]

# (program, tests, error)
NOT_RIGHT = [
  ("import re\ndef f(s): return re.search('a', s)", ["assert f('dog')"], "wrong"),
  ("import re\ndef f(s): return re.search('a', s)", ["assert f('cat').start() == 2"], "wrong"),
  ("import re\ndef f(s): return re.search('a', s)", ["assert f('cat') == True"], "wrong"),
  ("def f(n): return map(abs, range(-n, 0))", ["assert f(3) == [3,2,1]"], "wrong"),
  ("def f(n): return range(n)", ["assert f(3) == [0,1,2]"], "wrong"),
  ("from decimal import Decimal\ndef f(n): return Decimal('0.1')", ["assert f(1) == 0.1"], "wrong"),
  (
    "from dataclasses import dataclass\n@dataclass\nclass P:\n  x: int\ndef f(n): return P(n)",
    ["assert f(1) == P(2)"],
    "wrong",
  ),
  (
    "class P:\n  def __init__(self, x): self.x = x\n  def __eq__(self, o): return True\ndef f(n): return "
    "P(n)",
    ["assert f(1) == P(2)"],
    "policy",
  ),
  ("class P:\n  def __eq__(self, o): return True\ndef f(n): return P()", ["assert f(1) == 5"], "policy"),
  (
    "class P:\n  def __contains__(self, o): return True\ndef f(n): return P()",
    ["assert 5 in f(1)"],
    "policy",
  ),
  (
    "class P:\n  def __gt__(self, o): return True\n  def __lt__(self, o): return True\ndef f(n): return P()",
    ["assert f(1) > 5"],
    "policy",
  ),
  (
    "class L(list):\n  def __eq__(self, o): return True\n  x = 1\ndef f(n): return L()",
    ["assert f(1) == [5]"],
    "wrong",
  ),
  ("def f(n): return (i for i in range(n))", ["assert type(f(3)) == list"], "policy"),
  ("def f(n): return set(range(n))", ["assert type(f(3)) == list"], "wrong"),
  ("def f(n): return iter([1, 2])", ["import json\nassert json.dumps(f(1)) == '[1, 2]'"], "policy"),
  (
    "class V:\n  def __init__(self, x): self.x = x\n  def __enter__(self): return self\n  def __exit__(self, "
    "*a): pass",
    ["with V(1) as v:\n  assert v.x == 1"],
    "policy",
  ),
  (
    "class E(Exception): pass\ndef f(n): raise E('no')",
    ["try:\n  f(1)\n  assert False\nexcept E:\n  pass"],
    "policy",
  ),
  ("def f(n): return ValueError('x')", ["assert isinstance(f(1), ValueError)"], "policy"),
  ("def f(n): return object()", ["assert f(3) == 9"], "wrong"),
  (
    "import uuid\ndef f(n): return uuid.UUID(int=5)",
    ["import uuid\nassert f(1) == uuid.UUID(int=5)"],
    "policy",
  ),
]


@pytest.mark.parametrize(("program", "tests"), RIGHT, ids=lambda value: str(value)[-40:])
def test_what_tests_ask_of_an_answer_is_told(program, tests):
  assert {test: error(program, [test]) for test in tests} == dict.fromkeys(tests)


@pytest.mark.parametrize(("program", "tests", "expected"), NOT_RIGHT)
def test_what_is_not_so_or_cannot_be_told(program, tests, expected):
  assert error(program, tests) == expected
