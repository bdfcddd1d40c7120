"""Where in a completion its program stands, and which of several counts."""

import pytest

from o1jax.verifiers.base import Problem
from o1jax.verifiers.code import MAX_TEXT, make_verify
from o1jax.verifiers.code_extract import candidates

ADD = 'def add(a, b):\n    """Add two numbers.\n    >>> add(1, 2)\n    3\n    """\n'
CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n"
ASSERTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]
DOUBLES = [{"input": "21\n", "output": "42\n"}]

# (what is tried, completion, tests and options, error)
ROWS = [
  ("body+fence", "    return a + b\n```\n", {"tests": CHECK, "prompt": ADD, "entry_point": "add"}, None),
  (
    "body+fence wrong",
    "    return a - b\n```\n",
    {"tests": CHECK, "prompt": ADD, "entry_point": "add"},
    "wrong",
  ),
  (
    "body fence then def main",
    "    return a + b\n```\n\nExample:\n```python\nadd(1,2)\n```",
    {"tests": CHECK, "prompt": ADD, "entry_point": "add"},
    None,
  ),
  ("script dangling", "print(2 * int(input()))\n```", {"tests": DOUBLES}, None),
  ("script dangling words", "print(2 * int(input()))\n```\nThis doubles.", {"tests": DOUBLES}, None),
  (
    "script fence output",
    "```python\nprint(2 * int(input()))\n```\nOutput:\n```\n42\n```\n",
    {"tests": DOUBLES},
    None,
  ),
  (
    "script bare fences output",
    "```\nprint(2 * int(input()))\n```\nOutput:\n```\n42\n```\n",
    {"tests": DOUBLES},
    None,
  ),
  (
    "two scripts last",
    "```python\nprint(1)\n```\n```python\nprint(2 * int(input()))\n```\n",
    {"tests": DOUBLES},
    None,
  ),
  (
    "two scripts last wrong",
    "```python\nprint(2 * int(input()))\n```\n```python\nprint(1)\n```\n",
    {"tests": DOUBLES},
    "wrong",
  ),
  (
    "two scripts last broken",
    "```python\nprint(2 * int(input()))\n```\n```python\nprint(1\n```\n",
    {"tests": DOUBLES},
    "unparsable",
  ),
  (
    "last defines broken",
    "```python\ndef add(a, b):\n    return a + b\n```\n```python\ndef add(a, b)\n  return\n```\n",
    {"tests": ASSERTS},
    "unparsable",
  ),
  (
    "last defines wrong",
    "```python\ndef add(a, b):\n    return a + b\n```\n```python\ndef add(a, b):\n    return a - b\n```\n",
    {"tests": ASSERTS},
    "wrong",
  ),
  (
    "first defines wrong",
    "```python\ndef add(a, b):\n    return a - b\n```\n```python\ndef add(a, b):\n    return a + b\n```\n",
    {"tests": ASSERTS},
    None,
  ),
  (
    "usage",
    "```python\ndef add(a, b):\n    return a + b\n```\nUsage:\n```python\nprint(add(1, 2))\n```\n",
    {"tests": ASSERTS},
    None,
  ),
  (
    "usage wrong",
    "```python\ndef add(a, b):\n    return a - b\n```\nUsage:\n```python\nprint(add(1, 2))\n```\n",
    {"tests": ASSERTS},
    "wrong",
  ),
  (
    "usage untagged",
    "```\ndef add(a, b):\n    return a + b\n```\nUsage:\n```\n>>> add(1, 2)\n3\n```\n",
    {"tests": ASSERTS},
    None,
  ),
  (
    "pip block",
    "```bash\npip install x\n```\n```python\ndef add(a, b):\n    return a + b\n```\n",
    {"tests": ASSERTS},
    None,
  ),
  (
    "bash after",
    "```\ndef add(a, b):\n    return a + b\n```\n```bash\npython a.py\n```\n",
    {"tests": ASSERTS},
    None,
  ),
  (
    "tests block check",
    "```python\ndef add(a, b):\n    return a + b\n```\n```python\nassert add(1,2)==3\n```\n",
    {"tests": CHECK, "prompt": ADD, "entry_point": "add"},
    None,
  ),
  (
    "thought draft",
    "<think>```python\ndef add(a, b):\n    return a + b\n```\n</think>\n```python\ndef add(a, b):\n    "
    "return a - b\n```\n",
    {"tests": ASSERTS},
    "wrong",
  ),
  (
    "only thought",
    "<think>```python\ndef add(a, b):\n    return a + b\n```\n",
    {"tests": ASSERTS},
    "unparsable",
  ),
  (
    "only thought closed",
    "<think>```python\ndef add(a, b):\n    return a + b\n```\n</think>",
    {"tests": ASSERTS},
    "unparsable",
  ),
  (
    "only thought closed2",
    "<think>```python\ndef add(a, b):\n    return a + b\n```\n</think>\nDone.",
    {"tests": ASSERTS},
    "unparsable",
  ),
  (
    "unopened think",
    "blah\n```python\ndef add(a, b):\n    return a - b\n```\n</think>\n\n```python\ndef add(a, b):\n    "
    "return a + b\n```\n",
    {"tests": ASSERTS},
    None,
  ),
  (
    "unfenced after open fence thought",
    "<think>try\n```python\ndef add(a,b): ...\n</think>\n```python\ndef add(a, b):\n    return a + b\n```\n",
    {"tests": ASSERTS},
    None,
  ),
  ("indent 1", " ```python\n def add(a, b):\n     return a + b\n ```\n", {"tests": ASSERTS}, None),
  ("indent 2 less", "  ```python\ndef add(a, b):\n    return a + b\n  ```\n", {"tests": ASSERTS}, None),
  (
    "indent 3 numbered",
    "1. Code\n   ```python\n   def add(a, b):\n       return a + b\n   ```\n2. done",
    {"tests": ASSERTS},
    None,
  ),
  (
    "indent 4 list",
    "10. Code\n    ```python\n    def add(a, b):\n        return a + b\n    ```\n",
    {"tests": ASSERTS},
    None,
  ),
  ("tilde", "~~~python\ndef add(a, b):\n    return a + b\n~~~", {"tests": ASSERTS}, None),
  (
    "end tokens 2",
    "```python\ndef add(a, b):\n    return a + b\n```<|im_end|><|endoftext|>",
    {"tests": ASSERTS},
    None,
  ),
  (
    "eos newline",
    "```python\ndef add(a, b):\n    return a + b\n```\n<end_of_turn>\n",
    {"tests": ASSERTS},
    None,
  ),
  ("eot llama", "def add(a, b):\n    return a + b\n<|eot_id|>", {"tests": ASSERTS}, None),
  (
    "end mid",
    "```python\ndef add(a, b):\n    return a + b\n```<|im_end|>\n<|im_start|>user\nthanks",
    {"tests": ASSERTS},
    None,
  ),
  (
    "docstring fence unfenced",
    'def add(a, b):\n  """\n  ```\n  add(1, 2)\n  ```\n  """\n  return a + b\n',
    {"tests": ASSERTS},
    None,
  ),
  (
    "docstring fence fenced",
    '```python\ndef add(a, b):\n  """\n  ```\n  add(1, 2)\n  ```\n  """\n  return a + b\n```\n',
    {"tests": ASSERTS},
    None,
  ),
  (
    "List no import prompt",
    "```python\ndef f(xs: List[int]) -> int:\n  return sum(xs)\n```\n",
    {"tests": ["assert f([1,2])==3"], "prompt": "from typing import List\n\nWrite f."},
    None,
  ),
  (
    "List no import prompt code",
    "```python\ndef f(xs: List[int]) -> int:\n  return sum(xs)\n```\n",
    {
      "tests": "def check(candidate):\n  assert candidate([1,2])==3",
      "entry_point": "f",
      "prompt": 'from typing import List\n\ndef f(xs: List[int]) -> int:\n  """x"""\n',
    },
    None,
  ),
  (
    "List in prose prompt check",
    "```python\ndef f(xs: List[int]) -> int:\n  return sum(xs)\n```\n",
    {
      "tests": "def check(candidate):\n  assert candidate([1,2])==3",
      "entry_point": "f",
      "prompt": "Complete:\n```python\nfrom typing import List\n\n"
      'def f(xs: List[int]) -> int:\n  """x"""\n```\n and return it.',
    },
    None,
  ),
  (
    "math from prompt",
    "def f(x): return math.floor(x)",
    {"tests": ["assert f(1.5)==1"], "prompt": "Use `import math`.\nimport math\n"},
    None,
  ),
  (
    "first",
    "```python\ndef add(a, b):\n    return a + b\n```\n```python\ndef add(a, b):\n    return a - b\n```\n",
    {"tests": ASSERTS, "block": "first"},
    None,
  ),
  (
    "first wrong",
    "```python\ndef add(a, b):\n    return a - b\n```\n```python\ndef add(a, b):\n    return a + b\n```\n",
    {"tests": ASSERTS, "block": "first"},
    "wrong",
  ),
  (
    "first helper",
    "```python\nimport math\n```\n```python\ndef add(a, b):\n    return a + b\n```\n",
    {"tests": ASSERTS, "block": "first"},
    None,
  ),
  ("prose code", "Sure! Here it is: add(a, b) returns the sum.", {"tests": ASSERTS}, "unparsable"),
  ("dash", "---\n```python\ndef add(a, b):\n    return a + b\n```\n", {"tests": ASSERTS}, None),
  ("quoted", "> ```python\n> def add(a, b):\n>     return a + b\n> ```\n", {"tests": ASSERTS}, None),
  ("only prose+def broken", "def add(a, b): returns the sum", {"tests": ASSERTS}, "unparsable"),
]


