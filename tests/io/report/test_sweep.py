"""The report of a sweep: finished, unfinished and damaged folders of synthetic members."""

import base64
import json
import math
import pathlib
from typing import Any

import numpy as np
import pytest

from o1jax import cli
from o1jax.config import ConfigError
from o1jax.io.log import write_json
from o1jax.io.report import sweep_plots
from o1jax.io.report.sweep import findings, holds_sweep, read_members, write_sweep_report

PNG = b"\x89PNG\r\n\x1a\n"
STRENGTHS = {"kl0": 0.0, "kl0.001": 0.001, "kl0.01": 0.01, "kl0.1": 0.1}
CHECKS = [
  {"kind": "greater", "metric": "held_out/pass@1", "arms": ["kl0.01", "kl0.1"]},
  {"kind": "falling", "metric": "kl_reverse", "arms": []},
  {"kind": "fit_gao", "metric": "held_out/pass@1", "arms": ["kl0"]},
  {"kind": "fit_entropy", "metric": "reward", "arms": ["kl0"]},
]


def head(strengths: dict[str, float | None] = STRENGTHS, seeds: int = 4, checks=CHECKS) -> dict[str, Any]:
  return {
    "name": "kl <sweep>", "experiment": "experiments/kl.py", "command": "o1jax sweep experiments/kl.py",
    "claim": {"text": "A weaker KL term gives more KL & less held-out accuracy",
              "source": "a paper, section 5",
              "figure": "84.3 to 87.6", "checks": checks},
    "arms": [{"name": name, "overrides": {"rl.kl.coef": s}, "strength": s} for name, s in strengths.items()],
    "seeds": list(range(seeds)), "steps": 200, "layout": "2 x vmap 8",
    "meta": {"git": {"commit": "0123456789abcdef", "dirty": True}, "python": "3.12",
             "packages": {"jax": "0.12"},
             "platform": "Linux", "device": {"platform": "cpu", "kind": "cpu", "count": 2},
             "date": "2026-01-02"},
  }  # fmt: skip


def run(place: float, seed: int, steps: int) -> tuple[list[dict[str, Any]], float, float]:
  """The lines of one member, its final distance and accuracy: reward follows Gao's law with d = sqrt KL; d
  ends at `place`."""
  noise = np.random.default_rng([seed, int(1000 * place)])
  rows = []
  for step in range(1, steps + 1):
    t = step / 200
    d = place * (1 - math.exp(-3 * t)) + 0.002
    gold = 0.25 + d * (0.55 - 0.6 * math.log(d)) + 0.006 * seed + noise.normal(0, 0.008)
    entropy = 0.08 + 1.2 * math.exp(-2.5 * place * t) + noise.normal(0, 0.01)
    row = {
      "step": step, "stage": "rl", "time": 1.0,
      "reward": 0.95 - 0.2 * math.exp(entropy) + noise.normal(0, 0.02),
      "entropy": entropy, "kl/k3": d * d + noise.normal(0, 0.002),
      "grad_norm": 0.3 + abs(noise.normal(0, 0.1)),
      "completions/mean_length": 40 + 30 * t + noise.normal(0, 1),
    }  # fmt: skip
    if step % 10 == 0 or step == 1:
      row |= {
        "held_out/pass@1": gold,
        "ood/larger_targets/pass@1": 0.7 * gold,
        "kl_reverse": d * d,
        "kl_forward": d * d,
      }
    rows.append(row)
  return rows, d, gold


def member(arm: str, seed: int, d: float, gold: float) -> dict[str, Any]:
  noise = np.random.default_rng([seed, len(arm)])
  sets = {"held_out": gold, "ood/larger_targets": 0.7 * gold, "ood/more_numbers": 0.5 * gold}
  by_problem = {name: (noise.random(128) < p).astype(float).tolist() for name, p in sets.items()}
  final = {f"{name}/pass@1": float(np.mean(values)) for name, values in by_problem.items()}
  final |= {f"first/{name}/pass@1": 0.2 for name in sets}
  final |= {
    "kl_reverse": d * d * (1 + 0.01 * seed),
    "entropy": 0.3,
    "completions/mean_length": 70.0,
    "last/reward": 0.6,
  }
  return {"arm": arm, "seed": seed, "bad_step": None, "final": final, "by_problem": by_problem}


