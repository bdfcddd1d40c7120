r"""The 25 instructions of IFEval, which a program can check (Zhou et al. 2023, arXiv 2311.07911, table 1).

Each check is a pure function (text, prompt, **arguments) -> bool of one response that is not blank. The rules
are those of the published checkers, quirks included, since published accuracies hold for them alone. Where a
published pattern can take quadratic time, a linear one that accepts the same texts stands here.

To add one: write its function, whose annotations say what its arguments have to be, and give it a place in
_GROUPS. A new kind of argument is a NewType and a line in ARGUMENTS.

Left out: the published checkers draw an argument that is missing or impossible at random; here it is an
error.
"""

import inspect
import itertools
import json
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, NewType, get_type_hints

from o1jax.verifiers.ifeval.language import LANGUAGES, detect
from o1jax.verifiers.ifeval.sentences import sentences, words

MAX_NESTING = 200  # of JSON; Python's own limit depends on the depth of the call

Count = NewType("Count", int)
Relation = NewType("Relation", str)
Phrase = NewType("Phrase", str)
Pattern = NewType("Pattern", str)
Patterns = NewType("Patterns", tuple)
Letter = NewType("Letter", str)
Language = NewType("Language", str)

RELATIONS: dict[str, Callable[[int, int], bool]] = {"at least": operator.ge, "less than": operator.lt}
OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def _count(value: Any) -> int:
  is_count = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1 >= 0
  return int(_right(value, is_count, "a whole number"))  # tables of other libraries hold 3 as 3.0


def _relation(value: Any) -> str:
  return _right(value, isinstance(value, str) and value in RELATIONS, " or ".join(map(repr, RELATIONS)))


def _phrase(value: Any) -> str:
  return _right(value, isinstance(value, str) and bool(value.strip()), "a text that is not blank")


def _pattern(value: Any) -> str:
  return _right(_phrase(value), _compiles(value), "a word, which is read as a regular expression")


def _patterns(value: Any) -> tuple[str, ...]:
  _right(value, isinstance(value, (list, tuple)) and len(value) > 0, "a list of words")
  return tuple(_pattern(item) for item in value)


def _letter(value: Any) -> str:
  return _right(value, isinstance(value, str) and len(value.strip()) == 1 == len(value), "one letter")


def _language(value: Any) -> str:
  return _right(value, isinstance(value, str) and value in LANGUAGES, "the code of a language, such as 'en'")


def _right(value: Any, is_right: bool, kind: str) -> Any:
  if not is_right:
    raise ValueError(f"wants {kind}, has {repr(value)[:80]}")
  return value


def _compiles(pattern: str) -> bool:
  try:
    re.compile(pattern)
  except re.error:
    return False
  return True


# What an argument of each kind has to be: each gives the value to pass on, or raises ValueError.
ARGUMENTS: dict[Any, Callable[[Any], Any]] = {
  Count: _count,
  Relation: _relation,
  Phrase: _phrase,
  Pattern: _pattern,
  Patterns: _patterns,
  Letter: _letter,
  Language: _language,
}


def read_arguments(name: str, raw: Mapping[str, Any]) -> dict[str, Any]:
  """The arguments of the instruction `name`, checked; those that are None, another's, are dropped.

  Raises ValueError where there is no such instruction, or one is missing, unknown or not what it has to be.
  """
  if name not in INSTRUCTIONS:
    raise ValueError("there is no such instruction")
  kinds = get_type_hints(INSTRUCTIONS[name])
  parameters = inspect.signature(INSTRUCTIONS[name]).parameters.values()
  named = [each for each in parameters if each.kind is each.KEYWORD_ONLY]
  given = {key: value for key, value in raw.items() if value is not None}
  if unknown := given.keys() - {each.name for each in named}:
    raise ValueError(f"has no argument {min(unknown)!r}")
  if missing := [each.name for each in named if each.default is each.empty and each.name not in given]:
    raise ValueError(f"its argument {missing[0]!r} is missing")
  out = {}
  for key, value in given.items():
    try:
      out[key] = ARGUMENTS[kinds[key]](value)
    except ValueError as error:
      raise ValueError(f"its argument {key!r} {error}") from None
  if name in TOGETHER and not TOGETHER[name](**out):
    raise ValueError(f"its arguments {out} cannot all hold")
  return out


def existence(text: str, prompt: str, *, keywords: Patterns) -> bool:
  """Each keyword, read as a regular expression, occurs in any case, inside of other words too."""
  return all(re.search(keyword, text, re.IGNORECASE) is not None for keyword in keywords)


def frequency(text: str, prompt: str, *, keyword: Pattern, frequency: Count, relation: Relation) -> bool:
  """The keyword occurs that often, counted as `existence` finds it, without overlaps."""
  return RELATIONS[relation](len(re.findall(keyword.strip(), text, re.IGNORECASE)), frequency)