@pytest.mark.parametrize(
  ("completion", "given", "expected"), [pytest.param(*row[1:], id=row[0]) for row in ROWS]
)
def test_which_program_counts(completion, given, expected):
  options = {name: given[name] for name in ("policy", "block") if name in given}
  meta = {name: value for name, value in given.items() if name not in ("policy", "block", "prompt")}
  problem = Problem("p", given.get("prompt", ""), "", "test", meta)
  verdict = make_verify(**options)([problem], [completion])[0]
  assert verdict.error == expected


END_TOKENS = (
  "<|im_end|> <|endoftext|> </s> <|eot_id|> <|end_of_text|> <|return|> <end_of_turn> <|EOT|> [EOS] <turn|>"
)


@pytest.mark.parametrize("token", [*END_TOKENS.split(), "<｜end▁of▁sentence｜>", "<|im_end|><|endoftext|>"])
@pytest.mark.parametrize("policy", ["strict", "standard"])
def test_end_tokens(token, policy):
  verify = make_verify(policy=policy)
  body = Problem("p", ADD, "", "test", {"tests": CHECK, "entry_point": "add"})
  asserted = Problem("p", "", "", "test", {"tests": ASSERTS})
  function = "def add(a, b):\n    return a + b\n"
  texts = ["    return a + b", f"```python\n{function}```", f"```python\n{function}", function]
  problems = [body, asserted, asserted, asserted]
  assert [verdict.error for verdict in verify(problems, [text + token for text in texts])] == [None] * 4


