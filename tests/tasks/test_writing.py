"""Sentences under a constraint: splits by topic, wording and kind, each kind's verdicts, figures of a run."""

import dataclasses
import itertools
import types

import numpy as np
import pytest

from o1jax.config import ArithmeticConfig, ConfigError, ConstrainedWritingConfig, MixtureConfig, Part
from o1jax.evaluate.heldout import heldout_figures
from o1jax.rollout.env import SingleTurn
from o1jax.rollout.grade import grade
from o1jax.rollout.record import property_shares
from o1jax.tasks import mixture
from o1jax.tasks.catalog import build_problems
from o1jax.tasks.constraints.writing import KINDS, OTHER_KINDS, TOPICS
from o1jax.verifiers.ifeval.constraints import bind


@pytest.fixture(scope="module")
def made():
  return build_problems(ConstrainedWritingConfig(held_out=3))


def topics(problems) -> set[str]:
  return {problem.meta["topic"] for problem in problems}


def kinds(problems) -> list[str]:
  return [problem.meta["kind"] for problem in problems]


def wordings(problems) -> set[str]:
  return {problem.prompt.partition(". ")[2] for problem in problems}


def test_topics_are_held_out_and_come_with_all_kinds(made):
  assert len(topics(made.train)) == len(TOPICS) - 3 and len(topics(made.held_out)) == 3
  assert not topics(made.train) & topics(made.held_out)
  assert [kinds(made.held_out)[i : i + 10] for i in (0, 10, 20)] == [list(KINDS)] * 3
  assert len(made.train) == (len(TOPICS) - 3) * 10 * 2 and len(wordings(made.train)) == 20
  assert wordings(made.held_out) <= wordings(made.train)


def test_other_wordings_and_kinds_are_of_held_out_topics_and_never_trained_on(made):
  assert set(made.ood) == {"wordings", "kinds"}
  for problems in made.ood.values():
    assert topics(problems) == topics(made.held_out)
    assert not wordings(problems) & wordings(made.train)
  assert set(kinds(made.ood["wordings"])) == set(KINDS) == set(kinds(made.train))
  assert set(kinds(made.ood["kinds"])) == set(OTHER_KINDS) and not set(OTHER_KINDS) & set(KINDS)


def test_every_problem_is_its_own_and_can_be_graded(made):
  problems = [*made.train, *made.held_out, *itertools.chain(*made.ood.values())]
  assert len({problem.id for problem in problems}) == len(problems)
  assert len({problem.prompt for problem in problems}) == len(problems)
  assert all(len(bind(problem)) == 1 for problem in problems)
  assert made.demonstrate is None and list(made.sft_problems) == []


def test_topics_follow_from_the_seed_and_one_is_left_to_train_on(made):
  other = build_problems(ConstrainedWritingConfig(held_out=3, split_seed=1))
  assert topics(other.held_out) != topics(made.held_out) and other.data_hash != made.data_hash
  assert build_problems(ConstrainedWritingConfig(held_out=3)).data_hash == made.data_hash
  assert len(topics(build_problems(ConstrainedWritingConfig(held_out=len(TOPICS) - 1)).train)) == 1
  with pytest.raises(ConfigError, match=rf"^task\.held_out: must be below {len(TOPICS)}, the number of "):
    build_problems(ConstrainedWritingConfig(held_out=len(TOPICS)))


def test_no_topic_stands_in_another_or_keeps_a_constraint_by_itself(made):
  assert [(a, b) for a, b in itertools.permutations(TOPICS, 2) if a in b] == []
  assert [topic for topic in TOPICS if topic.count("z") > 1 or topic in ("river", "morning", "window")] == []


