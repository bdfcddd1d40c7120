"""The house rules that a program can check: who may import whom, and how long things may be."""

import ast
import collections
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Each layer imports from those above it alone. Peers within a layer keep apart, but for types and config.
LAYERS = (
  ("types", "config"),
  ("model", "parallel", "verifiers", "scaling"),
  ("io",),
  ("rl", "tasks"),
  ("rollout",),
  ("reasoning",),
  ("evaluate",),
  ("train",),
  ("sweep", "plan", "suspects", "convert"),
  ("cli", "__main__"),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
# Packages beside the stack, and all that they may import; cli alone imports them.
BESIDE = {"verify_command": {"types", "config", "verifiers"}}
PEERS_ALLOWED = {("config", "types"), ("types", "config"), ("__main__", "cli")}
FORBIDDEN = [("rl", "o1jax.io")]
FORBIDDEN += [(package, "jax") for package in ("verifiers", "verify_command", "scaling")]
OUTSIDE_WORLD = ("os", "pathlib", "shutil", "subprocess", "tempfile", "time", "datetime", "argparse", "tyro")
FORBIDDEN += [(package, module) for package in ("model", "rl", "scaling") for module in OUTSIDE_WORLD]

# Names that no reader would search for; the field's term stands in their place.
BANNED = set("told seen gave held whole some few found took asked wanted drawn instead".split())
BOUND_LAMBDAS = 4
FOLDER_FILES = 20

FILE_LINES = 400
FUNCTION_LINES = 60
NESTING = 3


def _package(path: pathlib.PurePath) -> str:
  """The part of o1jax that a file belongs to: `rl` for o1jax/rl/learner.py, `train` for o1jax/train.py."""
  return path.parts[1].removesuffix(".py")


def _imports(path: pathlib.PurePath, tree: ast.AST) -> Iterator[str]:
  """Absolute dotted names of all that a file imports, inside functions too."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
      above = list(path.parent.parts[: len(path.parent.parts) - node.level + 1]) if node.level else []
      base = ".".join([*above, *([node.module] if node.module else [])])
      yield from (f"{base}.{alias.name}" for alias in node.names)


def _within(name: str, module: str) -> bool:
  return name == module or name.startswith(module + ".")


def import_faults(path: pathlib.PurePath, source: str) -> list[str]:
  """What a file of o1jax imports against the rule, as readable lines. `path` is relative to the project."""
  package = _package(path)
  names = sorted(set(_imports(path, ast.parse(source))))
  if package == "__init__":
    return [f"{path} imports {name}" for name in names]
  if package not in RANK and package not in BESIDE:
    return [f"{path} is in no layer"]
  faults = [f"{path} imports {n}" for who, m in FORBIDDEN for n in names if who == package and _within(n, m)]
  for name in names:
    if not name.startswith("o1jax."):
      continue
    other = name.split(".")[1]
    if other == package or (package, other) in PEERS_ALLOWED:
      continue
    if package in BESIDE:
      allowed = other in BESIDE[package]
    elif other in BESIDE:
      allowed = package == "cli"
    else:
      allowed = RANK.get(other, len(LAYERS)) < RANK[package]
    if not allowed:
      faults.append(f"{path} imports {name}")
  return faults


def experiment_faults(path: pathlib.PurePath, source: str) -> list[str]:
  """An experiment knows o1jax.config alone."""
  names = [name for name in _imports(path, ast.parse(source)) if _within(name, "o1jax")]
  return [f"{path} imports {name}" for name in names if not _within(name, "o1jax.config")]


_BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def _nesting(node: ast.AST, level: int = 0) -> int:
  """Depth of the deepest block below `node`.

  An elif stands beside its if; inner functions count for themselves.
  """
  deepest = level
  for child in ast.iter_child_nodes(node):
    if isinstance(child, _FUNCTIONS):
      continue
    is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
    deepest = max(deepest, _nesting(child, level + (isinstance(child, _BLOCKS) and not is_elif)))
  return deepest


def size_faults(path: pathlib.PurePath, source: str) -> list[str]:
  """Files and functions that are too long, and blocks that nest too deep."""
  lines = len(source.splitlines())
  faults = [f"{path} has {lines} lines"] if lines > FILE_LINES else []
  for node in ast.walk(ast.parse(source)):
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
      continue
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    if length > FUNCTION_LINES and node.name != "main":
      faults.append(f"{path}:{node.lineno} {node.name} has {length} lines")
    if _nesting(node) > NESTING:
      faults.append(f"{path}:{node.lineno} {node.name} nests {_nesting(node)} deep")
  return faults


def language_faults(path: pathlib.PurePath, source: str) -> list[str]:
  """Banned names, flows hidden in lambdas or behind booleans, functions that only discard their arguments."""
  nodes = list(ast.walk(ast.parse(source)))
  stored = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
  names = BANNED & {*stored, *(node.arg for node in nodes if isinstance(node, ast.arg))}
  faults = [f"{path} names something {name!r}" for name in sorted(names)]
  bound = sum(isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda) for node in nodes)
  faults += [f"{path} binds {bound} lambdas to names"] if bound > BOUND_LAMBDAS else []
  for node in nodes:
    if isinstance(node, ast.Dict) and any(_is_bool(key) for key in node.keys):
      faults.append(f"{path}:{node.lineno} is a dict keyed by booleans")
    if isinstance(node, ast.FunctionDef) and _discards(node):
      faults.append(f"{path}:{node.lineno} {node.name} only discards its arguments: None says absence")
  return faults


def _is_bool(key: ast.expr | None) -> bool:
  return isinstance(key, ast.Constant) and isinstance(key.value, bool)


def _discards(function: ast.FunctionDef) -> bool:
  kinds = {type(node) for node in function.body}
  return ast.Delete in kinds and kinds <= {ast.Delete, ast.Expr, ast.Return} and len(function.body) <= 3


def class_faults(sources: list[tuple[pathlib.PurePath, str]]) -> list[str]:
  """Class names that stand for two things in the package."""
  places: dict[str, list[str]] = {}
  for path, source in sources:
    for node in ast.walk(ast.parse(source)):
      if isinstance(node, ast.ClassDef):
        places.setdefault(node.name, []).append(f"{path}:{node.lineno}")
  return [f"class {name}: {', '.join(where)}" for name, where in sorted(places.items()) if len(where) > 1]


def _sources(folder: str) -> list[tuple[pathlib.PurePath, str]]:
  paths = sorted((ROOT / folder).rglob("*.py"))
  return [(path.relative_to(ROOT), path.read_text(encoding="utf-8")) for path in paths]


def test_each_layer_imports_from_those_above_it_alone():
  sources = _sources("o1jax")
  assert len(sources) > 10
  assert [fault for path, source in sources for fault in import_faults(path, source)] == []


def test_experiments_import_the_configuration_alone():
  assert [
    fault for path, source in _sources("experiments") for fault in experiment_faults(path, source)
  ] == []


def test_names_and_flow_are_plain():
  assert [fault for path, source in _sources("o1jax") for fault in language_faults(path, source)] == []


def test_a_class_name_stands_for_one_thing():
  assert class_faults(_sources("o1jax")) == []


def test_a_folder_has_few_files():
  counts = collections.Counter(path.parent for path, _ in _sources("o1jax"))
  assert {str(folder): count for folder, count in counts.items() if count > FOLDER_FILES} == {}


def test_files_functions_and_nesting_keep_to_their_limits():
  sources = [pair for folder in ("o1jax", "experiments", "scripts", "tests") for pair in _sources(folder)]
  assert [fault for path, source in sources for fault in size_faults(path, source)] == []


@pytest.mark.parametrize(
  ("path", "source"),
  [
    ("o1jax/rl/x.py", "from o1jax.io.log import RunLog"),
    ("o1jax/rl/x.py", "from o1jax.tasks import base"),
    ("o1jax/rl/x.py", "import time"),
    ("o1jax/model/x.py", "def f():\n  from o1jax.train import train"),
    ("o1jax/model/x.py", "import o1jax.parallel.mesh"),
    ("o1jax/scaling/x.py", "import jax.numpy as jnp"),
    ("o1jax/verifiers/x.py", "from jax import numpy"),
    ("o1jax/io/x.py", "from ..rl import sampler"),
    ("o1jax/config.py", "from o1jax.io import log"),
    ("o1jax/evaluate/x.py", "from o1jax import cli"),
    ("o1jax/__init__.py", "import jax"),
    ("o1jax/helpers/x.py", ""),
    ("o1jax/verify_command/x.py", "from o1jax.io import log"),
    ("o1jax/evaluate/x.py", "from o1jax.verify_command import grade"),
  ],
)
def test_a_forbidden_import_is_found(path, source):
  assert import_faults(pathlib.PurePath(path), source) != []


@pytest.mark.parametrize(
  ("path", "source"),
  [
    ("o1jax/rl/x.py", "from o1jax.types import Rollout\nfrom o1jax.rl import sampler\nimport jax"),
    ("o1jax/tasks/x.py", "from o1jax.io import data\nfrom o1jax.verifiers.base import Problem"),
    ("o1jax/io/x.py", "import os\nfrom . import log"),
    ("o1jax/__main__.py", "from o1jax.cli import main"),
    ("o1jax/verify_command/x.py", "from o1jax.verifiers.pool import Pool\nfrom o1jax.config import require"),
    ("o1jax/cli.py", "from o1jax.verify_command.grade import verify_stream"),
  ],
)
def test_an_allowed_import_is_not(path, source):
  assert import_faults(pathlib.PurePath(path), source) == []


def test_an_experiment_that_imports_more_is_found():
  path = pathlib.PurePath("experiments/x.py")
  assert experiment_faults(path, "from o1jax.config import TrainConfig") == []
  assert experiment_faults(path, "from o1jax.train import train") != []


def test_what_is_too_long_or_too_deep_is_found():
  path = pathlib.PurePath("o1jax/x.py")
  assert size_faults(path, "x = 1\n" * FILE_LINES) == []
  assert size_faults(path, "x = 1\n" * (FILE_LINES + 1)) != []
  assert size_faults(path, "def f():\n" + "  x = 1\n" * (FUNCTION_LINES - 1)) == []
  assert size_faults(path, "def f():\n" + "  x = 1\n" * FUNCTION_LINES) != []
  nested = ["def f():", *(" " * depth + "if x:" for depth in range(1, NESTING + 1))]
  assert size_faults(path, "\n".join([*nested, " " * (NESTING + 1) + "y"])) == []
  assert size_faults(path, "\n".join([*nested, " " * 4 + "if x:", " " * 5 + "y"])) != []


@pytest.mark.parametrize(
  "source",
  [
    "told = 1",
    "def f(seen): return seen",
    "TABLE = {True: 1, False: 2}",
    "def f(a, b):\n  del b\n  return a",
    "\n".join(f"f{n} = lambda x: x + {n}" for n in range(BOUND_LAMBDAS + 1)),
  ],
)
def test_a_hidden_flow_is_found(source):
  assert len(language_faults(pathlib.PurePath("o1jax/x.py"), source)) == 1
  assert language_faults(pathlib.PurePath("o1jax/x.py"), "rows = [1]\nf = lambda x: x") == []


def test_a_class_that_stands_twice_is_found():
  one, two = ((pathlib.PurePath(f"o1jax/{name}.py"), "class Row: pass") for name in "ab")
  assert class_faults([one]) == [] and len(class_faults([one, two])) == 1
