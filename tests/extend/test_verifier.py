"""What a new verifier costs: one file and one line of the catalog; `o1jax verify` and the pool know it."""

import json
import pathlib
import shutil
import subprocess
import sys

from processes import DEADLINE

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLE = pathlib.Path(__file__).with_name("palindrome.py")
LINE = '  "palindrome": Entry("o1jax.verifiers.palindrome", {"answer": ANSWER}, VerifierLimits(1.0, 10.0)),\n'
ROWS = [
  {"id": 1, "answer": "level", "completion": "level"},
  {"id": 2, "answer": "canal", "completion": "A man, a plan, a canal: Panama"},
  {"id": 3, "completion": "level"},
]
POOL = """
from o1jax.verifiers.base import Problem
from o1jax.verifiers.pool import Pool
problems = [Problem("p", "", "o", "test")] * 2
with Pool(["palindrome"], workers=1) as pool:
  print([verdict.reward for verdict in pool.verify("palindrome", problems, ["noon", "soon"])])
"""


def sources(folder: pathlib.Path) -> dict[str, list[str]]:
  """Lines of each Python file of the package in `folder`."""
  return {str(path.relative_to(folder)): path.read_text().splitlines() for path in folder.rglob("*.py")}


def run(folder: pathlib.Path, *arguments: str) -> tuple[str, str]:
  """Standard output and standard error of Python with the package that lies in `folder`."""
  given = "".join(json.dumps(row) + "\n" for row in ROWS)
  done = subprocess.run(
    [sys.executable, *arguments], cwd=folder, input=given, capture_output=True, text=True, timeout=DEADLINE
  )
  return done.stdout, done.stderr


def test_a_verifier_costs_one_file_and_one_line(tmp_path):
  shutil.copytree(ROOT / "o1jax", tmp_path / "o1jax", ignore=shutil.ignore_patterns("__pycache__"))
  before = sources(tmp_path)
  folder = tmp_path / "o1jax" / "verifiers"
  shutil.copy(EXAMPLE, folder)
  entries, end, rest = (folder / "catalog.py").read_text().rpartition("}\n")
  (folder / "catalog.py").write_text(entries + LINE + end + rest)

  command = ["-m", "o1jax", "verify", "--workers", "1", "--verifier", "palindrome"]
  for policy, rewards in (("strict", [1.0, 0.0]), ("standard", [1.0, 1.0])):
    verdicts, errors = run(tmp_path, *command, "--policy", policy)
    assert [json.loads(line)["reward"] for line in verdicts.splitlines()] == rewards
    assert "error: line 3: field 'answer' is missing" in errors
  assert run(tmp_path, "-c", POOL) == ("[1.0, 0.0]\n", "")

  after = sources(tmp_path)
  changed = {name for name, lines in after.items() if lines != before.get(name)}
  assert changed == {"o1jax/verifiers/palindrome.py", "o1jax/verifiers/catalog.py"}
  catalog = after["o1jax/verifiers/catalog.py"]
  assert len(catalog) == len(before["o1jax/verifiers/catalog.py"]) + 1
