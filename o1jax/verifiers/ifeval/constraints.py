"""Instructions that a program can check, judged as IFEval judges them (Zhou et al. 2023, arXiv 2311.07911).

    response -> its variants under a reading -> each instruction's check on each -> followed in any -> all
    followed?

The strict reading takes the response as it is written. The loose one also tries it without its first line,
its last, or both, which often hold a greeting or a farewell, and each of these without asterisks. A blank
variant follows nothing.

End tokens that decoding has left are no part of a response, nor are its thoughts under the standard policy;
those that never close leave nothing. Under the strict one the thoughts have to follow the instructions too.

The checks are in `instructions`, where others are added; what they read of English is in `sentences` and
`language`.
"""

import functools
import json
from collections.abc import Callable, Sequence

from o1jax.verifiers.base import UNPARSABLE, Problem, Verdict, Verify, right_or_wrong
from o1jax.verifiers.completion import Policy, check_policy, in_thoughts, without_end_tokens, without_thoughts
from o1jax.verifiers.ifeval.instructions import INSTRUCTIONS, read_arguments

MAX_LENGTH = 200_000  # characters of a response that is looked at; a longer one is unparsable


def loosened(response: str) -> tuple[str, ...]:
  """The response, itself without first line, last line and both, and the same four without asterisks."""
  lines = response.split("\n")
  cut = ("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))
  kept = (response, *cut)
  return (*kept, *(text.replace("*", "") for text in kept))


Check = Callable[[str], bool]  # of one variant of a response

READINGS: dict[str, Callable[[str], tuple[str, ...]]] = {
  "strict": lambda response: (response,),
  "loose": loosened,
}


def _verify(
  reading: str, policy: Policy, problems: Sequence[Problem], completions: Sequence[str]
) -> list[Verdict]:
  pairs = zip(problems, completions, strict=True)
  return [_verdict(reading, bind(problem), _response(policy, text)) for problem, text in pairs]


def make_verify(reading: str = "strict", policy: Policy = "strict") -> Verify:
  """A verifier whose reward is 1.0 where all instructions are followed by `reading`, a name in READINGS.

  `parsed` is a JSON text of every reading, {"strict": [true, false], "loose": [true, true]}, with one entry
  an instruction; None, with the error "unparsable", of a response longer than MAX_LENGTH or with JSON nested
  too deep. The verifier raises ValueError where the lengths differ, or as `bind` does; this does where there
  is no such reading or policy.
  """
  if reading not in READINGS:
    raise ValueError(f"{reading!r} is no reading; there are {', '.join(READINGS)}")
  return functools.partial(_verify, reading, check_policy(policy))


verify = make_verify()


def bind(problem: Problem) -> list[Check]:
  """The checks of a problem's instructions, in order, with its prompt and their arguments filled in.

  Reads `meta["instruction_id_list"]` and `meta["kwargs"]`, one mapping of arguments an instruction. Raises
  ValueError naming the problem, and the instruction that does not exist or whose arguments do not fit.
  """
  names, rows = problem.meta.get("instruction_id_list"), problem.meta.get("kwargs")
  if not isinstance(names, list) or not isinstance(rows, list) or not 0 < len(names) == len(rows):
    why = "instruction_id_list and kwargs are not two lists of one length above 0"
    raise ValueError(f"problem {problem.id}: {why}")
  return [_bind_one(problem, name, row) for name, row in zip(names, rows)]


def _bind_one(problem: Problem, name: object, row: object) -> Check:
  try:
    if not isinstance(name, str) or not isinstance(row, dict):
      raise ValueError("wants a name and an object of arguments")
    arguments = read_arguments(name, row)
  except ValueError as error:
    raise ValueError(f"problem {problem.id}: instruction {name!r}: {error}") from None
  return functools.cache(functools.partial(INSTRUCTIONS[name], prompt=problem.prompt, **arguments))


def _response(policy: Policy, completion: str) -> str:
  """The response: a completion without end tokens, and under the standard policy without thoughts."""
  text = without_end_tokens(completion)
  if policy == "strict":
    return text
  if in_thoughts(text):
    return ""
  answer = without_thoughts(text)
  return text if len(answer) == len(text) else answer.lstrip()


def _verdict(reading: str, checks: Sequence[Check], response: str) -> Verdict:
  if len(response) > MAX_LENGTH:
    return UNPARSABLE
  try:
    followed = {name: _read(variants(response), checks) for name, variants in READINGS.items()}
  except (MemoryError, RecursionError):
    return UNPARSABLE
  return right_or_wrong(all(followed[reading]), json.dumps(followed))


def _read(variants: Sequence[str], checks: Sequence[Check]) -> list[bool]:
  """Which checks any variant that is not blank passes."""
  filled = [text for text in variants if text.strip()]
  return [any(map(check, filled)) for check in checks]
