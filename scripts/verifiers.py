"""Verdicts a second through the pool, warm, and through `o1jax verify`: what a trainer and a user can count
on.

Items are made here, each of its own text, so that nothing is answered from the cache: model-like solutions of
several sentences for gsm8k, MATH-style pairs of answers, small functions with assertions. A verifier is timed
`repeats` times after a warm-up; rates are medians. Then 10,000 items, with dying workers among them, say what
is left behind.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
LEAK_ITEMS, LEAK_BATCH = 10_000, 500

Row = dict[str, Any]


def gsm8k_row(i: int) -> Row:
  """A solution of eight sentences, right every other time."""
  steps = " ".join(f"Then {i} + {k} = {i + k} clips were sold in week {k}." for k in range(8))
  return {"answer": str(i), "completion": f"{steps}\nSo she sold {i} clips altogether.\n#### {i + i % 2}"}


_ANSWERS: Sequence[Callable[[int], tuple[str, str]]] = (
  lambda i: (rf"\frac{{{i}}}{{{i + 1}}}", rf"\dfrac{{{2 * i}}}{{{2 * i + 2}}}"),
  lambda i: (rf"{i}\sqrt{{2}}", rf"\sqrt{{{2 * i * i}}}"),
  lambda i: (f"(-{i}, {i + 1}]", f"(-{i}, {i + 1}]"),
  lambda i: (rf"\{{{i}, {i + 1}\}}", rf"\{{{i + 1}, {i}\}}"),
  lambda i: (f"x^2+{i}x", f"x(x+{i})"),
  lambda i: (f"{i}.5", rf"\frac{{{2 * i + 1}}}{{2}}"),
)


def math_row(i: int) -> Row:
  """An answer and another spelling of it, in a box behind some text."""
  gold, answer = _ANSWERS[i % len(_ANSWERS)](i + 1)
  return {
    "answer": gold,
    "completion": rf"Let us compute step by step for $n={i}$. Hence we get $\boxed{{{answer}}}$.",
  }


def code_row(i: int) -> Row:
  """A function with three assertions, right every other time."""
  body = f"def f(xs):\n  return sum(x * {i} for x in xs) + {i % 2}\n"
  tests = [f"assert f([1, 2, 3]) == {6 * i}", "assert f([]) == 0", f"assert f([5]) == {5 * i}"]
  return {"tests": tests, "completion": f"```python\n{body}```"}


ROWS: dict[str, Callable[[int], Row]] = {"gsm8k": gsm8k_row, "math": math_row, "code": code_row}
COUNTS = {"gsm8k": 8_000, "math": 600, "code": 200}  # items a repeat


def _items(name: str, start: int, count: int) -> tuple[list, list[str]]:
  """(problems, completions)."""
  from o1jax.verify_command.jsonl import parse_line

  rows = [{"id": i, **ROWS[name](i)} for i in range(start, start + count)]
  parsed = [parse_line(name, json.dumps(row).encode(), row["id"]) for row in rows]
  return [line.problem for line in parsed], [line.completion for line in parsed]


def pool_rate(name: str, workers: int, repeats: int) -> dict[str, Any]:
  """Verdicts a second of one verifier in a warm pool, and the CPU milliseconds of an item in its worker."""
  from o1jax.verifiers.pool import Pool

  count, rates = COUNTS[name], []
  with Pool([name], workers) as pool:
    pool.verify(name, *_items(name, 0, max(8, count // 10)))
    for repeat in range(1, repeats + 1):
      problems, completions = _items(name, repeat * count, count)
      began = time.perf_counter()
      pending = pool.submit(name, problems, completions)
      verdicts = pending.result()
      rates.append(count / (time.perf_counter() - began))
    cpu = [pending.graded(place).seconds for place in range(count)]
  return {
    "verdicts_per_s": statistics.median(rates), "rates": rates, "items": count,
    "cpu_ms": 1e3 * statistics.mean(cpu),
    "correct": sum(verdict.correct for verdict in verdicts),
  }  # fmt: skip


def command_rate(name: str, workers: int, repeats: int) -> dict[str, Any]:
  """Lines a second of `o1jax verify`, from its start to its end."""
  count, rates = COUNTS[name], []
  with tempfile.TemporaryFile() as given:
    given.write(b"".join(json.dumps({"id": i, **ROWS[name](i)}).encode() + b"\n" for i in range(count)))
    command = [sys.executable, "-m", "o1jax", "verify", "--verifier", name, "--workers", str(workers)]
    for _ in range(repeats):
      given.seek(0)
      began = time.perf_counter()
      subprocess.run(command, cwd=ROOT, stdin=given, stdout=subprocess.DEVNULL, check=True)
      rates.append(count / (time.perf_counter() - began))
  return {"command_lines_per_s": statistics.median(rates)}


def _left() -> dict[str, int]:
  """What this process holds: resident bytes, open files, processes below it."""
  with open("/proc/self/statm") as file:
    resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
  threads = pathlib.Path("/proc/self/task").iterdir()
  children = sum(len((thread / "children").read_text().split()) for thread in threads)
  return {"resident_bytes": resident, "open_files": len(os.listdir("/proc/self/fd")), "processes": children}


def leaks(workers: int) -> dict[str, Any]:
  """What is left of 10,000 items, in batches, with a worker killed in each, after the pool is closed."""
  import signal

  from o1jax.verifiers.pool import Pool, PoolLimits

  before = _left()
  with Pool(["gsm8k"], workers, own=PoolLimits(recycle_items=1_000, cached=1_000)) as pool:
    pool.verify("gsm8k", *_items("gsm8k", LEAK_ITEMS, 8))
    for start in range(0, LEAK_ITEMS, LEAK_BATCH):
      pending = pool.submit("gsm8k", *_items("gsm8k", start, LEAK_BATCH))
      for pid in pool.pids()[:1]:
        os.kill(pid, signal.SIGKILL)
      pending.result()
      if start == 0:
        during = _left()
    grown = _left()["resident_bytes"] - during["resident_bytes"]
    stats = pool.stats()._asdict()
  after = _left()
  left = {name: after[name] - before[name] for name in ("open_files", "processes")}
  return {"leaks": left, "resident_growth_mb": grown / 1e6, **stats}


def main(names: Sequence[str], workers: int, repeats: int) -> int:
  """A JSON line for each verifier, and one about leaks."""
  sys.path.insert(0, str(ROOT))
  for name in names:
    rates = {**pool_rate(name, workers, repeats), **command_rate(name, workers, repeats)}
    print(json.dumps({"verifier": name, "workers": workers, "repeats": repeats, **rates}), flush=True)
  print(json.dumps({"items": LEAK_ITEMS, "workers": workers, **leaks(workers)}), flush=True)
  return 0
