"""The judge on the device against a plain forward pass, and what its opinions may depend on."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import ConfigError, MeshConfig, ModelConfig
from o1jax.io.tokenizer import EOS, SentencePieceTokenizer, train_text_tokenizer, train_tokenizer
from o1jax.model.transformer import Decoder, init_params
from o1jax.parallel.mesh import make_mesh
from o1jax.reasoning import generative_verifier as device
from o1jax.reasoning.generative_verifier import OnDevice, make_sample, make_score
from o1jax.rl.draw import stream_key
from o1jax.verifiers.base import Problem
from o1jax.verifiers.judge import judge as asking
from o1jax.verifiers.judge.judge import Opinion

pytestmark = pytest.mark.full

TEXT = [
  "Is the answer correct (Yes/No)? Yes",
  "Is the answer correct (Yes/No)? No",
  "yes no YES Yes No 0 1 2 3 4",
] * 20
PROMPTS = [f"Problem: {i} + {i}?\nSolution: {2 * i}{'.' * (i % 5)}\n{asking.QUESTION}" for i in range(7)]
LONG = PROMPTS[3].replace(
  "Solution", "Solution and much more than that, so that it needs a wider chunk than others,"
)
STOPS = (EOS, *range(40, 60))  # so that an untrained model stops now and then


@pytest.fixture(scope="module")
def tokenizer():
  return train_text_tokenizer(TEXT, vocab_size=330)


@pytest.fixture(scope="module")
def judge(tokenizer) -> OnDevice:
  cfg = ModelConfig(
    width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=64, vocab=tokenizer.vocab_size + 5
  )
  return OnDevice(Decoder(cfg), tokenizer, max_prompt=256, rows=4)


@pytest.fixture(scope="module")
def params(judge):
  fresh = nn.meta.unbox(jax.jit(functools.partial(init_params, judge.model))(jax.random.key(0)))
  return jax.tree.map(lambda p: p * 1.5, fresh)  # further from uniform


@functools.partial(jax.jit, static_argnames="model")
def logits_behind(params, tokens, *, model):
  """f32[V] behind unpadded tokens i32[T]."""
  segment, position = jnp.ones_like(tokens)[None], jnp.arange(tokens.shape[0])[None]
  hidden, _ = model.apply({"params": params}, tokens[None], segment, position)
  return model.apply({"params": params}, hidden[0, -1], method="head")


def by_hand(judge: OnDevice, params, prompt: str) -> float:
  """The softmax of an unpadded forward pass, summed in numpy over the tokens that read Yes."""
  tokens = jnp.asarray(judge.tokenizer.encode(prompt))
  logits = np.asarray(logits_behind(params, tokens, model=judge.model), np.float64)
  shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
  reads_yes = [
    t for t in range(judge.tokenizer.vocab_size) if judge.tokenizer.decode([t]).strip().lower() == "yes"
  ]
  return float(shares[reads_yes].sum())


def test_p_yes_is_the_softmax_of_a_plain_forward_pass(judge, params) -> None:
  prompts = [*PROMPTS, LONG]
  assert len(judge.tokenizer.encode(PROMPTS[0])) <= 64 < len(judge.tokenizer.encode(LONG)) <= 256
  opinions = make_score(params, judge)(prompts)
  expected = [by_hand(judge, params, prompt) for prompt in prompts]
  np.testing.assert_allclose([o.reward for o in opinions], expected, rtol=1e-5)
  assert len({round(p, 6) for p in expected}) > 4 and all(0 < p < 1 for p in expected)
  assert [o.error for o in opinions] == [None] * 8
  assert opinions[0].said == f"P(Yes) {expected[0]:.4f}"


def test_several_tokens_read_yes_and_each_counts(judge) -> None:
  pieces = [judge.tokenizer.decode([t]) for t in np.flatnonzero(device.yes_tokens(judge))]
  assert {" Yes", "yes"} <= set(pieces) and {piece.strip().lower() for piece in pieces} == {"yes"}
  assert device.yes_tokens(judge).shape == (judge.model.cfg.vocab,)


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_an_opinion_does_not_depend_on_chunk_order_or_company(judge, params, rows) -> None:
  prompts = [*PROMPTS, LONG]
  base = [o.reward for o in make_score(params, judge)(prompts)]
  score = make_score(params, dataclasses.replace(judge, rows=rows))
  np.testing.assert_allclose([o.reward for o in score(prompts[::-1])][::-1], base, rtol=1e-5)
  np.testing.assert_allclose([o.reward for o in score(prompts[2:5])], base[2:5], rtol=1e-5)


def test_an_opinion_does_not_depend_on_padding(judge, params) -> None:
  narrow = make_score(params, dataclasses.replace(judge, max_prompt=64))(PROMPTS)
  wide = make_score(params, dataclasses.replace(judge, max_prompt=50))(PROMPTS)
  assert [o.error for o in (*narrow, *wide)] == [None] * 14
  np.testing.assert_allclose([o.reward for o in narrow], [o.reward for o in wide], rtol=1e-5)


def test_rows_are_spread_over_a_mesh(judge, params) -> None:
  mesh = make_mesh(MeshConfig())
  spread = dataclasses.replace(judge, rows=8, mesh=mesh)
  base, several = make_score(params, judge)(PROMPTS), make_score(params, spread)(PROMPTS)
  np.testing.assert_allclose([o.reward for o in several], [o.reward for o in base], rtol=1e-5)
  (_, batch), *_ = device.chunks(spread, PROMPTS)
  assert len(batch.tokens.sharding.device_set) == 8


def test_few_programs_serve_all_prompts(judge, params) -> None:
  score = make_score(params, judge)
  score([PROMPTS[0], LONG])
  before = device.p_yes._cache_size()
  for count in range(1, 8):
    score([*PROMPTS[:count], LONG])
  assert device.p_yes._cache_size() == before


@pytest.mark.parametrize(
  ("longest", "sizes"),
  [(1, [1]), (64, [64]), (65, [64, 65]), (200, [64, 128, 200]), (512, [64, 128, 256, 512])],
)
def test_widths_double_up_to_the_longest(longest, sizes) -> None:
  assert device.widths(longest) == sizes


def test_a_prompt_that_does_not_fit_is_not_judged_and_the_others_are(judge, params) -> None:
  small = dataclasses.replace(judge, max_prompt=60)
  options = {"votes": 2, "max_tokens": 4, "stop_tokens": STOPS, "temperature": 1.0}
  opinions = make_score(params, small)([PROMPTS[0], LONG, "", PROMPTS[1]])
  assert [o.error for o in opinions] == [None, "unparsable", "unparsable", None]
  drawn = make_sample(params, small, stream_key(0, "judge", 1), **options)([PROMPTS[0], LONG, "", PROMPTS[1]])
  assert [len(some) for some in drawn] == [2, 0, 0, 2]
  assert asking.count_votes(drawn[1]) == Opinion(None, "unparsable")


# Rationales


def sampler(params, judge, *, step=1, **options):
  given = {"votes": 3, "max_tokens": 20, "stop_tokens": STOPS, "temperature": 1.0, **options}
  return make_sample(params, judge, stream_key(0, "judge", step), **given)


def test_rationales_are_reproduced_bit_for_bit_whatever_else_is_asked(judge, params) -> None:
  prompts = [*PROMPTS, LONG]
  base = sampler(params, judge)(prompts)
  assert sampler(params, judge)(prompts) == base
  assert sampler(params, judge)(prompts[::-1]) == base[::-1]
  assert sampler(params, judge)([*prompts[3:6], prompts[3]]) == [*base[3:6], base[3]]
  assert sampler(params, dataclasses.replace(judge, rows=8))(prompts) == base
  assert len({r.text for some in base for r in some}) > 20


def test_other_steps_and_votes_have_other_noise(judge, params) -> None:
  base = sampler(params, judge)(PROMPTS)
  again = sampler(params, judge, step=2)(PROMPTS)
  texts = lambda drawn: {r.text for some in drawn for r in some if len(r.text) > 3}
  assert len(texts(base)) > 5 and not texts(base) & texts(again)
  more = sampler(params, judge, votes=5)(PROMPTS)
  assert [some[:3] for some in more] == base  # the first votes stay what they were


def test_rationales_end_where_they_stop(judge, params) -> None:
  drawn = [r for some in sampler(params, judge)(PROMPTS) for r in some]
  assert {r.finished for r in drawn} == {True, False}
  full = [len(judge.tokenizer.encode(r.text)) for r in drawn if not r.finished]
  assert full and all(r.error is None for r in drawn)
  (likeliest,) = sampler(params, judge, votes=1, temperature=0.0)(PROMPTS[:1])
  assert likeliest == sampler(params, judge, votes=1, temperature=0.0, step=2)(PROMPTS[:1])[0]


class Voting(SentencePieceTokenizer):
  """Reads a response of several tokens as a verdict: Yes where their sum is odd."""

  def decode(self, ids):
    ids = list(ids)
    if len(ids) < 2:
      return super().decode(ids)
    return f"Well.\nVerification: {asking.QUESTION} {'Yes' if sum(ids) % 2 else 'No'}"


def test_votes_of_the_device_are_counted_as_any(judge, params) -> None:
  voting = dataclasses.replace(judge, tokenizer=Voting(judge.tokenizer.proto))
  sample = sampler(params, voting, votes=8)
  opinions = asking.by_votes(sample)(PROMPTS[:3])
  for rationales, opinion in zip(sample(PROMPTS[:3]), opinions):
    ends = [r.text.rpartition(" ")[2] for r in rationales if r.finished and r.text.startswith("Well.")]
    assert 0 < len(ends) < 8 and opinion.reward == ends.count("Yes") / len(ends)
  assert 0 < sum(o.reward for o in opinions) < 3


def test_the_device_answers_as_a_verifier(judge, params) -> None:
  ask = asking.make_ask(asking.labelled, asking.QUESTION)
  problems = [Problem(f"{i}", f"{i} + {i}?", f"{2 * i}", "test") for i in range(3)]
  verdicts = asking.make_verify(make_score(params, judge), ask, threshold=0.0)(
    problems, ["0", "2", "x" * 5000]
  )
  expected = [by_hand(judge, params, ask(p, c)) for p, c in zip(problems[:2], ["0", "2"])]
  np.testing.assert_allclose([v.reward for v in verdicts[:2]], expected, rtol=1e-5)
  assert [v.correct for v in verdicts] == [True, True, False] and verdicts[2].error == "unparsable"


def test_the_average_over_rationales_asks_behind_each_of_them(judge, params) -> None:
  sample = sampler(params, judge)
  opinions = asking.by_average(sample, make_score(params, judge))(PROMPTS[:3])
  for prompt, rationales, opinion in zip(PROMPTS, sample(PROMPTS[:3]), opinions):
    behind = [
      f"{prompt}\n{r.text.rstrip()}\nVerification: {asking.QUESTION}" for r in rationales if r.finished
    ]
    assert behind
    assert opinion.reward == pytest.approx(
      np.mean([by_hand(judge, params, text) for text in behind]), rel=1e-5
    )


# Settings


def test_settings_that_do_not_fit_are_named(judge, params, tokenizer) -> None:
  words = train_tokenizer(["0 1"], vocab_size=64, symbols=["▁no"])
  cases = {
    'judge.tokenizer: has no token that reads "Yes"': dataclasses.replace(judge, tokenizer=words),
    "judge.rows: rows and max_prompt must be positive": dataclasses.replace(judge, rows=0),
    "judge.rows: 4 does not divide over 8 shards of the batch": dataclasses.replace(
      judge, mesh=make_mesh(MeshConfig())
    ),
    f"judge.model: has 30 tokens, its tokenizer {tokenizer.vocab_size}": dataclasses.replace(
      judge, model=Decoder(dataclasses.replace(judge.model.cfg, vocab=30))
    ),
  }
  for told, wrong in cases.items():
    with pytest.raises(ConfigError) as caught:
      make_score(params, wrong)
    assert str(caught.value) == told
  for options, told in (({"votes": 0}, "judge.votes"), ({"temperature": 0.0}, "judge.temperature")):
    with pytest.raises(ConfigError, match=told):
      sampler(params, judge, **options)
