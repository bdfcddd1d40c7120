r"""The unit behind an answer, taken off and kept: `5 \text{ cm}^2`, `5 dollars`, `90^\circ`, `12 (apples)`.

Graders let units be left out; two that are both stated and known must agree. Words that change a number's
value (`5 million`, `5 or more`) are no unit, nor are letters that may be factors (`4\mathrm{R}`).
"""

import re

from o1jax.verifiers.math.text import CURRENCY_SIGN, parts

_NAMES = {
  "mm": "mm millimeter millimetre", "cm": "cm centimeter centimetre", "m": "m meter metre",
  "km": "km kilometer kilometre", "in": "in inch inche", "ft": "ft foot feet", "yd": "yd yard",
  "mi": "mi mile", "mg": "mg milligram", "g": "g gram", "kg": "kg kilogram", "lb": "lb pound",
  "oz": "oz ounce", "ton": "ton tonne", "s": "s sec second", "min": "min minute", "h": "h hr hour",
  "day": "day", "week": "week", "month": "month", "year": "yr year", "ml": "ml milliliter millilitre",
  "l": "l liter litre", "gal": "gal gallon", "deg": "deg degree", "rad": "rad radian", "$": "dollar usd",
  "cent": "cent", "unit": "unit", "mi/h": "mph", "km/h": "kph kmh", "hz": "hz hertz", "pa": "pa pascal",
  "j": "joule", "w": "watt", "n": "newton",
}  # fmt: skip
_KNOWN = {name: unit for unit, names in _NAMES.items() for name in names.split()}
_KNOWN |= {f"{name}s": unit for name, unit in _KNOWN.items() if len(name) > 1}
_KNOWN["ms"] = "ms"  # milliseconds, or metres and seconds: no plural
_POWERS = {"sq": "2", "square": "2", "cu": "3", "cubic": "3"}
_JOINTS = {"per", *_POWERS}

# Words behind a number that are no unit: they change its value, or hold an alternative to it.
_NUMBER_WORDS = (
  r"half|halves|quarter|first|third|(?:thir|four|fif|six|seven|eigh|ni|ten|eleven|twelf|hundred|thousand"
  r"|[mbtrqz]+illion)th|(?:twen|thir|for|four|fif|six|seven|eigh|nine)(?:teen(?:th)?|ty|tieth)|ninth|one|two"
  r"|three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundred|thousand|[mbtrqz]+illion|lakh|lac|crore"
  r"|grand|bn|mn|mil|mill|mio|dozen|score|gross|pi|infinity"
)
CHANGES_VALUE = re.compile(
  rf"(?i)\b(?:{_NUMBER_WORDS}|or|and|either|neither|nor|but|maybe|perhaps|probably|possibly|likely|not|isnt"
  rf"|no|never|is|are|wrong"
  r"|incorrect|plus|minus|times|negative|squared|cubed|double|doubled|triple|tripled|halved|quadrupled"
  r"|inverse|reciprocal|repeating|recurring|less|more|than|least|most|greater|smaller|fewer|above|below|under"
  r"|between|through|from|about|roughly|approximately|approx|around|nearly|almost|remainder|base|mod|modulo"
  r"|over|divided|multiplied|added|subtracted|if|unless"
  r"|except|instead|percent|pct|percentage|too|factorial|point|root|power|to)s?\b"
)
_FUNCTIONS = frozenset({"sqrt", "sinh", "cosh", "tanh", "choose"})
_QUANTITIES = frozenset("abdeiknpqrtuvwxyz")  # letters that stand for a quantity rather than for a unit
_MAX_WORDS = 4
_POWER = r"(?:\s?\^\s?\{?(?P<power>-?[123])\}?)?"
_UNIT = re.compile(
  r"(?P<head>.*(?:[^\s,(\[](?=\s?\\text)|[0-9)}]|\\pi(?=\s)))(?P<space>\s?)(?P<wrap>\\text\s?\{\s*)?"
  rf"(?P<unit>[^\W\d_](?:[^\W\d_]|[ ./\-])*(?:\^\{{?-?[123]\}}?)?)(?(wrap)\s*\}}){_POWER}"
)
# `(\text{cm}^2)`, `\text{(days)}`, `(days)`: a unit in brackets of its own.
_BRACKETED = re.compile(
  r"(?<=[0-9}])\s?(?:\\text\{\s*\((?P<a>[^\W\d_][^(){}]*)\)\s*\}"
  r"|\(\s?(?P<wrap>\\text\{\s*)?(?P<b>[a-zA-Z][^(){}\\]*?)"
  r"(?(wrap)\})(?P<power>\^\{?[23]\}?)?\s?\))(?=\s?(?:\^\s?\{?[23]\}?)?$)"
)
_DEGREES = re.compile(r"\s?\^\s?(?:\{\s*\\circ\s*\}|\\circ)(?:\s?(?:\\text\{\s?)?[CF]\b\}?)?|\\degree\b")
_TURNED = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")  # functions of an angle
_ANGLE = re.compile(rf"(?P<angle>[0-9.]+)(?:{_DEGREES.pattern})")
_ORDINAL = re.compile(r"(?P<head>[0-9]+)(?:\^?\{?\\text\{\s?(?:st|nd|rd|th)\}\}?|st|nd|rd|th)")
_AND = re.compile(r"(?:,\s?)?(?:(?P<unit>\\text\{\s*[^{}\s]+\s)and\s*\}|\\text\{\s*and\s*\}|\band\b)")


