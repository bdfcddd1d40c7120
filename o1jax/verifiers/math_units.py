r"""The unit behind an answer: `5 \text{ cm}^2`, `5 dollars`, `90^\circ`, `12 apples`. It is taken off, and kept.

Graders of such problems let units be left out. Two units that are both stated and both known must agree, though: 5 cm
is not 5 m. Words that would change a number's value (`5 million`, `5 or more`) are no unit.
"""

import re

from o1jax.verifiers.math_text import CURRENCY_SIGN

_NAMES = {
  "mm": "mm millimeter millimetre", "cm": "cm centimeter centimetre", "m": "m meter metre",
  "km": "km kilometer kilometre", "in": "in inch inche", "ft": "ft foot feet", "yd": "yd yard", "mi": "mi mile",
  "mg": "mg milligram", "g": "g gram", "kg": "kg kilogram", "lb": "lb pound", "oz": "oz ounce", "ton": "ton tonne",
  "s": "s sec second", "min": "min minute", "h": "h hr hour", "day": "day", "week": "week", "month": "month",
  "year": "yr year", "ml": "ml milliliter millilitre", "l": "l liter litre", "gal": "gal gallon",
  "deg": "deg degree", "rad": "rad radian", "$": "dollar usd", "cent": "cent", "unit": "unit",
  "mi/h": "mph", "km/h": "kph kmh",
}  # fmt: skip
_KNOWN = {name: unit for unit, names in _NAMES.items() for name in names.split()}
_KNOWN |= {f"{name}s": unit for name, unit in _KNOWN.items() if len(name) > 1}
_POWERS = {"": "", "sq": "2", "square": "2", "cu": "3", "cubic": "3"}
_JOINTS = frozenset({"per", *_POWERS} - {""})

# Words behind a number that are no unit: they change its value, or hold an alternative to it.
_CHANGES_VALUE = re.compile(
  r"\b(?:hundred|thousand|million|billion|trillion|dozen|score|gross|half|halves|third|quarter|fourth|fifth|sixth|seventh"
  r"|eighth|ninth|tenth|eleventh|twelfth|hundredth|thousandth|millionth|billionth|or|and|either|neither|nor|but|maybe"
  r"|perhaps|probably|possibly|likely|not|isnt|no|never|is|are|wrong|incorrect|plus|minus|times|negative|squared|cubed"
  r"|doubled|tripled|inverse|reciprocal|repeating|recurring|less|more|than|least|most|greater|smaller|fewer|above|below"
  r"|under|between|through|from|about|roughly|approximately|approx|around|nearly|almost|remainder|base|mod|modulo|over"
  r"|divided|multiplied|if|unless|except|instead|percent|pct|percentage|infinity|pi|one|two|three|four|five|six|seven"
  r"|eight|nine|ten)s?\b",
  re.IGNORECASE,
)
_FUNCTIONS = frozenset({"sqrt", "sinh", "cosh", "tanh", "choose", "factorial"})
# Single letters that stand for a quantity rather than for a unit.
_QUANTITIES = frozenset("abdeiknpqrtuvwxyz")
_MAX_WORDS = 4

_POWER = r"(?:\s?\^\s?\{?(?P<power>[23])\}?)?"
_WORDS = r"(?P<unit>[a-zA-Z][a-zA-Z ./\-]*(?:\^\{?[23]\}?)?)"
_WRAPPED = re.compile(rf"(?P<head>.*[^\s,(\[])\s?\\text\{{\s*{_WORDS}\s*\}}{_POWER}")
_PLAIN = re.compile(rf"(?P<head>.*(?:[0-9)}}]|\\pi(?=\s)))(?P<space>\s?){_WORDS}{_POWER}")
_DEGREES = re.compile(
  r"\s?\^\s?(?:\{\s*\\circ\s*\}|\\circ)(?:\s?(?:\\text\{\s?)?[CF]\b\}?)?|\\degree(?![a-zA-Z])"
)
_ORDINAL = re.compile(r"(?P<head>[0-9]+)(?:\^?\{?\\text\{\s?(?:st|nd|rd|th)\}\}?|st|nd|rd|th)")
_ONE_MEASURE = re.compile(
  r"(?:(?P<shape>sq|square|cu|cubic) )?(?P<name>[a-z]+)\s?(?:\^\{?(?P<power>[23])\}?)?"
)


def split_unit(text: str) -> tuple[str, str | None]:
  """(the answer without its unit, the unit in canonical form), from a cleaned text.

  The unit is None where there is none or only words that are no measure: `12 apples` is 12.
  """
  bare = text.replace(CURRENCY_SIGN, " ").strip()
  whole = _DEGREES.sub(" ", bare).strip()
  sign = "$" if CURRENCY_SIGN in text else "deg" if whole != bare else None
  if (ordinal := _ORDINAL.fullmatch(whole)) is not None:
    return ordinal["head"], sign
  for pattern, is_unit in ((_WRAPPED, _is_wrapped_unit), (_PLAIN, _is_plain_unit)):
    match = pattern.fullmatch(whole)
    if match is not None and is_unit(match):
      return match["head"], sign or _canonical(match["unit"], match["power"] or "")
  return whole, sign


def _is_wrapped_unit(match: re.Match[str]) -> bool:
  unit, head = match["unit"], match["head"]
  # `5 \text{ ft } 6 \text{ in}` has two.
  few = len(unit.split()) <= _MAX_WORDS and "\\text" not in head.rpartition("=")[2]
  no_unit = unit in _QUANTITIES or _FUNCTIONS & set(unit.lower().split()) or _CHANGES_VALUE.search(unit)
  return few and not no_unit


def _is_plain_unit(match: re.Match[str]) -> bool:
  r"""Without `\text`, `3 ab` and `5 m` are products: a unit's words are known ones or of four letters at least."""
  words = [word for word in re.split(r"[^a-z]+", match["unit"].lower()) if word]
  if len(words) > _MAX_WORDS or max(map(len, words)) == 1 or _FUNCTIONS & set(words):
    return False
  known = all(word in _KNOWN or word in _JOINTS for word in words)
  spelt = match["space"] and all(len(word) > 3 or word in _KNOWN or word in _JOINTS for word in words)
  return bool(known or spelt) and not _CHANGES_VALUE.search(match["unit"])


def _canonical(unit: str, power: str) -> str | None:
  """One spelling of a measure; None for words that are none."""
  text = re.sub(r"\s*(?:\bper\b|/)\s*", "/", unit.lower().replace(".", " ").strip())
  parts = []
  for part in text.split("/"):
    match = _ONE_MEASURE.fullmatch(part.strip())
    if match is None or match["name"] not in _KNOWN:
      return None
    parts.append(_KNOWN[match["name"]] + (match["power"] or _POWERS[match["shape"] or ""]))
  return "/".join(parts) + power