def write_sweep(
  folder: pathlib.Path, top: dict[str, Any], *, finished: bool = True, steps: int = 200, stop: tuple = ()
) -> pathlib.Path:
  """A folder as a sweep leaves it; `stop` is (arm, seed, step) of a member that a NaN stopped."""
  members = []
  for i, arm in enumerate(top["arms"]):
    for seed in top["seeds"]:
      bad = stop[2] if stop[:2] == (arm["name"], seed) else None
      rows, d, gold = run(1.3 / (1 + 1.2 * i), seed, bad or steps)
      path = folder / f"{arm['name']}-seed{seed}" / "metrics.jsonl"
      path.parent.mkdir(parents=True)
      path.write_text("".join(json.dumps(row) + "\n" for row in rows))
      members.append({**member(arm["name"], seed, d, gold), "bad_step": bad})
  write_json(folder / "sweep.json", top)
  if finished:
    write_json(folder / "results.json", {**top, "seconds": {"rl": 61.2}, "members": members})
  return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> pathlib.Path:
  folder = write_sweep(tmp_path_factory.mktemp("runs") / "kl", head(), stop=("kl0", 3, 150))
  assert write_sweep_report(folder) == folder / "report.html"
  return folder


def test_members_come_back_as_they_were_written(sweep) -> None:
  top, members = read_members(sweep)
  assert top["name"] == "kl <sweep>" and "members" not in top and len(members) == 16
  last = members[3]
  assert (last.arm, last.strength, last.seed, last.bad_step) == ("kl0", 0.0, 3, 150)
  steps, values = last.curves["held_out/pass@1"]
  np.testing.assert_array_equal(steps, [1, *range(10, 151, 10)])
  assert values.dtype == np.float64 and "time" not in last.curves and "stage" not in last.curves
  assert len(members[0].by_problem["ood/more_numbers"]) == 128
  assert members[0].final["held_out/pass@1"] == members[0].by_problem["held_out"].mean()


def test_what_a_set_of_problems_began_with_is_no_set_of_its_own(sweep) -> None:
  _, members = read_members(sweep)
  sets = ["held_out/pass@1", "ood/larger_targets/pass@1", "ood/more_numbers/pass@1"]
  assert sweep_plots.accuracy_metrics(members) == sets
  figure = sweep_plots.accuracy(members, sets)
  (legend,) = figure.legends
  labels = [text.get_text() for text in legend.get_texts()]
  assert labels == ["held out", "other kind: larger targets", "other kind: more numbers"]
  dotted = [line for line in figure.axes[0].get_lines() if line.get_linestyle() == ":"]
  assert [line.get_ydata()[0] for line in dotted] == pytest.approx([0.2] * 3)


def test_the_findings_are_the_same_at_every_call(sweep) -> None:
  results = findings(sweep)
  assert results == findings(sweep) and len(results) == 4
  assert results[1].holds == "yes" and results[2].holds == "yes"
  # The law that the members were made by: b = 0.6, over three seeds and up to step 150 of the fourth.
  assert results[2].effect == pytest.approx(0.6, abs=0.1) and results[3].holds == "yes"


def test_the_page_holds_all_it_shows(sweep) -> None:
  page = (sweep / "report.html").read_text(encoding="utf-8")
  pictures = {path.name: path.read_bytes() for path in sweep.glob("*.png")}
  assert set(pictures) == {"frontier.png", "curves.png", "accuracy.png", "law3.png", "law4.png"}
  assert all(data.startswith(PNG) and base64.b64encode(data).decode() in page for data in pictures.values())
  assert "http" not in page and "<script" not in page and "has not finished" not in page
  for text in (
    "<h1>kl &lt;sweep&gt;</h1>", "more KL &amp; less held-out",
    "Source: a paper, section 5. There: 84.3 to 87.6.",
    "has the highest mean held_out/pass@1", "biased upwards by the choice of the highest",
    "best minus this [each at 95%]",
    "measured [each at 95%]", "Final accuracy (mean, intervals each at 95%", ", adjusted for 4 checks",
    "Which arm is best", "adjusted for all 6 pairs", "2 x vmap 8",
    "0123456789abcdef, with changes", "<li>kl0, seed 3: step 150</li>", "KL, nats a token", "seconds: rl",
    "0.12",
  ):  # fmt: skip
    assert text in page, text


def test_an_unfinished_sweep_shows_what_there_is(tmp_path, capsys) -> None:
  folder = write_sweep(tmp_path / "kl", head(seeds=2), finished=False, steps=40)
  for name in ("kl0.1-seed1", "kl0.01-seed1"):
    (folder / name / "metrics.jsonl").unlink()
  assert cli.main(["report", str(folder)]) == 0
  assert capsys.readouterr().out.strip() == str(folder / "report.html")
  page = (folder / "report.html").read_text()
  assert "6 of 8 members have begun, and their last step is 40 of 200" in page
  assert "Which arm is best" not in page and "Final figures" not in page
  assert {path.name for path in folder.glob("*.png")} >= {"frontier.png", "curves.png"}


def test_a_sweep_that_has_only_begun_has_a_page(tmp_path) -> None:
  write_json(tmp_path / "sweep.json", head())
  page = write_sweep_report(tmp_path).read_text()
  assert "0 of 16 members have begun" in page and "<img" not in page


