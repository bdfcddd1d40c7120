"""reasoning-gym's scorers: right answers pay, no trick does, and no completion runs as code."""

import json

import pytest

from o1jax.verifiers.base import Problem, Verdict
from o1jax.verifiers.gym import DATASETS, extract, has_shape, make_verify, verify

NAMES = sorted(set(DATASETS) - {"composite"})


def problem(dataset: str, answer, **metadata) -> Problem:
  entry = {"answer": answer, "metadata": {"source_dataset": dataset, **metadata}}
  return Problem("p", "", "", "gym", {"dataset": dataset, "entry": entry})


def judge(dataset: str, answer, completion: str, **metadata) -> Verdict:
  return verify([problem(dataset, answer, **metadata)], [completion])[0]


@pytest.mark.parametrize(
  ("text", "answer"),
  [
    ("<answer>7</answer>", "7"),
    ("<answer>\n 7 \n</answer> done", "7"),
    ("<answer>1</answer> no, <answer>2</answer>", "2"),
    ("<answer>1 <answer>2</answer>", "2"),
    ("<think><answer>1</answer></think> it is 2", "it is 2"),
    ("just 7", "just 7"),
    ("<answer>7", "<answer>7"),
    ("7</answer>", "7</answer>"),
    ("<answer></answer>", None),
    (" \n", None),
    ("", None),
    ("<think>7</think>", None),
    ("<answer>7</answer><|im_end|>", "7"),
    ("7<end_of_turn>\n", "7"),
  ],
)
def test_where_the_answer_stands(text, answer):
  assert extract(text) == answer


@pytest.mark.parametrize(
  ("dataset", "gold", "completion", "reward", "error"),
  [
    ("basic_arithmetic", "12", "<answer>12</answer>", 1.0, None),
    ("basic_arithmetic", "12", "12", 1.0, None),
    ("basic_arithmetic", "12", "13", 0.0, "wrong"),
    ("basic_arithmetic", "12", "", 0.0, "unparsable"),
    ("spell_backward", "cba", "<answer>cba</answer>", 1.0, None),
    # graded here, since the library pays for anything, and for any leading part
    ("game_of_life_halting", "False", "false", 1.0, None),
    ("game_of_life_halting", "False", "True", 0.0, "wrong"),
    ("game_of_life_halting", "False", "zzz", 0.0, "wrong"),
    ("coin_flip", "0.65625", "0.65625", 1.0, None),
    ("coin_flip", "0.65625", "21/32", 1.0, None),
    ("coin_flip", "0.65625", "0", 0.0, "wrong"),
    ("coin_flip", "0.65625", "0.656", 1.0, None),
    ("coin_flip", "0.65625", "0.65", 0.0, "wrong"),
    ("coin_flip", "0.9995117188", "1", 0.0, "wrong"),
    ("coin_flip", "0.9995117188", "0.9999695", 0.0, "wrong"),
    ("coin_flip", "0.9995117188", "0.9995", 1.0, None),
    ("coin_flip", "1", "0.9995117188", 0.0, "wrong"),
    ("coin_flip", "1", "1.0", 1.0, None),
    ("coin_flip", "0.65625", "nan", 0.0, "unparsable"),
    ("coin_flip", "0.65625", "1/0", 0.0, "unparsable"),
    # what the scorer cannot read
    ("prime_factorization", "2 x 3", "2 × 3", 1.0, None),
    ("prime_factorization", "2 x 3", "two and three", 0.0, "unparsable"),
  ],
)
def test_table(dataset, gold, completion, reward, error):
  gold = gold.replace(" x ", " × ") if dataset == "prime_factorization" else gold
  verdict = judge(dataset, gold, completion)
  assert (verdict.reward, verdict.correct, verdict.error) == (reward, reward == 1.0, error)


SOKOBAN = "+ + + + + + +  \n+ - * - @ X +  \n+ + + + + + +  \n\n"


