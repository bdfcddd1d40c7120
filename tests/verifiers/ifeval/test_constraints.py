"""IFEval's two readings, per instruction and per prompt, and what must not change a verdict."""

import json
import os
import pathlib
import pickle
import subprocess
import sys

import pytest

from o1jax.verifiers.base import Problem, Verdict
from o1jax.verifiers.ifeval import constraints
from o1jax.verifiers.ifeval.constraints import MAX_LENGTH, READINGS, bind, make_verify, verify
from o1jax.verifiers.ifeval.instructions import INSTRUCTIONS, Count

NO_COMMA = ("punctuation:no_comma", {})
TWO_BULLETS = ("detectable_format:number_bullet_lists", {"num_bullets": 2})
QUOTED = ("startend:quotation", {})
ENDS = ("startend:end_checker", {"end_phrase": "The end."})
TITLE = ("detectable_format:title", {})
ENGLISH = ("language:response_language", {"language": "en"})


def problem(*rows, id="train/7"):
  names, arguments = [name for name, _ in rows], [given for _, given in rows]
  meta = {"instruction_id_list": names, "kwargs": arguments}
  return Problem(id=id, prompt="Say hello.", answer="", source="ifeval", meta=meta)


def judged(rows, text):
  """(strict, loose) of each instruction."""
  (verdict,) = verify([problem(*rows)], [text])
  parsed = json.loads(verdict.parsed)
  assert list(parsed) == ["strict", "loose"]
  assert verdict.correct == all(parsed["strict"])
  return parsed["strict"], parsed["loose"]


T, F = True, False
READ = [
  # (instructions, response, strict, loose)
  ([NO_COMMA], "Hello you", [T], [T]),
  ([NO_COMMA], "Hello, you", [F], [F]),
  ([NO_COMMA], "Sure, here it is:\nHello you", [F], [T]),
  ([NO_COMMA], "Hello you\nBye, then", [F], [T]),
  ([NO_COMMA], "Sure, fine\nHello you\nBye, then", [F], [T]),
  ([NO_COMMA], "Sure, fine\nHello, you\nBye, then", [F], [F]),
  ([NO_COMMA], "Sure\r\nhere, it is", [F], [T]),
  ([NO_COMMA], "Sure\rhere, it is", [F], [F]),
  ([QUOTED], '**"Hello"**', [F], [T]),
  ([QUOTED], 'Here it is:\n\n"Hello"', [F], [T]),
  ([QUOTED], 'Here:\n*"Hello"*\nBye', [F], [T]),
  ([QUOTED], "Here:\nHello\nBye", [F], [F]),
  ([ENDS], "Well. *The end.*", [F], [T]),
  ([ENDS], "Well. The end.\n\nBye", [F], [T]),
  ([ENDS], "Well. The end.\nMore\nBye", [F], [F]),
  # The loose reading takes what any variant passes, each instruction by itself; stars go only together.
  ([TWO_BULLETS], "* a\n* b", [T], [T]),
  ([TWO_BULLETS], "* a\n* b\n* c", [F], [T]),
  ([TWO_BULLETS], "* a\n* b\n* c\n* d\n* e", [F], [F]),
  ([TWO_BULLETS], "* a\n- b\n- c\n* d", [F], [T]),
  ([TWO_BULLETS, NO_COMMA], "Here, two:\n* a\n* b", [T, F], [T, T]),
  ([TWO_BULLETS, NO_COMMA], "* a, b\n* c", [T, F], [T, T]),
  ([TWO_BULLETS, QUOTED, NO_COMMA], '"* a\n* b"', [F, T, T], [F, T, T]),
  # The first variant is the response with its white space; the cut ones are stripped.
  ([("detectable_content:postscript", {"postscript_marker": r"^\s+x"})], "  x", [T], [T]),
  # A blank response follows nothing, and nor does a blank variant.
  ([NO_COMMA], "", [F], [F]),
  ([NO_COMMA], " \n\t\u2003", [F], [F]),
  ([NO_COMMA], ",", [F], [F]),
  ([NO_COMMA, ENGLISH], "***", [T, T], [T, T]),
  ([NO_COMMA], "*,*\n", [F], [F]),
]


@pytest.mark.parametrize("rows, text, strict, loose", READ)
def test_readings(rows, text, strict, loose):
  assert judged(rows, text) == (strict, loose)


def test_the_eight_variants():
  assert READINGS["strict"](" a\n*b*\nc ") == (" a\n*b*\nc ",)
  assert READINGS["loose"](" a\n*b*\nc ") == (
    *(" a\n*b*\nc ", "*b*\nc", "a\n*b*", "*b*"),
    *(" a\nb\nc ", "b\nc", "a\nb", "b"),
  )
  assert READINGS["loose"]("a*") == ("a*", "", "", "", "a", "", "", "")


