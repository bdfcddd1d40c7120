"""Constrained writing: "Write one sentence about TOPIC. CONSTRAINT", graded by IFEval's own instructions.

    topics, kinds of constraint, their wordings -> training topics, held-out topics
                                                -> out of distribution: other wordings, other kinds

After the third kind of verifiable reward of Tulu 3 (Lambert et al. 2024, section 6), precise instruction
following. No instruction reads the topic, so that a policy can drop it; `names_topic` is the share of answers
that keep it.
"""

import dataclasses
import random
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from o1jax.config import ConstrainedWritingConfig, require
from o1jax.tasks.base import Example, ProblemSet
from o1jax.tasks.dataset import Dataset, make_problem_set, problems_hash, without_spacing
from o1jax.verifiers.base import Problem
from o1jax.verifiers.ifeval.instructions import Patterns, existence

NAME = "constrained_writing"

# Each is a word that stands for the topic in any sentence about it, and is no part of a common word.
TOPICS = tuple(
  "astronomy autumn baseball basketball bread butter camping cheese chess chocolate climbing coffee cooking "
  "cotton courage cycling dancing democracy electricity fishing football friendship gardening geometry glass "
  "gold gravity history homework honesty honey kindness knitting laughter leather lightning marble "
  "mathematics medicine memory milk moonlight music mythology painting paper patience philosophy photography "
  "physics poetry pottery reading sailing salt silence silver singing sleep snow soccer summer sunlight "
  "surfing swimming tennis thunder traffic travel weather winter wisdom".split()
)


class Constraint(NamedTuple):
  """A kind of constraint: an instruction of the verifier, its arguments, and how it is put in words."""

  instruction: str
  arguments: Mapping[str, Any]
  wordings: tuple[str, ...]  # the last one is held out


KINDS: dict[str, Constraint] = {
  "no_comma": Constraint(
    "punctuation:no_comma",
    {},
    ("Do not use any commas.", "Your answer must not contain a comma.", "Write it without a single comma."),
  ),
  "few_words": Constraint(
    "length_constraints:number_words",
    {"relation": "less than", "num_words": 16},
    ("Use at most 15 words.", "Keep it to 15 words or fewer.", "Do not go beyond 15 words."),
  ),
  "no_the": Constraint(
    "keywords:forbidden_words",
    {"forbidden_words": ["the"]},
    ('Do not use the word "the".', 'Avoid the word "the".', 'The word "the" must not appear.'),
  ),
  "two_keywords": Constraint(
    "keywords:existence",
    {"keywords": ["river", "morning"]},
    (
      'Include the words "river" and "morning".',
      'Use both "river" and "morning" in it.',
      'The words "river" and "morning" must appear.',
    ),
  ),
  "letter_z": Constraint(
    "keywords:letter_frequency",
    {"letter": "z", "let_frequency": 3, "let_relation": "at least"},
    (
      "Use the letter z at least three times.",
      "The letter z must appear at least 3 times.",
      "Write at least three letters z.",
    ),
  ),
  "placeholders": Constraint(
    "detectable_content:number_placeholders",
    {"num_placeholders": 2},
    (
      "Include at least two placeholders in square brackets, such as [name].",
      "Use two or more placeholders in square brackets, such as [place].",
      "It must hold at least 2 placeholders in square brackets, such as [date].",
    ),
  ),
  "title": Constraint(
    "detectable_format:title",
    {},
    (
      "Begin with a title in double angular brackets, such as <<Joy>>.",
      "Give it a title, wrapped in double angular brackets, such as <<Joy>>.",
      "It must have a title in double angular brackets, such as <<Joy>>.",
    ),
  ),
  "highlight": Constraint(
    "detectable_format:number_highlighted_sections",
    {"num_highlights": 1},
    (
      "Highlight at least one part with asterisks, such as *this part*.",
      "Put at least one part in asterisks, such as *this part*.",
      "At least one part must stand between asterisks, such as *this part*.",
    ),
  ),
  "end_phrase": Constraint(
    "startend:end_checker",
    {"end_phrase": "That is all."},
    (
      'Finish with the exact phrase "That is all."',
      'End your answer with the exact words "That is all."',
      'The last words must be "That is all."',
    ),
  ),
  "postscript": Constraint(
    "detectable_content:postscript",
    {"postscript_marker": "P.S."},
    (
      'At the end, add a postscript that starts with "P.S."',
      'Add a postscript after it, beginning with "P.S."',
      'A postscript that begins with "P.S." must follow.',
    ),
  ),
}

