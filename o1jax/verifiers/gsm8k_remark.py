r"""Text behind a number that leaves its value alone: a unit, a remark, closing punctuation.

    18: `18 dollars a day`, `18 no-shows`, `18 cm^2`. Not 18: `18 point five`, `18 dozen`, `18 isn't right`

Units are an open class, so that what changes a value, or takes it back, is listed: numbers in words,
multipliers, operations, hedges and denials. In doubt it does change it.
"""

import re

# A remark is made of letters and these signs, and of the joints of "5-year" and "$18/hour".
_SIGNS = frozenset(" .,;:()'\"$€£¥₹%°&")
_JOINT = re.compile(r"(?:^|(?<=[^\W\d_]))-(?=[^\W\d_]{2})|/(?= ?[^\W\d_])")
_ELLIPSIS = re.compile(r"\. ?\.")
# Factors and unknowns: 18k, 5x, 3i, 2π.
_ATTACHED = re.compile(r"(?:(?:[kmbenxyz]|mn|bn|mil)\b|(?-i:[aijqruvw]\b)|[α-ω])", re.IGNORECASE)
_AREA = re.compile(
  r"(?<![^\W\d_])(?:[mcdk]?m|ft|in|yds?|mi|s|secs?|hr?|feet|foot|inch(?:es)?|(?:centi|milli|kilo)?met(?:er"
  r"|re)s?|yards?|miles?|seconds?|units?)(?: ?(?:\^ ?(?:\{ ?[23] ?\}|[23])|[²³])| (?:squared|cubed)\b)",
  re.IGNORECASE,
)

_NUMBER = (
  r"(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
  r"|(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty)"
)
_PART = (
  r"(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|[a-z]{3,5}t(?:een|ie)th"
  r"|hundredth)"
)
_SCALE = (
  r"(?:hundred|thousand\w*|(?:m|b|tr|quadr)illi?on\w*|milli?ard\w*|dozen|lakh|lac|crore|bn|mn|mill?|mille"
  r"|thou|tausend|dutzend|docena|fold)"
)
_COUNTS = rf"(?:{_NUMBER}|twent(?:ies)|\w+ties|sixes|{_PART}|{_SCALE}|half|halves|plus|minus|times)s?"
_JOINED = r"(?:of|and|or|to|in|the|less|more|fewer|power|that|this|as|it|a|an)"

# `five-dollar bills`, `no-shows`, `half-hour`; but not `twenty-five`, `two-thirds`, `one-and-a-half`.
_COMPOUND = re.compile(
  rf"\b(?:{_NUMBER}|{_PART}|half|quarter|no|plus)"
  rf"(?![\w-]*-(?:{_COUNTS}|quarters?|and|or|to|point)\b)(?:-[^\W\d_]+)+",
  re.IGNORECASE,
)
# `18 dollars for two days`, `18 per dozen`: a number in words that belongs to something else.
_APART = re.compile(
  rf"\b(?:for|per|during|within|after|every|among|in|of (?:the|these|those))(?: (?:the|these|those|all))?"
  rf" (?:{_NUMBER}|hundred|thousand|dozen)\b",
  re.IGNORECASE,
)
# `third graders`
_ORDINAL = re.compile(
  rf"\b(?:{_PART}|half|quarter|double|triple) (?!{_JOINED}\b)(?=[a-z]{{2}})", re.IGNORECASE
)
_CHANGES = re.compile(
  # other numbers, multipliers
  rf"\b(?:{_COUNTS.replace('|times', '')}|quarter|double|triple|treble|quadruple|\w+fold)\b"
  r"|\b(?:(?-i:[kKMBTG])|[inxyz]|pi|twice|thrice|grand|gross|scores?)(?=\W*$| of\b)|\b[nxz]\b|[α-ω√]"
  r"|[十百万萬亿億兆半两二三四五六七八九倍不或非多]|千(?![克米瓦卡])|左右|以上|以下"
  r"|\b(?:binary|hexadecimal|octal|factorial|modulo|remainder|reciprocal|inverted|negated|negative)\b"
  # operations
  r"|\b(?:doubl|tripl|trebl|quadrupl|halv|squar|cub)(?:ed|ing)\b|\btimes (?:itself|[b-z]\b)|\braised to\b"
  r"|\b(?:multiplied|divided|increased|decreased|reduced|added|subtracted|deducted|taken) (?:by|to|from|with"
  r"|into)\b|\band (?:an?|another|some|something|then|more|counting|up|above|over|change|part|half)\b"
  # hedges
  r"|\b(?:or|either|maybe|perhaps|possibly|probably|presumably|supposedly|likely|unlikely|alternatively"
  r"|versus|vs|roughly|approximately|approx|circa|almost|nearly|ish|if|unless|except|something|guess\w*|think"
  r"|suppose|believe|unsure|uncertain|doubt\w*|unclear|might|could|may)\b|\bat (?:least|most|minimum|maximum"
  r"|best|worst)\b|\b(?:about|around)\W*$"
  # denials
  r"|\b(?:not?|nor|neither|never|cannot|wrong\w*|incorrect\w*|false|untrue|invalid|inaccurate|mistake\w*"
  r"|errors?|(?:is|are|was|ca|wo|do|does|could|ai)nt|impossible|rejected|oops|nope|correction|wait)\b|n't\b"
  r"|\btoo (?:small|large|big|high|low|many|few|much)\b"
  r"|\b(?:scratch|strike|forget|ignore) (?:that|it|this)\b|\b(?:ruled|crossed) out\b",
  re.IGNORECASE,
)


def is_remark(rest: str) -> bool:
  """Whether what follows a number leaves its value alone. Takes time linear in the text."""
  if not rest:
    return True
  rest = _AREA.sub("units", rest)
  if _ATTACHED.match(rest) is not None or _ELLIPSIS.search(rest) is not None:
    return False
  for harmless in (_COMPOUND, _APART, _ORDINAL):
    rest = harmless.sub(" ", rest)
  rest = _JOINT.sub(" ", rest)
  return all(letter.isalpha() or letter in _SIGNS for letter in rest) and _CHANGES.search(rest) is None