def forbidden_words(text: str, prompt: str, *, forbidden_words: Patterns) -> bool:
  r"""None of the words occurs, in any case, between two word boundaries (`\b`)."""
  return all(re.search(rf"\b{word}\b", text, re.IGNORECASE) is None for word in forbidden_words)


def letter_frequency(
  text: str, prompt: str, *, letter: Letter, let_frequency: Count, let_relation: Relation
) -> bool:
  """The letter, or any other character, occurs that often, in any case."""
  return RELATIONS[let_relation](text.lower().count(letter.lower()), let_frequency)


def response_language(text: str, prompt: str, *, language: Language) -> bool:
  """The text is in the language. One that holds nothing to tell it by (digits, say) passes, as published."""
  return detect(text) in (language, None)


def number_sentences(text: str, prompt: str, *, num_sentences: Count, relation: Relation) -> bool:
  """The text has that many sentences."""
  return RELATIONS[relation](len(sentences(text)), num_sentences)


def number_paragraphs(text: str, prompt: str, *, num_paragraphs: Count) -> bool:
  """Exactly that many paragraphs, divided by `***`. Blank ones at an end do not count, between they fail."""
  first, *others = re.split(r"\s?\*\*\*\s?", text)
  inner, last = others[:-1], others[-1:]
  blank_ends = sum(not part.strip() for part in (first, *last))
  return all(part.strip() for part in inner) and 1 + len(others) - blank_ends == num_paragraphs


def number_words(text: str, prompt: str, *, num_words: Count, relation: Relation) -> bool:
  r"""That many words, each a run of letters, digits and underscores (`\w+`): `don't` is two."""
  return RELATIONS[relation](len(re.findall(r"\w+", text)), num_words)


def nth_paragraph_first_word(
  text: str, prompt: str, *, num_paragraphs: Count, nth_paragraph: Count, first_word: Phrase
) -> bool:
  r"""Exactly that many paragraphs that are not blank, divided by "\n\n", and the nth begins with the word.

  The nth is counted among all paragraphs, blank ones included, though it has to be within the number of the
  others. Its first word is what stands before the first of .,?!'" once quotes before it are taken off, in any
  case.
  """
  paragraphs = text.split("\n\n")
  filled = sum(bool(paragraph.strip()) for paragraph in paragraphs)
  if nth_paragraph > filled or not paragraphs[nth_paragraph - 1].strip():
    return False
  word = paragraphs[nth_paragraph - 1].split(maxsplit=1)[0].lstrip("'").lstrip('"')
  start = "".join(letter.lower() for letter in re.split(r"""[.,?!'"]""", word, maxsplit=1)[0])
  return filled == num_paragraphs and start == first_word.lower()


def number_placeholders(text: str, prompt: str, *, num_placeholders: Count) -> bool:
  r"""At least that many `[...]` within a line, as `\[.*?\]` finds them: `[[a]` is one, `[]` is one."""
  return sum(_brackets(line) for line in text.split("\n")) >= num_placeholders


def _brackets(line: str) -> int:
  """How often an opening bracket has a closing one behind it, without overlaps."""
  count = end = 0
  while (start := line.find("[", end)) >= 0 and (end := line.find("]", start) + 1) > 0:
    count += 1
  return count


def postscript(text: str, prompt: str, *, postscript_marker: Pattern) -> bool:
  """The marker occurs anywhere, in any case, `P.S.` and `P.P.S` also with a space after a full stop."""
  marker = postscript_marker.strip()
  pattern = _POSTSCRIPTS.get(marker, marker.lower())
  return re.search(pattern, text.lower(), re.MULTILINE) is not None


_POSTSCRIPTS = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}


def number_bullet_lists(text: str, prompt: str, *, num_bullets: Count) -> bool:
  """Exactly that many lines that begin with `*` or `-` after white space.

  As published, `**` begins none, `---` does, and a `*` that is alone on its line is one with the line below
  it.
  """
  stars = re.findall(r"^[^\S\n]*\*[^*].*$", text, re.MULTILINE)
  dashes = re.findall(r"^[^\S\n]*-", text, re.MULTILINE)
  return len(stars) + len(dashes) == num_bullets


def constrained_response(text: str, prompt: str) -> bool:
  """One of the three OPTIONS occurs, letter for letter."""
  return any(option in text for option in OPTIONS)