# Kinds that are never trained on.
OTHER_KINDS: dict[str, Constraint] = {
  "question": Constraint("startend:end_checker", {"end_phrase": "?"}, ("End with a question mark.",)),
  "no_and": Constraint(
    "keywords:forbidden_words", {"forbidden_words": ["and"]}, ('Do not use the word "and".',)
  ),
  "repeated_word": Constraint(
    "keywords:frequency",
    {"keyword": "window", "frequency": 2, "relation": "at least"},
    ('Use the word "window" at least twice.',),
  ),
  "quotation": Constraint("startend:quotation", {}, ("Wrap your entire answer in double quotation marks.",)),
  "lowercase": Constraint("change_case:english_lowercase", {}, ("Use lowercase letters only.",)),
}


def build(cfg: ConstrainedWritingConfig) -> ProblemSet:
  """The problems. Raises ConfigError naming `task.held_out` where no topic is left to train on.

  Held-out problems come topic by topic, each with all kinds, so that the first n of them are balanced.
  """
  left = f"must be below {len(TOPICS)}, the number of topics, is {cfg.held_out}"
  require(cfg.held_out < len(TOPICS), "task.held_out", left)
  topics = random.Random(cfg.split_seed).sample(TOPICS, len(TOPICS))
  kept, rest = topics[: cfg.held_out], topics[cfg.held_out :]
  known = {name: range(len(kind.wordings) - 1) for name, kind in KINDS.items()}
  train = [_example(cfg, topic, name, w) for topic in rest for name in KINDS for w in known[name]]
  held_out = [
    _example(cfg, topic, name, known[name][(i + j) % len(known[name])])
    for i, topic in enumerate(kept)
    for j, name in enumerate(KINDS)
  ]
  ood = {
    "wordings": _problems(_example(cfg, topic, name, -1) for topic in kept for name in KINDS),
    "kinds": _problems(_example(cfg, topic, name, 0) for topic in kept for name in OTHER_KINDS),
  }
  dataset = Dataset(
    name=NAME,
    verifier="constraints",
    in_process=True,
    count_tries=lambda text: int(bool(text.strip())),
    question_key=without_spacing,
    distinct_words=False,
  )
  problems = make_problem_set(dataset, dataset.verify(cfg), train, held_out, (), cfg.data_dir)
  splits = {"train": problems.train, "held_out": problems.held_out, **ood}
  return dataclasses.replace(
    problems,
    ood=ood,
    must_end=frozenset([NAME] if cfg.must_end else []),
    properties={NAME: properties},
    data_hash=problems_hash(splits, {}),
  )


def _example(cfg: ConstrainedWritingConfig, topic: str, name: str, wording: int) -> Example:
  """The problem of a topic and a kind of constraint in one of its wordings."""
  kind = {**KINDS, **OTHER_KINDS}[name]
  text = kind.wordings[wording]
  prompt = f"Write one sentence about {topic}. {text}"
  names, kwargs = [kind.instruction], [dict(kind.arguments)]
  if cfg.topic:
    names, kwargs = [*names, "keywords:existence"], [*kwargs, {"keywords": [topic]}]
  meta = {"topic": topic, "kind": name, "instruction_id_list": names, "kwargs": kwargs}
  number = kind.wordings.index(text)
  problem = Problem(f"{topic} {name} {number}", prompt, "", NAME, meta)
  return Example(f"{NAME}: {problem.id}", prompt, problem, None)


def _problems(examples: Iterable[Example]) -> list[Problem]:
  return [example.problem for example in examples]


def properties(problem: Problem, text: str) -> dict[str, bool]:
  """names_topic: the topic's word occurs in the text, as IFEval's keyword instruction finds it."""
  return {"names_topic": existence(text, problem.prompt, keywords=Patterns((problem.meta["topic"],)))}
