"""Gold answers and what stands in a box, drawn: near misses, none of which is right, and other forms of one
answer.

By hand, in larger numbers: `python tests/verifiers/math/test_drawn.py 12000 1` (how many, seed).
"""

import math
import random
import sys
from collections.abc import Callable

import pytest

from o1jax.verifiers.base import Problem
from o1jax.verifiers.math.verify import verify

pytestmark = pytest.mark.full

Pair = tuple[str, str]  # gold answer, what stands in the box

NUMBER_WORDS = (
  "half", "third", "dozen", "million", "thousand", "lakh", "crore", "bn", "score", "hundred", "halves",
  "tenths", "twentieths",
  "gross", "trillion", "percent more", "or more", "or less", "squared", "twelfths", "and a half",
)  # fmt: skip
QUANTITIES = (
  r"P(A \mid B)", "P(A|B)", "P(X=1)", "f'(2)", r"x_{\max}", r"\bar{x}", r"|\vec{a}|", r"\det A",
  r"\int_0^1 f(x)\,dx",
  r"\lim_{n\to\infty} a_n", r"\text{Sum}", r"\operatorname{Var}(X)", r"S_{\triangle ABC}", r"\max_x f(x)",
  "f(g(2))",
  r"\sum_{k=1}^n a_k", r"\hat{p}", r"\Pr(A)", "x^*", "y'",
)  # fmt: skip


def number(r: random.Random) -> int:
  return r.choice([r.randint(2, 9), r.randint(10, 99), r.randint(100, 9999)]) * r.choice([1, 1, 1, -1])


def lowest_terms(r: random.Random) -> tuple[int, int]:
  while True:
    a, b = r.randint(1, 30), r.randint(2, 30)
    if math.gcd(a, b) == 1:
      return a, b


def listed(values: list[int]) -> str:
  return ", ".join(map(str, values))


def near_number(r: random.Random) -> Pair:
  n = number(r)
  m = abs(n)
  return r.choice([
    (str(n), str(n + r.choice([1, -1, 10, -10]))), (str(n), str(-n)), (str(m), f"{m}{r.choice('017')}"),
    (str(n), rf"{n}\text{{ {r.choice(NUMBER_WORDS)}}}"), (str(n), f"{n} {r.choice(NUMBER_WORDS)}"),
    (str(m), r.choice([
      f"{m} or {m + 1}", rf"{m} \text{{ or }} {m + 2}", f"{m}, {m + 3}", f"{m}/{r.randint(2, 9)}",
      rf"{m}\pm 1",
      rf"\{{{m}, {m + 1}\}}", f"{m}x", f"{m}^2", f"x>{m}", rf"x \ge {m}", rf"\sqrt{{{m}}}", rf"\ne {m}",
      rf"{m}\mathrm{{R}}", rf"{m}\text{{AB}}", rf"\text{{not }} {m}",
    ])),
  ])  # fmt: skip


def near_fraction(r: random.Random) -> Pair:
  (a, b), p, q = lowest_terms(r), r.randint(1, 9), r.randint(1, 9)
  return r.choice([
    (rf"\frac{{{a}}}{{{b}}}", r.choice([
      rf"\frac{{{b}}}{{{a}}}", rf"\frac{{{a + 1}}}{{{b}}}", rf"-\frac{{{a}}}{{{b}}}", f"{a}{b}",
      rf"{a}\frac{{1}}{{{b}}}",
    ])),
    (rf"\frac{{{p}}}{{{q + 1}}}", rf"\frac {p}{q + 1}{r.randint(0, 9)}" if q < 9 else "0"),
    (rf"\frac{{{p}}}{{9}}", rf"0.\overline{{{p}}}{q}"),
  ])  # fmt: skip


def near_list(r: random.Random) -> Pair:
  xs = [r.randint(-20, 30) for _ in range(r.randint(2, 4))]
  twice, other = sorted([*xs, r.choice(xs)]), [*xs[:-1], xs[-1] + r.choice([1, -1])]
  return r.choice([(listed(xs), listed(twice)), (listed(twice), listed(xs)), (listed(xs), listed(other))])


def near_pair(r: random.Random) -> Pair:
  x, y = sorted(r.sample(range(-9, 20), 2))
  left, right = r.choice(["[]", "[)", "(]"])
  ends = [f"{a}{x}, {y}{b}" for a in "([" for b in ")]" if a + b != left + right]
  return r.choice([
    (f"({x}, {y})", r.choice([f"({y}, {x})", f"{x}, {y}", f"({x}, {y}]", rf"\{{{x}, {y}\}}",
      f"({x}, {y}, {y})"])),
    (f"{left}{x}, {y}{right}", r.choice([*ends, f"{left}{x}, {y + 1}{right}", f"{x}, {y}"])),
    (f"x={x}, y={y}", r.choice([
      f"x={y}, y={x}", f"(x,y)=({y},{x})", f"x={x}", f"a={x}, b={y}",
      rf"\begin{{cases}} x={y} \\ y={x} \end{{cases}}",
    ])),
  ])  # fmt: skip


