r"""Answers of MATH and AIME style, read off a completion and compared with the gold one by math-verify.

    completion -> behind its thoughts -> first extractor with an answer -> one distinct answer -> gold?

math-verify reads and compares. `extract` says where answers are stated, `text` and `units` take off their
dress, `read` and `equal` veto what would be read or compared too kindly.

Under the policy `strict` several different answers are a hedge, and wrong: two boxes, `3 or 4`, a value that
`or` joins to the box, another value declared behind it; so is an answer that is taken back (`\boxed{5} is
wrong`). Under `standard` the last box counts, or the last answer of another kind. Under both the same value
twice is one answer, as is a chain `x = 2/4 = 1/2`; boxes that only `and` parts are a list, as are those with
words between them in the order of a gold list (strict); a placeholder (`\boxed{answer}`) is no answer.

Left out: whether an answer is simplified (`\sqrt{4}` is 2), numbers in words, and sums, integrals, limits
and congruences, which are only compared as text.
"""

import contextlib
import re
from collections.abc import Sequence

import sympy

from o1jax.verifiers.base import UNPARSABLE, Problem, Verdict, Verify, right_or_wrong
from o1jax.verifiers.completion import Policy, check_policy, taken_back
from o1jax.verifiers.math.equal import IncomparableError, entries, equal, same
from o1jax.verifiers.math.extract import DEFAULT_ORDER, EXTRACTORS, Stated, boxed, final_part, joined, stated
from o1jax.verifiers.math.read import Answer, Formula, Words, read
from o1jax.verifiers.math.text import UnreadableError

MARK = "####"  # before a gold answer at the end of its worked solution, as GSM8K has it

_HEDGE = right_or_wrong(False, None)
# `The answer is consistent with $5 + 1 = 6$`: maths that checks an answer is none.
_CHECK = re.compile(
  r"(?i)(?:correct|right|valid|consistent|reasonable|verified|confirmed|checked|accurate|supported"
  r"|justified)\b"
)


def make_verify(extractors: Sequence[str] = DEFAULT_ORDER, policy: Policy = "strict") -> Verify:
  """The verifier that asks the named extractors in this order, and takes the first that finds an answer.

  Raises ValueError where there are none, one has no such name, or the policy is none.
  """
  check_policy(policy)
  order = tuple(extractors)
  unknown = [name for name in order if name not in EXTRACTORS]
  if unknown or not order:
    raise ValueError(f"extractors: {unknown or 'none'}, of {list(EXTRACTORS)}")

  def verify(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
    """Judges completions[i] against problems[i].answer, 1.0 or 0.0; see the module.

    `parsed` is a number in lowest terms, other answers as they are written but for their dress.
    Raises ValueError where the lengths differ, or naming the problem whose gold answer cannot be read.
    """
    rows = zip(problems, completions, strict=True)
    return [_verdict(problem, final_part(text), order, policy) for problem, text in rows]

  return verify


verify = make_verify()


def _verdict(problem: Problem, text: str, order: Sequence[str], policy: Policy) -> Verdict:
  gold = _gold(problem)
  declared, behind = stated(text, order)
  if not declared:
    return UNPARSABLE
  if policy == "standard":
    group = joined(text, declared)[-1] if text.startswith("\\", declared[-1].start) else declared[-1:]
    declared, behind = [declared[-1]._replace(text=", ".join(part.text for part in group))], []
  elif taken_back(text, declared[-1].end):
    return _HEDGE
  try:
    readings = [read(answer.text) for answer in declared]
    answers = list(dict.fromkeys(readings + _values(behind)))
    if not all(same(answers[-1], other) or same(other, answers[-1]) for other in answers[:-1]):
      return right_or_wrong(True, gold.shown()) if _are_parts(gold, answers, text, declared) else _HEDGE
    correct = all(same(gold, answer) for answer in readings)
  except (UnreadableError, IncomparableError):
    return UNPARSABLE
  if not correct and readings[-1].form is None:
    return UNPARSABLE
  return right_or_wrong(correct, readings[-1].shown())


def _are_parts(gold: Answer, answers: Sequence[Answer], text: str, declared: Sequence[Stated]) -> bool:
  """Whether different answers are the entries of a gold list; one that holds it all contradicts the others.

  Those with more between them than `and` may be kept apart by words: they stand in the order of the gold
  answer.
  """
  is_words = isinstance(gold.form, Words) and len(gold.form.items) > 1
  value = gold.form.value if isinstance(gold.form, Formula) else None
  gold_entries = entries(value) if isinstance(value, sympy.FiniteSet) else ()
  if not is_words and len(gold_entries) < 2 or any(same(gold, answer) for answer in answers):
    return False
  if is_words or len(joined(text, declared)) == 1 < len(declared):
    return same(gold, read(", ".join(answer.text for answer in answers)))
  values = [answer.form.value for answer in answers if isinstance(answer.form, Formula)]
  return len(gold_entries) == len(answers) == len(values) and all(map(equal, gold_entries, values))


def _gold(problem: Problem) -> Answer:
  """The gold answer: its last boxes that only `and` parts, if there are any, else what follows `####`."""
  boxes = boxed(problem.answer)
  texts = dict.fromkeys(box.text for box in joined(problem.answer, boxes)[-1]) if boxes else ()
  try:
    return read(", ".join(texts) if boxes else problem.answer.rpartition(MARK)[2])
  except UnreadableError as error:
    raise ValueError(f"problem {problem.id}: the gold answer {problem.answer[:80]!r} {error}") from error


def _values(behind: Sequence[Stated]) -> list[Answer]:
  """Those that are no remarks: `The answer is positive.` behind a box is one, `The answer is B.` is not."""
  answers = []
  for other in behind:
    with contextlib.suppress(UnreadableError):
      answer = read(other.text)
      worded = isinstance(answer.form, Words) and any(len(item) > 1 for item in answer.form.items)
      answers += [] if answer.form is None or worded or _CHECK.match(other.text) else [answer]
  return answers
