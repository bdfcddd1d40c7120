"""A verifier of one file: a completion is to read the same in both directions, and to hold the answer."""

from collections.abc import Sequence

from o1jax.verifiers.base import UNPARSABLE, Problem, Verdict, Verify, right_or_wrong
from o1jax.verifiers.completion import Policy, check_policy, without_end_tokens, without_thoughts


def make_verify(policy: Policy = "strict") -> Verify:
  """The verifier under a policy: `standard` ignores case and all but letters."""
  check_policy(policy)

  def verify(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
    return [_verdict(problem, text, policy) for problem, text in zip(problems, completions, strict=True)]

  return verify


verify = make_verify()


def _verdict(problem: Problem, completion: str, policy: Policy) -> Verdict:
  text = without_thoughts(without_end_tokens(completion)).strip()
  if not text:
    return UNPARSABLE
  letters = "".join(filter(str.isalpha, text.lower())) if policy == "standard" else text
  return right_or_wrong(letters == letters[::-1] and problem.answer in text, text)
