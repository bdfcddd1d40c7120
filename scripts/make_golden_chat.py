"""Derives tests/data/golden/chat/renders.json from transformers (extra `parity`). Reads no o1jax code.

  python scripts/make_golden_chat.py [--folder tests/data/golden/chat]

Each NAME.jinja beside the file is a chat template with the constructs of the published one of that family,
its parts for tools left out. transformers renders conversations with it, its clock standing at DAY.
"""

import argparse
import datetime
import itertools
import json
import pathlib

from transformers.utils import chat_template_utils

DAY = datetime.datetime(2025, 3, 9)
TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
QUESTION = {"role": "user", "content": "What is 2 + 2?"}
AWKWARD = {"role": "user", "content": "\n  ¿Qué? <b>&amp; \"q\" 'r' {{ x }} {% y %} 日本 \t\n"}
SYSTEM = {"role": "system", "content": " Be brief. "}
REPLY = {"role": "assistant", "content": "<think>\nTwo and two.\n</think>\n\nIt is 4. "}
CONVERSATIONS = {
  "question": [QUESTION],
  "awkward": [AWKWARD],
  "system": [SYSTEM, QUESTION],
  "turns": [QUESTION, REPLY, AWKWARD],
  "reply": [SYSTEM, QUESTION, REPLY],
}


class Clock(datetime.datetime):
  """A clock that stands."""

  @classmethod
  def now(cls, tz=None):
    return DAY


def render(template: str, messages: list[dict[str, str]], variables: dict) -> dict[str, str]:
  """{"text": ...}, or {"error": ...} where the template raises."""
  try:
    rendered, _ = chat_template_utils.render_jinja_template([messages], chat_template=template, **variables)
  except Exception as error:
    return {"error": str(error)}
  return {"text": rendered[0]}


def cases_of(path: pathlib.Path) -> list[dict]:
  """Each conversation with the generation prompt and without, Qwen3's with each value of its switch too."""
  switches = ({}, {"enable_thinking": True}, {"enable_thinking": False}) if path.stem == "qwen3" else ({},)
  cases = []
  for (name, messages), prompted, switch in itertools.product(CONVERSATIONS.items(), (True, False), switches):
    shown = render(path.read_text(), messages, {"add_generation_prompt": prompted, **TOKENS, **switch})
    case = {"template": path.stem, "conversation": name, "add_generation_prompt": prompted}
    cases.append({**case, "variables": switch, **shown})
  return cases


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("tests/data/golden/chat"))
  folder = parser.parse_args().folder
  chat_template_utils.datetime = Clock
  cases = [case for path in sorted(folder.glob("*.jinja")) for case in cases_of(path)]
  out = {"day": DAY.date().isoformat(), "tokens": TOKENS, "conversations": CONVERSATIONS, "cases": cases}
  (folder / "renders.json").write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
  main()
