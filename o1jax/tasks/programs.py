"""What tasks share whose answers are Python programs."""

import ast

from o1jax.verifiers.code import extract

_FENCE = "```"


def fenced(code: str) -> str:
  """A program as a response states it."""
  return f"{_FENCE}python\n{code}\n{_FENCE}"


def tidy(code: str) -> str:
  """A program with line feeds alone, and without spaces at the ends of lines where that leaves it what it is."""
  code = code.replace("\r\n", "\n").replace("\r", "\n").strip("\n")
  bare = "\n".join(line.rstrip() for line in code.split("\n")).strip("\n")
  try:
    same = ast.dump(ast.parse(code)) == ast.dump(ast.parse(bare))
  except (SyntaxError, ValueError):
    return code
  return bare if same else code


def parses(source: str) -> bool:
  """Whether a text is a Python program; an empty one is."""
  try:
    ast.parse(source)
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return False
  return True


def count_blocks(text: str) -> int:
  """Programs that a response states: its fenced blocks; where there is none, all of it is one, if there is anything."""
  marks = sum(line.strip().startswith(_FENCE) for line in text.splitlines())
  return (marks + 1) // 2 or int(bool(text.strip()))


def is_program(text: str) -> bool:
  """Whether what the verifier takes for a response's program is one, and not empty."""
  code = extract(text)
  return bool(code.strip()) and parses(code)