@pytest.mark.parametrize(
  ("dataset", "metadata", "answer", "right"),
  [
    ("puzzle24", {"numbers": [6, 2, 8, 6]}, "6*2 + 8 + 6 - 2", False),
    ("puzzle24", {"numbers": [6, 2, 8, 6]}, "1 + 7 + 8 + 8", False),
    ("puzzle24", {"numbers": [6, 2, 8, 6]}, "2*6 + 6 + 6", False),
    ("puzzle24", {"numbers": [6, 2, 8, 6]}, "8*6/2", False),
    ("puzzle24", {"numbers": [6, 2, 8, 6]}, "(8 - 6 + 2)*6", True),
    ("puzzle24", {"numbers": [6, 2, 8, 6]}, "(8-6+2)/(1/6)", False),
    ("puzzle24", {"numbers": [7, 7, 2, 1]}, "7*7/2*1", False),  # 24.5
    ("puzzle24", {"numbers": [3, 3, 8, 8]}, "8/(3 - 8/3)", True),
    ("puzzle24", {"numbers": [2, 3, 4, 1]}, "-(-4*3*2) / 1", True),
    ("puzzle24", {"numbers": [4, 4, 1, 1]}, "(4 + 1 - 1)!", False),
    ("countdown", {"numbers": [2, 3, 4], "target": 14}, "2*(4 + 3)", True),
    ("countdown", {"numbers": [2, 3, 4], "target": 14}, "2*4*3 - 10", False),
    ("countdown", {"numbers": [3, 99, 100], "target": 33}, "99/3 + 100*0", False),
    ("countdown", {"numbers": [1, 1000, 500], "target": 500}, "500 + 1/1000", False),  # near is not there
    ("countdown", {"numbers": [2, 3, 4], "target": 81}, "3**4 + 2 - 2", False),
    ("sokoban", {"gamestr": SOKOBAN}, "RR", True),
    ("sokoban", {"gamestr": SOKOBAN}, "LRRR", True),
    ("sokoban", {"gamestr": SOKOBAN}, "URDRR", False),  # into the walls
    ("sokoban", {"gamestr": SOKOBAN}, "R, then R", False),
    ("time_intervals", {"task_type": "date"}, "67 days", True),
    ("time_intervals", {"task_type": "date"}, "67", True),
    ("time_intervals", {"task_type": "date"}, "67 days, 01:04:00", False),
    ("time_intervals", {"task_type": "date"}, "67 hours", False),
  ],
)
def test_what_the_entry_fixes_is_looked_at(dataset, metadata, answer, right):
  gold = "67 days" if dataset == "time_intervals" else "1"
  assert judge(dataset, gold, f"<answer>{answer}</answer>", **metadata).correct == right


@pytest.mark.parametrize("answer", ["9**9**9**9", "(9**9999)**9999", "9**(9**9)", "99999!", "(3!)!!"])
def test_a_number_too_long_is_not_computed(answer):
  assert judge("polynomial_multiplication", "x", answer).error == "unparsable"


def test_a_scorer_prints_nothing(capfd):
  metadata = {"num_disks": 1, "num_pegs": 3, "start_peg": 1, "target_peg": 3, "solution_length": 1}
  assert judge("tower_of_hanoi", "x", "Move disk 1 from Peg 4 to Peg 2", **metadata).error == "wrong"
  assert judge("tower_of_hanoi", "x", "Move disk 1 from Peg 1 to Peg 3", **metadata).correct
  assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
  ("dataset", "gold", "answer"),
  [
    ("basic_arithmetic", "-61", "\\boxed{-61}"),
    ("basic_arithmetic", "-61", "$-61$"),
    ("basic_arithmetic", "-61", "**-61**"),
    ("basic_arithmetic", "-61", "The answer is -61."),
    ("basic_arithmetic", "-61", "The final answer is: $\\boxed{-61}$."),
    ("basic_arithmetic", "-61", "-61."),
    ("countdown", "x", "2*(4 + 3) = 14"),
    ("countdown", "x", "\\boxed{2*(4 + 3)}"),
    ("word_sequence_reversal", "b, a", "b,a"),
  ],
)
def test_the_standard_policy_takes_the_dress_off(dataset, gold, answer):
  metadata = {"numbers": [2, 3, 4], "target": 14} if dataset == "countdown" else {}
  asked = [problem(dataset, gold, **metadata)]
  standard = make_verify(policy="standard")
  assert standard(asked, [f"<answer>{answer}</answer>"])[0].correct
  assert not verify(asked, [f"<answer>{answer}</answer>"])[0].correct
  wrong = answer.replace("61", "62").replace("3", "2").replace("b", "c")
  assert not standard(asked, [f"<answer>{wrong}</answer>"])[0].correct