def near_other(r: random.Random) -> Pair:
  (a, b), p, q, d = lowest_terms(r), r.randint(2, 9), r.choice([2, 3, 5, 7]), r.randint(5, 85)
  product = r.choice([f"{p}[{q}]", rf"{p}\left[{q}\right]", rf"{p}\{{{q}\}}", f"[{p}][{q}]", f"({p})({q})"])
  return r.choice([
    (str(p + q), product if p * q != p + q else "0"),
    (rf"{p}\text{{ {r.choice(['cm', 'kg', 'm'])}}}",
      rf"{p}\text{{ {r.choice(['km', 'g', 'minutes', 'cm^3'])}}}"),
    (f"x > {p}", r.choice([
      rf"x \ge {p}", f"x < {p}", f"y > {p}", rf"[{p}, \infty)", rf"({p}, \infty]", rf"x \in [{p}, \infty)",
      f"x = {p}",
    ])),
    (f"{a}:{b}", r.choice([f"{a}:{b + 1}", f"{2 * a}:{2 * b + 1}", f"{a}:{b}:1"])),
    (rf"\sin {d}^\circ", r.choice([rf"\sin {d}", rf"\sin {d + 1}^\circ", rf"-\sin {d}^\circ"])),
    (f"x^2+{p}x+{q}", r.choice([f"x^2-{p}x+{q}", f"x^2+{p + 1}x+{q}", f"y^2+{p}y+{q}", f"x^2+{p}+{q}"])),
    (rf"{p}\sqrt{{{q}}}",
      r.choice([rf"{p + 1}\sqrt{{{q}}}", rf"-{p}\sqrt{{{q}}}", rf"{p}+\sqrt{{{q}}}", rf"{p}\sqrt{q}1"])),
  ])  # fmt: skip


def other_number(r: random.Random) -> Pair:
  n, (a, b), t = number(r), lowest_terms(r), r.randint(2, 5)
  unit = r.choice(["cm", "kg", "hours", "apples", "m"])
  return r.choice([
    (str(n), r.choice([
      f"{n}.0", f"x = {n}", rf"\text{{{n}}}", rf"\color{{red}}{{{n}}}", f"= {n}", rf"\large {n}",
      rf"{{\bf {n}}}", f"${n}$",
      f"{n:,}", f"{n:,}".replace(",", "{,}"), f"{r.choice(QUANTITIES)} = {n}",
    ])),
    (rf"\frac{{{a}}}{{{b}}}",
      r.choice([rf"\dfrac{{{a * t}}}{{{b * t}}}", f"{a}/{b}", rf"{{{a} \over {b}}}"])),
    (str(t), r.choice([rf"{t}\text{{ {unit}}}", rf"{t} \text{{ ({unit})}}", rf"{t}(\mathrm{{{unit}}})"])),
    (rf"{t} \text{{ ({unit})}}", str(t)),
    (str(a * t), r.choice([f"{a}[{t}]", rf"{a}\left[{t}\right]", f"[{a}][{t}]", rf"{a}\times{t}"])),
    (f"{a}:{b}", r.choice([f"{a * t}:{b * t}", f"{a} : {b}", rf"\frac{{{a}}}{{{b}}}"])),
    (str(t ** 4), f"{t}^{{2^2}}"),
  ])  # fmt: skip


def other_form(r: random.Random) -> Pair:
  xs = [r.randint(-20, 30) for _ in range(r.randint(2, 4))]
  x, y = sorted(r.sample(range(1, 30), 2))
  name, d, p, q = (
    r.choice(["ln", "sin", "tan", "arctan"]),
    r.randint(5, 85),
    r.randint(2, 9),
    r.choice([2, 3, 5, 7]),
  )
  return r.choice([
    (listed(xs), r.choice([listed(xs[::-1]), rf"\{{{listed(xs)}\}}",
      "x = " + " or x = ".join(map(str, xs))])),
    (f"({y}, {x})", r.choice([rf"\left({y},{x}\right)", f"(x,y) = ({y}, {x})", f"（{y}，{x}）"])),
    (rf"x \in [{x},{y})", rf"{x} \le x < {y}"), (rf"{x} \le x < {y}", rf"x \in [{x},{y})"),
    (f"x > {x}", r.choice([f"{x} < x", rf"x \in ({x}, \infty)", f"2x > {2 * x}"])),
    (f"x={x}, y={y}", r.choice([f"(x,y)=({x},{y})", rf"\begin{{cases}} x={x} \\ y={y} \end{{cases}}"])),
    (rf"\sin {d}^\circ", r.choice([rf"\cos {90 - d}^\circ", rf"\sin({d}^\circ)"])),
    (f"x^2+{p + q}x+{p * q}", f"(x+{p})(x+{q})"),
    (rf"{p}\sqrt{{{q}}}", r.choice([rf"\sqrt{{{p * p * q}}}", f"{p}√{q}"])),
    (rf"\{name} {p}", r.choice([rf"\mathrm{{{name}}} {p}", rf"\operatorname{{{name}}}({p})",
      rf"\text{{{name}}} {p}"])),
    (f"{p}+{q}i", rf"{q}\mathrm{{i}} + {p}"),
  ])  # fmt: skip


NEAR = (near_number, near_fraction, near_list, near_pair, near_other)
OTHER = (other_number, other_form)


def judged(
  kinds: tuple[Callable[[random.Random], Pair], ...], count: int, seed: int, right: bool
) -> list[Pair]:
  """The drawn pairs whose verdict is not `right`."""
  r = random.Random(seed)
  pairs = [r.choice(kinds)(r) for _ in range(count)]
  problems = [Problem(id="drawn/1", prompt="?", answer=gold, source="math") for gold, _ in pairs]
  verdicts = verify(problems, [rf"So it is $\boxed{{{answer}}}$." for _, answer in pairs])
  return [pair for pair, verdict in zip(pairs, verdicts) if verdict.correct != right]


def test_no_near_miss_is_paid():
  assert judged(NEAR, 400, seed=0, right=False) == []


def test_other_forms_of_one_answer_are_paid():
  assert judged(OTHER, 300, seed=0, right=True) == []


if __name__ == "__main__":
  how_many, first_seed = int(sys.argv[1]), int(sys.argv[2])
  print("near misses paid:", judged(NEAR, how_many, first_seed, right=False))
  print("right ones refused:", judged(OTHER, how_many, first_seed, right=True))