ANSWERS = {  # kind -> (right, wrong)
  "no_comma": ("Chess is a game of patience.", "Chess, a game, is old."),
  "few_words": ("one two three four five six seven eight nine ten a b c d e", "one " * 16),
  "no_the": ("Chess is a game for others.", "Chess is the game."),
  "two_keywords": ("A river shines in the Morning.", "A river shines at noon."),
  "letter_z": ("Zip, a lazy size.", "A lazy size."),
  "placeholders": ("[name] met us in [place].", "[name] met us."),
  "title": ("<<Joy>> It is fun.", "<Joy> It is fun."),
  "highlight": ("It is *fun*.", "It is * fun."),
  "end_phrase": ("Chess is old. That is all.", "That is all there is."),
  "postscript": ("Chess is old. P.S. I lost.", "Chess is old. PS: I lost."),
  "question": ("Is chess old?", "Is chess old? Yes."),
  "no_and": ("Kings stand by pawns in sand.", "Kings and pawns."),
  "repeated_word": ("A window faces a window.", "A window faces a door."),
  "quotation": ('"Chess is old."', 'Chess is "old".'),
  "lowercase": ("chess is a game that people like.", "Chess is a game that people like."),
}


def test_each_kind_tells_right_from_wrong(made):
  assert set(ANSWERS) == set(KINDS) | set(OTHER_KINDS)
  problems = {problem.meta["kind"]: problem for problem in (*made.held_out, *made.ood["kinds"])}
  for kind, texts in ANSWERS.items():
    verdicts = made.verify([problems[kind]] * 2, texts)
    assert [verdict.correct for verdict in verdicts] == [True, False], kind


def test_the_topic_is_paid_for_where_it_is_asked_for_and_is_a_figure_in_any_case(made):
  paid = build_problems(ConstrainedWritingConfig(held_out=3, topic=True))
  problem = next(problem for problem in made.held_out if problem.meta["kind"] == "no_comma")
  (same,) = [other for other in paid.held_out if other.id == problem.id]
  assert same.prompt == problem.prompt and paid.data_hash != made.data_hash
  texts = [f"I like {problem.meta['topic'].upper()}.", "I like it.", f"Oh, {problem.meta['topic']}."]
  for one, expected in ((made, [True, True, False]), (paid, [True, False, False])):
    own = problem if one is made else same
    assert [verdict.correct for verdict in one.verify([own] * 3, texts)] == expected
    assert property_shares(one, [own], [texts]) == {"names_topic": pytest.approx(2 / 3)}
  figures = heldout_figures(made, "held_out", [problem], texts, *np.ones((3, 3)))
  assert figures["held_out/names_topic"] == pytest.approx(2 / 3)


def graded(must_end: frozenset[str], made):
  """Verdicts of `I` as a response that ended, and as one that was cut off."""
  tokenizer = types.SimpleNamespace(decode=lambda tokens: "".join(map(chr, tokens)))
  task = types.SimpleNamespace(tokenizer=tokenizer, verify=made.verify, must_end=must_end)
  runtime = types.SimpleNamespace(task=task, env=SingleTurn(task))
  result = grade(runtime, made.held_out[:1], [[73], [73]], np.asarray([2, 1]))
  return [(v.reward, v.correct, v.error) for v in result.verdicts[0]], result.correct.tolist()


def test_an_answer_that_is_cut_off_is_wrong_where_it_must_end(made):
  assert made.must_end == {"constrained_writing"}
  verdicts, correct = graded(made.must_end, made)
  assert verdicts == [(1.0, True, None), (0.0, False, "truncated")] and correct == [[True, False]]
  verdicts, correct = graded(frozenset(), made)
  assert verdicts == [(1.0, True, None)] * 2 and correct == [[True, True]]
  assert build_problems(ConstrainedWritingConfig(must_end=False)).must_end == frozenset()


def test_in_a_mixture_each_source_keeps_its_own(made):
  parts = (Part(ConstrainedWritingConfig(held_out=3)), Part(ArithmeticConfig(size=6, held_out=3)))
  mixed = mixture.build(MixtureConfig(parts), build_problems)
  assert mixed.must_end == {"constrained_writing"} and set(mixed.properties) == {"constrained_writing"}
  problems = [mixed.held_out[0], mixed.held_out[1]]
  assert [problem.source for problem in problems] == ["constrained_writing", "arithmetic"]
  assert property_shares(mixed, problems, [["It."], ["#### 3"]]) == {"names_topic": 0.0}
  assert property_shares(dataclasses.replace(mixed, properties={}), problems, [["It."], [""]]) == {}