def swaps(name: str, size: int, seed: int):
  """(entry, another entry's answer) of a dataset, where the answers differ."""
  import reasoning_gym

  entries = list(reasoning_gym.create_dataset(name, seed=seed, size=size))
  for entry in entries:
    for other in entries:
      if other["answer"] is not None and str(other["answer"]) != str(entry["answer"]):
        yield entry, str(other["answer"])


# Puzzles with several answers, whose scorer tries the one it is given.
SEVERAL = (
  "n_queens",
  "quantum_lock",
  "jugs",
  "rubiks_cube",
  "rush_hour",
  "sokoban",
  "mini_sudoku",
  "modulo_grid",
)


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_the_answer_to_another_entry_does_not_pay(name):
  paid = []
  for entry, answer in swaps(name, 3, 5):
    asked = Problem("p", "", "", "gym", {"dataset": name, "entry": entry})
    if verify([asked], [f"<answer>{answer}</answer>"])[0].correct:
      paid.append((entry["question"], entry["answer"], answer))
  assert not paid or name in SEVERAL, paid


@pytest.mark.parametrize("answer", ["nan", "nan+nanj", "NaN", "inf", "-infinity"])
def test_no_number_is_no_complex_number(answer):
  assert judge("complex_arithmetic", "4.0 - 7.0i", answer, result=[4.0, -7.0]) == Verdict(
    0.0, False, answer, "unparsable"
  )
  assert judge("complex_arithmetic", "4.0 - 7.0i", "4 - 7i", result=[4.0, -7.0]).correct


def test_a_formula_is_read():
  integral = dict(variable="x", integrand="2*x + cos(x)")
  assert judge(
    "simple_integration", "x**2 + sin(x) + C", "<answer>sin(x) + x**2 + 3</answer>", **integral
  ).correct
  assert judge("simple_integration", "x**2 + sin(x) + C", "x**2", **integral).error == "wrong"
  restated = "Integral(2*x + cos(x), x)"
  assert judge("simple_integration", "x**2 + sin(x) + C", restated, **integral).error == "unparsable"
  assert judge("simple_integration", f"{restated} + C", "x**2 + sin(x)", **integral).correct
  assert judge("countdown", "(3+4)*2", "2*(4 + 3)", numbers=[2, 3, 4], target=14).correct
  assert not judge("countdown", "(3+4)*2", "14", numbers=[2, 3, 4], target=14).correct


CODE = [
  "open({path!r}, 'w')",
  "__import__('os').system('touch {path}')",
  "().__class__.__base__.__subclasses__()",
  "exec(chr(111)+chr(112))",
  "eval(input())",
  "[open({path!r}, 'w')]",
  "(lambda: open({path!r}, 'w'))()",
  "S(open({path!r}, 'w'))",
]


@pytest.mark.full
@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize(
  ("dataset", "metadata"),
  [
    ("binary_matrix", {}),
    ("countdown", {"numbers": [1], "target": 1}),
    ("intermediate_integration", {"variable": "x", "integrand": "x"}),
    ("n_queens", {"valid_answers": ["x"]}),
    ("polynomial_multiplication", {}),
    ("puzzle24", {}),
    ("simple_integration", {"variable": "x", "integrand": "x"}),
    ("spiral_matrix", {}),
    ("string_insertion", {}),
  ],
)
def test_a_completion_is_not_run(tmp_path, dataset, metadata, code):
  path = tmp_path / "made"
  verdict = judge(dataset, "1", f"<answer>{code.format(path=str(path))}</answer>", **metadata)
  assert not verdict.correct and not path.exists()