THOUGHTS = [
  ("<think>", "</think>"),
  ("<reasoning>", "</reasoning>"),
  ("[THINK]", "[/THINK]"),
  ("◁think▷", "◁/think▷"),
]


@pytest.mark.parametrize(("begin", "end"), THOUGHTS)
@pytest.mark.parametrize("policy", ["strict", "standard"])
def test_thoughts(begin, end, policy):
  problem = Problem("p", "", "", "test", {"tests": ASSERTS})
  wrong, right = "def add(a, b):\n  return a - b\n", "def add(a, b):\n  return a + b\n"
  texts = {
    f"{begin}Maybe\n```python\n{wrong}```\n{end}\n{right}": None,
    f"{begin}Maybe\n```python\n{right}```\n{end}\n{wrong}": "wrong",
    f"{begin}Maybe\n```python\n{wrong}\n{end}\n```python\n{right}```": None,
    f"{begin}\n{wrong}{end}\n{right}": None,
    f"{begin}Thus\n```python\n{right}```": "unparsable",
    f"{begin}Thus\n```python\n{right}```\n{end}": "unparsable",
  }
  told = make_verify(policy=policy)([problem] * len(texts), list(texts))
  assert [verdict.error for verdict in told] == list(texts.values())


@pytest.mark.parametrize(
  "line", ["```\n", "<code>\n", "> ```python\n", "x```python\n", "````markdown\n```python\n", "\xa0"]
)
def test_a_long_text_has_few_candidates(line):
  text = line * (MAX_TEXT // len(line))
  assert len(candidates(text, ["f"], "last", "standard")) <= 16