def test_a_reading_chooses_the_reward_and_not_what_is_parsed():
  problems, texts = [problem(NO_COMMA), problem(NO_COMMA), problem(NO_COMMA, TITLE)], ["a", "a,\nb", "a,\nb"]
  strict, loose = make_verify("strict")(problems, texts), make_verify("loose")(problems, texts)
  assert strict == verify(problems, texts)
  assert [verdict.reward for verdict in strict] == [1.0, 0.0, 0.0]
  assert [verdict.reward for verdict in loose] == [1.0, 1.0, 0.0]
  assert [verdict.error for verdict in loose] == [None, None, "wrong"]
  assert [verdict.parsed for verdict in strict] == [verdict.parsed for verdict in loose]
  assert strict[2].parsed == '{"strict": [false, false], "loose": [true, false]}'
  assert pickle.loads(pickle.dumps(make_verify("loose")))(problems, texts) == loose


def test_an_unknown_reading_is_an_error():
  with pytest.raises(ValueError, match="'lax' is no reading; there are strict, loose"):
    make_verify("lax")


THOUGHT = "<think>\nOkay, they want this, and that.\n</think>\n\n"
QUIRKS = ("detectable_format:number_bullet_lists", {"num_bullets": 2})
BY_POLICY = [
  # (instruction, response, followed under strict, under standard)
  (NO_COMMA, "No commas at all.", T, T),
  (NO_COMMA, f"{THOUGHT}No commas at all.", F, T),
  (NO_COMMA, f"{THOUGHT}Some, here.", F, F),
  (QUOTED, f'{THOUGHT}"in quotes"', F, T),
  (QUOTED, '[THINK]Quotes?[/THINK]"in quotes"', F, T),
  (("combination:repeat_prompt", {"prompt_to_repeat": "Say hello."}), f"{THOUGHT}Say hello. Hello.", F, T),
  (("keywords:forbidden_words", {"forbidden_words": ["okay"]}), f"{THOUGHT}Hello.", F, T),
  (("keywords:existence", {"keywords": ["okay"]}), f"{THOUGHT}Hello.", T, F),
  (NO_COMMA, "<think>It was cut off", T, F),
  # End tokens are no part of a response under either.
  (("detectable_format:json_format", {}), '{"a": 1}<|eot_id|>', T, T),
  (("detectable_format:json_format", {}), '{"a": 1}<end_of_turn>\n', T, T),
  (ENDS, "Well. The end.<|im_end|><|endoftext|>", T, T),
  # The published rules hold under either: a rule is a bullet, Chinese is one word, `C++` finds a c.
  (QUIRKS, "* a\n* b\n---", F, F),
  (("keywords:existence", {"keywords": ["C++"]}), "A cat.", T, T),
  (("length_constraints:number_words", {"num_words": 2, "relation": "at least"}), "你好世界", F, F),
]


@pytest.mark.parametrize(("row", "text", "strict", "standard"), BY_POLICY)
def test_policies(row, text, strict, standard):
  told = {policy: make_verify(policy=policy)([problem(row)], [text])[0] for policy in ("strict", "standard")}
  assert {policy: verdict.correct for policy, verdict in told.items()} == {
    "strict": strict,
    "standard": standard,
  }


WRONG = [
  ({}, "are not two lists of one length"),
  ({"instruction_id_list": [], "kwargs": []}, "are not two lists of one length"),
  ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "are not two lists of one length"),
  ({"instruction_id_list": "punctuation:no_comma", "kwargs": [{}]}, "are not two lists of one length"),
  (
    {"instruction_id_list": ["no_comma"], "kwargs": [{}]},
    "instruction 'no_comma': there is no such instruction",
  ),
  ({"instruction_id_list": [None], "kwargs": [{}]}, "instruction None: "),
  (
    {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [None]},
    "'punctuation:no_comma': wants a name and",
  ),
  (
    {
      "instruction_id_list": ["startend:quotation", "startend:end_checker"],
      "kwargs": [{}, {"end_phrase": 3}],
    },
    "instruction 'startend:end_checker': its argument 'end_phrase' wants a text that is not blank, has 3",
  ),
]


@pytest.mark.parametrize("meta, told", WRONG)
@pytest.mark.parametrize("text", ["Hello", "", "x" * (MAX_LENGTH + 1)])
def test_a_problem_at_fault_is_named_whatever_the_response(meta, told, text):
  broken = Problem(id="train/7", prompt="", answer="", source="ifeval", meta=meta)
  with pytest.raises(ValueError, match="^problem train/7: .*" + told):
    verify([broken], [text])


def test_rows_with_nulls_of_other_instructions():
  nulls = dict.fromkeys(["num_bullets", "end_phrase", "keywords", "relation", "letter"])
  rows = [(NO_COMMA[0], dict(nulls)), (TWO_BULLETS[0], {**nulls, "num_bullets": 2})]
  assert judged(rows, "* a\n* b") == ([T, T], [T, T])