def test_lists_are_still_read_as_the_library_does():
  assert judge("string_insertion", "AB", "['A', 'B']").reward == 0.1
  assert judge("spiral_matrix", "1 2", "[1, 2]").reward == 0.1
  assert judge("bitwise_arithmetic", "0x6", "6", problem="((0x1 << 0x1) * 0x3)").correct


@pytest.mark.parametrize(
  ("text", "fits"),
  [
    ("x**2/2 + C", True), ("-3.5*exp(-x)*sin(2*x)", True), ("3!", True), ("", True), ("log(x)", True),
    ("x.func", False), ("x_1", False), ("foo(x)", False), ("sinx", False), ("x[0]", False), ("'a'", False),
    ("x if x else x", False), ("x=1", False), ("1" * 5000, False), ("logo(x)", False), ("\u00b2", False),
  ],
)  # fmt: skip
def test_what_is_a_formula(text, fits):
  assert has_shape("simple_integration", text) == fits


@pytest.mark.parametrize(
  ("meta", "what"),
  [
    ({"dataset": "no_such", "entry": {}}, "no dataset 'no_such'"),
    ({"dataset": "composite", "entry": {}}, "no dataset 'composite'"),
    ({"dataset": "coin_flip", "entry": {}}, "no answer and metadata"),
    ({"dataset": "coin_flip", "entry": {"answer": "1"}}, "no answer and metadata"),
    (
      {"dataset": "coin_flip", "entry": {"answer": "heads", "metadata": {}}},
      "fails on the entry's own answer",
    ),
    (
      {"dataset": "coin_flip", "entry": {"answer": "1", "metadata": {"source_dataset": "dice"}}},
      "of the dataset 'dice'",
    ),
    (
      {"dataset": "polynomial_multiplication", "entry": {"answer": "exit()", "metadata": {}}},
      "which polynomial_multiplication does not read",
    ),
    (
      {"dataset": "simple_integration", "entry": {"answer": "x", "metadata": {"integrand": "exit()"}}},
      "which simple_integration does not read",
    ),
    ({"dataset": "rearc", "entry": {"answer": "x", "metadata": {"output": [1, 2]}}}, "output is no board"),
  ],
)
def test_a_bad_problem_is_named(meta, what):
  with pytest.raises(ValueError, match=f"^problem p: .*{what}"):
    verify([Problem("p", "", "", "gym", meta)], ["<answer>1/3x</answer>"])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_dataset_pays_for_its_own_answer_and_for_no_junk(name):
  import reasoning_gym

  junk = "0 1 zzz nan inf -1 [] {} () None True False yes no x".split()
  for entry in reasoning_gym.create_dataset(name, seed=3, size=8):
    travelled = json.loads(json.dumps(entry))
    for given in (entry, travelled):
      asked = Problem("p", "", "", "gym", {"dataset": name, "entry": given})
      if (
        entry["answer"] is not None and "Integral" not in entry["answer"]
      ):  # some have many answers, and name none
        assert verify([asked], [f"<answer>{entry['answer']}</answer>"])[0].correct
      told = verify([asked] * len(junk), junk)
      assert all(0.0 <= verdict.reward <= 1.0 for verdict in told)
      paid = [text for text, verdict in zip(junk, told) if verdict.correct]
      assert all(_same(text, str(entry["answer"])) for text in paid), (paid, entry["answer"])


def _same(text: str, gold: str) -> bool:
  """Whether an answer is the gold one, in another case or as another spelling of the number."""
  try:
    return float(text) == float(gold)
  except ValueError:
    return text.casefold() == gold.strip().casefold()