def split_unit(text: str) -> tuple[str, str | None]:
  """(the answer, or each entry of a list, without its unit; the canonical unit, None for `12 apples`)."""
  bare = text.replace(CURRENCY_SIGN, " ").strip()
  angles = _ANGLE.sub(r"(\\frac{\g<angle>\\pi}{180})", bare) if _TURNED.search(bare) else bare
  measure = (angles if _TURNED.search(bare) else _DEGREES.sub(" ", bare)).strip()
  sign = "$" if CURRENCY_SIGN in text else "deg" if measure != bare else None
  if (ordinal := _ORDINAL.fullmatch(measure)) is not None:
    return ordinal["head"], sign
  entries = parts(_AND.sub(lambda match: f"{match['unit'] + '}' if match['unit'] else ''},", measure), ",")
  if len(entries) > 1 and not measure.startswith("\\text"):
    split = [_one(entry) for entry in entries]
    taken_off = all(head != entry for (head, _), entry in zip(split, entries))
    if taken_off and len({unit for _, unit in split}) == 1:
      return ", ".join(head for head, _ in split), sign or split[0][1]
  head, unit = _one(measure)
  return head, sign or unit


def _one(text: str) -> tuple[str, str | None]:
  match = _UNIT.fullmatch(_BRACKETED.sub(_without_brackets, text))
  if match is None or not _is_unit(match):
    return text, None
  return match["head"], _canonical(match["unit"], match["power"] or "")


def _without_brackets(match: re.Match[str]) -> str:
  unit = match["a"] or match["b"]
  shown = rf"\text{{ {unit}}}" if match["a"] or match["wrap"] else unit
  return f" {shown}{match['power'] or ''}"


def _is_unit(match: re.Match[str]) -> bool:
  r"""Without `\text` (`3 ab` and `5 m` are products) words are known ones or have four letters at least."""
  unit, wrapped = match["unit"], match["wrap"]
  words = [word for word in re.split(r"[\W\d_]+", unit) if word]
  if len(words) > _MAX_WORDS or _FUNCTIONS & set(words) or CHANGES_VALUE.search(unit):
    return False
  if wrapped:  # `5 \text{ ft } 6 \text{ in}` has two
    factor = unit in _QUANTITIES or len(unit) < 3 and unit.isascii() and unit.isupper()
    return not factor and "\\text" not in match["head"].rpartition("=")[2]
  known = [word.lower() in _KNOWN or word.lower() in _JOINTS for word in words]
  spelt = match["space"] and all(good or len(word) > 3 for good, word in zip(known, words))
  longer = max(map(len, words)) > 1 or "/" in unit
  return longer and bool(all(known) or spelt) or not any(map(str.isascii, words))


def _canonical(unit: str, power: str) -> str | None:
  """One spelling of a measure; None for words that are none."""
  words = re.findall(r"[^\W\d_]+", unit.lower())
  names = [_KNOWN.get(word) for word in words if word not in _JOINTS]
  powers = re.findall("[23]", unit + power) or [_POWERS[word] for word in words if word in _POWERS]
  return None if None in names else "/".join(filter(None, names)) + "".join(powers)