def test_an_instruction_is_added_by_a_function_and_a_line(monkeypatch):
  def names_request(text, prompt, *, times: Count):
    return text.count(prompt) >= times

  monkeypatch.setitem(INSTRUCTIONS, "combination:names_request", names_request)
  rows = [("combination:names_request", {"times": 2})]
  assert judged(rows, "Say hello. Say hello.") == ([T], [T])
  assert judged(rows, "Say hello.") == ([F], [F])
  with pytest.raises(
    ValueError, match="'combination:names_request': its argument 'times' wants a whole number"
  ):
    bind(problem(("combination:names_request", {"times": "2"})))


# Short texts of many languages, whose detection without a seed changes from call to call.
UNSURE = [
  "ok no",
  "a b c",
  "no problema",
  "hotel taxi",
  "la casa de",
  "I am",
  "se te de",
  "den der",
  "una no",
  "me",
]
LANGUAGES = ["en", "es", "it", "de", "pt", "ro", "nl", "ca", "so", "tl"]


@pytest.mark.full
def test_verdicts_depend_on_no_order_and_no_process():
  problems = [
    problem(("language:response_language", {"language": code})) for code in LANGUAGES for _ in UNSURE
  ]
  texts = UNSURE * len(LANGUAGES)
  here = verify(problems, texts)
  assert 0 < sum(verdict.correct for verdict in here) < len(here)
  backwards = [verify([one], [text])[0] for one, text in zip(problems[::-1], texts[::-1])]
  assert backwards[::-1] == here
  code = (
    "import pickle, sys\n"
    "from o1jax.verifiers.ifeval.constraints import verify\n"
    "problems, texts = pickle.load(sys.stdin.buffer)\n"
    "pickle.dump(verify(problems[::-1], texts[::-1])[::-1], sys.stdout.buffer)\n"
  )
  root = str(pathlib.Path(constraints.__file__).parents[3])
  done = subprocess.run(
    [sys.executable, "-c", code],
    input=pickle.dumps((problems, texts)),
    env={**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": "12345"},
    capture_output=True,
    check=True,
  )
  assert pickle.loads(done.stdout) == here


ALL = [
  ("change_case:capital_word_frequency", {"capital_frequency": 3, "capital_relation": "at least"}),
  ("change_case:english_capital", {}),
  ("change_case:english_lowercase", {}),
  ("combination:repeat_prompt", {"prompt_to_repeat": "Say hello."}),
  ("combination:two_responses", {}),
  ("detectable_content:number_placeholders", {"num_placeholders": 3}),
  ("detectable_content:postscript", {"postscript_marker": "P.P.S"}),
  ("detectable_format:constrained_response", {}),
  ("detectable_format:json_format", {}),
  ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 3}),
  ("detectable_format:number_bullet_lists", {"num_bullets": 3}),
  ("detectable_format:number_highlighted_sections", {"num_highlights": 3}),
  ("detectable_format:title", {}),
  ("keywords:existence", {"keywords": ["fresco", "ink"]}),
  ("keywords:forbidden_words", {"forbidden_words": ["fresco", "ink"]}),
  ("keywords:frequency", {"keyword": "ink", "frequency": 3, "relation": "less than"}),
  ("keywords:letter_frequency", {"letter": "!", "let_frequency": 3, "let_relation": "at least"}),
  ("language:response_language", {"language": "ta"}),
  (
    "length_constraints:nth_paragraph_first_word",
    {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "ink"},
  ),
  ("length_constraints:number_paragraphs", {"num_paragraphs": 3}),
  ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "less than"}),
  ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}),
  ("punctuation:no_comma", {}),
  ("startend:end_checker", {"end_phrase": "The end."}),
  ("startend:quotation", {}),
]
LONG = [
  "[",
  "<<",
  "* ",
  ". ",
  "!)",
  "\n",
  "\r\n",
  " ",
  "a@",
  '"',
  "P.",
  "a",
  "-",
  "Section ",
  "\u0301",
  "\ud800",
  "[]<>*",
]


@pytest.mark.parametrize("piece", LONG)
def test_long_responses_are_judged_by_every_instruction(piece):
  """In seconds: a pattern of quadratic time would take hours."""
  text = "Hello. " + piece * (20_000 // len(piece))
  strict, loose = judged(ALL, text)
  assert len(strict) == len(loose) == 25
  assert all(late or not early for early, late in zip(strict, loose))


def test_what_is_evidently_pathological_is_unparsable():
  json_only, comma = [problem(("detectable_format:json_format", {}))], [problem(NO_COMMA)]
  deep = "[" * 100_000 + "]" * 100_000
  for problems, text in ((json_only, deep), (comma, "x" * (MAX_LENGTH + 1))):
    assert verify(problems, [text]) == [Verdict(0.0, False, None, "unparsable")]
  assert verify(comma, ["x" * MAX_LENGTH])[0].correct


def test_different_lengths_are_an_error():
  with pytest.raises(ValueError):
    verify([problem(NO_COMMA)], [])