def number_highlighted_sections(text: str, prompt: str, *, num_highlights: Count) -> bool:
  """At least that many `*...*` and `**...**` within a line that are not blank inside; `**a**` counts once.

  Both are looked for in all of the text, so that a star can close one and belong to another.
  """
  single = re.findall(r"\*[^\n*]*\*", text)
  double = re.findall(r"\*\*[^\n*]*\*\*", text)
  insides = [text.strip("*") for text in single] + [text[2:-2] for text in double]
  return sum(bool(inside.strip()) for inside in insides) >= num_highlights


def multiple_sections(text: str, prompt: str, *, section_spliter: Pattern, num_sections: Count) -> bool:
  r"""At least that many headings, the word and a number with a white space between or none: `Day\s?\d+`."""
  return len(re.split(rf"\s?{section_spliter.strip()}\s?\d+\s?", text)) - 1 >= num_sections


def json_format(text: str, prompt: str) -> bool:
  """The text is one JSON value, a bare string or number too, at most within a fence of ``` or ```json.

  Raises RecursionError where it begins with a bracket, and brackets nest deeper than MAX_NESTING.
  """
  text = text.strip()
  for fence in ("```json", "```Json", "```JSON", "```"):
    text = text.removeprefix(fence)
  text = text.removesuffix("```").strip()
  steps = ((letter in "[{") - (letter in "]}") for letter in text)
  if text.startswith(("[", "{")) and max(itertools.accumulate(steps)) > MAX_NESTING:
    raise RecursionError(f"JSON nested deeper than {MAX_NESTING}")
  try:
    json.loads(text)
  except ValueError:
    return False
  return True


def title(text: str, prompt: str) -> bool:
  """A line holds `<<...>>` with something inside that is neither blank nor an angle bracket at its end."""
  return any(_titled(line) for line in text.split("\n"))


def _titled(line: str) -> bool:
  r"""Whether what `<<[^\n]+>>` finds in a line, from first `<<` to last `>>`, is more than brackets."""
  start, end = line.find("<<"), line.rfind(">>")
  return 0 <= start <= end - 3 and bool(line[start : end + 2].lstrip("<").rstrip(">").strip())


def two_responses(text: str, prompt: str) -> bool:
  """Exactly two different texts divided by `******`. Blank ones at an end do not count, between they fail."""
  parts = [part.strip() for part in text.split("******")]
  filled = [part for part in parts if part]
  return all(parts[1:-1]) and len(filled) == 2 and filled[0] != filled[1]


def repeat_prompt(text: str, prompt: str, *, prompt_to_repeat: Phrase) -> bool:
  """The text begins with the request, in any case."""
  return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(text: str, prompt: str, *, end_phrase: Phrase) -> bool:
  """The text ends with the phrase, in any case; double quotes around the text are taken off first."""
  return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(text: str, prompt: str) -> bool:
  """The text begins and ends with a straight double quote, and not the same one."""
  text = text.strip()
  return len(text) > 1 and text[0] == '"' == text[-1]


def capital_word_frequency(
  text: str, prompt: str, *, capital_frequency: Count, capital_relation: Relation
) -> bool:
  """That many tokens in capitals, `I` and `U.S.` among them; a hyphenated word is one, `IT'S` are two."""
  return RELATIONS[capital_relation](sum(word.isupper() for word in words(text)), capital_frequency)


def english_capital(text: str, prompt: str) -> bool:
  """The text is in English, or has nothing to tell it by, and has letters, none of them small."""
  return text.isupper() and detect(text) in ("en", None)


def english_lowercase(text: str, prompt: str) -> bool:
  """The text is in English, or has nothing to tell it by, and has letters, none of them capital."""
  return text.islower() and detect(text) in ("en", None)


def no_comma(text: str, prompt: str) -> bool:
  """No `,`; commas of other scripts are let pass."""
  return "," not in text


_GROUPS: dict[str, tuple[Callable[..., bool], ...]] = {
  "change_case": (capital_word_frequency, english_capital, english_lowercase),
  "combination": (repeat_prompt, two_responses),
  "detectable_content": (number_placeholders, postscript),
  "detectable_format": (
    constrained_response,
    json_format,
    multiple_sections,
    number_bullet_lists,
    number_highlighted_sections,
    title,
  ),
  "keywords": (existence, forbidden_words, frequency, letter_frequency),
  "language": (response_language,),
  "length_constraints": (nth_paragraph_first_word, number_paragraphs, number_sentences, number_words),
  "punctuation": (no_comma,),
  "startend": (end_checker, quotation),
}
INSTRUCTIONS = {f"{group}:{check.__name__}": check for group, checks in _GROUPS.items() for check in checks}

# Which arguments, each right by itself, are right together; of instructions where not all are.
TOGETHER: dict[str, Callable[..., bool]] = {
  "length_constraints:nth_paragraph_first_word": lambda num_paragraphs, nth_paragraph, first_word: (
    1 <= nth_paragraph <= num_paragraphs
  )
}