def test_arms_without_strengths_are_kinds(tmp_path) -> None:
  kinds = dict.fromkeys(("grpo", "rloo", "dr_grpo"))
  top = head(kinds, 1, [{"kind": "rising", "metric": "entropy", "arms": []}])
  page = write_sweep_report(write_sweep(tmp_path / "kinds", top, steps=20)).read_text()
  assert "Cannot be tested: it needs arms of two strengths" in page and "accuracy" in page
  _, members = read_members(tmp_path / "kinds")
  colours = [style.colour for style in sweep_plots.arm_styles(members).values()]
  assert len(set(colours)) == 3


def test_strengths_run_from_dark_to_light_and_zero_stands_apart(sweep) -> None:
  styles = sweep_plots.arm_styles(read_members(sweep)[1])
  assert list(styles) == list(STRENGTHS) and styles["kl0"].line == "--"
  lightness = [float(np.dot(styles[arm].colour[:3], [0.21, 0.72, 0.07])) for arm in list(STRENGTHS)[1:]]
  assert lightness == sorted(lightness)


def put(top: Any, path: list, value: Any) -> Any:
  """`top` with the value at `path` replaced, or without it where the value is None."""
  inner = top
  for key in path[:-1]:
    inner = inner[key]
  if value is None:
    del inner[path[-1]]
  else:
    inner[path[-1]] = value
  return top


@pytest.mark.parametrize(
  ("path", "value", "message"),
  [
    (["claim"], None, "results.json: claim: is missing"),
    (["claim", "checks", 0, "kind"], "greatest", r"results.json: claim.checks\[0\].kind: wants one of"),
    (["claim", "source"], 3, "results.json: claim.source: wants str"),
    (["arms", 1], {"name": "x"}, r"results.json: arms\[1\].strength: is missing"),
    (["steps"], "many", "results.json: steps: cannot be 'many'"),
    (["seconds", "rl"], "long", "results.json: seconds.rl: wants a number"),
    (["members"], [], "results.json: members: are none"),
    (["members", 2, "arm"], "other", r"results.json: members\[2\].arm: 'other' is no arm"),
    (["members", 2, "seed"], 9, r"kl0-seed9.metrics.jsonl: cannot be read"),
    (["members", 2, "final"], None, r"results.json: members\[2\].final: is missing"),
    (["members", 2, "final", "entropy"], "low", r"members\[2\].final.entropy: wants a number, has 'low'"),
    (["members", 2, "by_problem", "held_out"], [],
     r"members\[2\].by_problem.held_out: wants a list of numbers"),
  ],
)  # fmt: skip
def test_damage_is_told_in_one_line(sweep, tmp_path, path, value, message) -> None:
  for source in sweep.glob("*/metrics.jsonl"):
    (tmp_path / source.parent.name).mkdir()
    (tmp_path / source.parent.name / source.name).symlink_to(source)
  write_json(tmp_path / "results.json", put(json.loads((sweep / "results.json").read_text()), path, value))
  with pytest.raises(ConfigError, match=message) as error:
    write_sweep_report(tmp_path)
  assert "\n" not in str(error.value) and not (tmp_path / "report.html").exists()


def test_torn_json_and_damaged_lines_name_their_file(tmp_path, capsys) -> None:
  folder = write_sweep(tmp_path / "kl", head(seeds=1), steps=3)
  metrics = folder / "kl0-seed0" / "metrics.jsonl"
  metrics.write_text(metrics.read_text().replace('{"step": 2', '{"stop": 2'))
  assert cli.main(["report", str(folder)]) == 2
  assert "metrics.jsonl: row 2 is not a JSON object with a step" in capsys.readouterr().err
  (folder / "results.json").write_text('{"name": ')
  assert cli.main(["report", str(folder)]) == 2
  error = capsys.readouterr().err
  assert "results.json: cannot be read as JSON" in error and error.count("\n") == 1


def test_other_folders_hold_no_sweep(tmp_path) -> None:
  assert not holds_sweep(tmp_path)
  with pytest.raises(ConfigError, match="holds no sweep"):
    read_members(tmp_path)


def test_figures_that_are_not_finite_come_back(tmp_path) -> None:
  folder = write_sweep(tmp_path / "kl", head(seeds=1), steps=3)
  top = put(json.loads((folder / "results.json").read_text()), ["members", 0, "final", "entropy"], math.inf)
  write_json(folder / "results.json", top)
  assert read_members(folder)[1][0].final["entropy"] == math.inf


def test_missing_figures_and_unknown_intervals_are_told(tmp_path) -> None:
  folder = write_sweep(tmp_path / "kl", head(seeds=2), steps=3)
  top = json.loads((folder / "results.json").read_text())
  for row in top["members"]:
    row["by_problem"], row["final"] = {}, {"held_out/pass@1": 0.5}
    row["final"] |= {"last/reward": 0.6} if row["arm"] == "kl0" else {}
  write_json(folder / "results.json", top)
  page = write_sweep_report(folder).read_text()
  assert "<td>–</td>" in page and "+0.000 [unknown]" in page and "0.500 [unknown]" in page
