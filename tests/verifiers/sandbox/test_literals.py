"""Literals as they cross between two processes: by exact type, one object staying one object, arguments
changed in place.
"""

import array
import collections
import datetime
import decimal
import enum
import fractions
import json
import math

import pytest

from o1jax.verifiers.sandbox.literals import (
  MAX_DEPTH,
  HeapDecoder,
  HeapEncoder,
  Uncrossable,
  derived,
  exact,
  unchanged,
)


def crossed(value, base=derived):
  encoder = HeapEncoder(base)
  cell, heap = json.loads(json.dumps([encoder.cell(value), encoder.heap]))
  return HeapDecoder(heap).value(cell)


def called(function, *arguments):
  """What a function of another process gives; `arguments` are changed as it changes them."""
  encoder = HeapEncoder(exact)
  cells = [encoder.cell(argument) for argument in arguments]
  there = HeapDecoder(json.loads(json.dumps(encoder.heap)))
  value = function(*there.values(cells))
  answer = HeapEncoder(derived, there.objects, encoder.heap)
  cell, heap = json.loads(json.dumps([answer.cell(value), answer.heap]))
  return HeapDecoder(heap, encoder.objects).value(cell)


def _name(value) -> str:
  """A test's id: the same in each process, whatever order a set has there."""
  kind = type(value)
  return kind.__name__ if kind is set else hex(value)[:30] if kind is int else ascii(value)[:30]


@pytest.mark.parametrize(
  "value",
  [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**53,
    -(2**53),
    2**64 + 1,
    -(1 << 16_000),
    0.0,
    0.1,
    1e308,
    5e-324,
    1j,
    complex(0.0, -2.5),
    "",
    "π\0\n",
    "\ud800",
    "\ud83d\ude00",  # two lone surrogates, which are not the one character that JSON would make of them
    "😀",
    b"",
    b"\xff\0",
    [],
    (),
    {},
    set(),
    frozenset(),
    [1, [2, (3, {4: {5}})]],
    (1,),
    {1: "a", "1": "b", (1, 2): [3], None: 0, True and 2.5: 1},
    {frozenset({1}), (2, 3), "x"},
    [True, 1, 1.0, "1", b"1"],
    ["i", "ff"],
    [[0]],
  ],
  ids=_name,
)
def test_a_literal_comes_back_as_itself(value):
  back = crossed(value)
  assert type(back) is type(value) and back == value
  if type(value) is not int:  # which may be too long to print
    assert repr(back) == repr(value)  # tells 1 from True and 1.0, within containers too


def test_floats_that_equal_nothing_or_something_else():
  assert math.isnan(crossed(math.nan))
  assert crossed(math.inf) == math.inf and crossed(-math.inf) == -math.inf
  assert math.copysign(1.0, crossed(-0.0)) == -1.0
  back = crossed(complex(-0.0, math.nan))
  assert math.copysign(1.0, back.real) == -1.0 and math.isnan(back.imag)


def test_order_is_kept():
  assert list(crossed({3: 0, 1: 0, 2: 0})) == [3, 1, 2]


class Level(enum.IntEnum):
  LOW = 1


class Odd(int):
  def __eq__(self, other):
    return True

  def __index__(self):
    return 9

  __hash__ = None


@pytest.mark.parametrize(
  ("value", "plain"),
  [
    (collections.namedtuple("P", "x y")(1, 2), (1, 2)),
    (Level.LOW, 1),
    (Odd(5), 5),
    ([Odd(5)], [5]),
  ],
  ids=lambda value: type(value).__name__,
)
def test_a_subclass_crosses_as_its_literal(value, plain):
  back = crossed(value)
  assert type(back) is type(plain) and repr(back) == repr(plain)
  with pytest.raises(Uncrossable, match="of type"):  # but not where the tests pass it on
    crossed(value, exact)


@pytest.mark.parametrize(
  "value",
  [
    range(1, 9, 3),
    decimal.Decimal("1.50"),
    fractions.Fraction(3, 7),
    datetime.date(2024, 2, 29),
    datetime.datetime(2024, 2, 29, 1, 2, 3, 4),
    datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
    datetime.time(1, 2, 3),
    datetime.timedelta(1, 2, 3),
    ...,
    NotImplemented,
    int,
    type(None),
    bytearray(b"ab"),
    array.array("d", [1.0, 2.5]),
    collections.deque([1, [2]], maxlen=3),
    collections.Counter("aab"),
    collections.OrderedDict([(2, 1), (1, 2)]),
    collections.defaultdict(list, {1: [2]}),
    collections.defaultdict(None, {1: 2}),
    {1: 2, 3: 4}.keys(),
    {1: 2, 3: 4}.items(),
    [(range(2),), {fractions.Fraction(1, 2): 1}],
  ],
  ids=repr,
)
def test_a_shape_comes_back_as_itself(value):
  back = crossed(value)
  assert type(back) is type(value) and back == value and repr(back) == repr(value)


def test_views_come_back():
  assert list(crossed({1: [2], 3: 4}.values())) == [[2], 4]
  assert bytes(crossed(memoryview(b"ab"))) == b"ab"


@pytest.mark.parametrize("value", [collections.deque([1]), bytearray(b"a"), collections.Counter("a")])
def test_what_can_be_changed_is_not_passed_on_as_a_copy(value):
  with pytest.raises(Uncrossable):
    crossed(value, exact)


def test_an_ordered_dict_keeps_the_order_that_it_was_given():
  table = collections.OrderedDict([(1, "a"), (2, "b"), (3, "c")])
  table.move_to_end(3, last=False)  # which `dict.items` does not see
  table.move_to_end(1)
  assert list(crossed(table).items()) == [(3, "c"), (2, "b"), (1, "a")]


def _generator():
  yield 1


@pytest.mark.parametrize(
  "value",
  [
    object(),
    print,
    lambda: 0,
    Level,
    iter([]),
    _generator(),
    collections.defaultdict(lambda: 0, {1: object()}),
    [1, [object()]],
    {1: print},
    {1}.__iter__(),
  ],
  ids=lambda value: type(value).__name__,
)
def test_anything_else_does_not_cross(value):
  with pytest.raises(Uncrossable):
    crossed(value)


def test_depth():
  def nested(depth):
    value = []
    for _ in range(depth - 1):
      value = [value]
    return value

  assert crossed(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
  with pytest.raises(Uncrossable, match="deep"):
    crossed(nested(MAX_DEPTH + 1))


def test_one_object_stays_one_object():
  row = [0]
  back = crossed([row, row, (row,)])
  assert back[0] is back[1] is back[2][0]
  ring = [1]
  ring.append(ring)
  back = crossed(ring)
  assert back[0] == 1 and back[1] is back
  doubled = (1,)
  for _ in range(100):
    doubled = (doubled, doubled)  # as a tree it would have 2**100 leaves
  back = crossed(doubled)
  assert back[0] is back[1] and back[0][0] is back[1][1]


def test_arguments_are_changed_in_place():
  row, table, names = [3, 1, 2], {"a": 1}, {"x"}
  grid = [row, row]

  def change(grid, table, names):
    grid[0].sort()
    table["b"] = [2]
    table.pop("a")
    names.add("y")
    return grid[1]

  inside = called(change, grid, table, names)
  assert row == [1, 2, 3] and inside is row and grid == [row, row] and grid[0] is row
  assert table == {"b": [2]} and names == {"x", "y"}


def test_a_change_of_type_alone_is_a_change():
  numbers = [1, 0.0, (True,)]
  called(lambda values: values.__setitem__(slice(None), [True, -0.0, (1,)]), numbers)
  assert repr(numbers) == "[True, -0.0, (1,)]"


def test_what_has_not_changed_is_not_touched():
  table = {1: 2}
  for key in table:  # a dict that is filled anew would end this loop with an error
    assert called(lambda given: sum(given.values()), table) == 2
    assert key == 1


@pytest.mark.parametrize(
  ("heap", "cell"),
  [
    (None, 0),
    ({}, 0),
    ([0], 0),
    ([["l"]], 0),
    ([["l", 0]], 0),
    ([["x", []]], 0),
    ([["k", []]], 0),  # "as it was" of an object that never was
    ([[["l"], []]], 0),
    ([["t", [[0]]]], [0]),  # a tuple that holds itself
    ([["t", [[1]]], ["l", []]], [0]),  # or what comes after it
    ([["s", [[1]]], ["l", []]], [0]),  # unhashable
    ([["d", [[1], 0]], ["l", []]], [0]),
    ([["d", [1]]], [0]),  # a key without a value
    ([["f", [[0]]]], [0]),
    ([], [0]),
    ([], [-1]),
    ([], [True]),
    ([], []),
    ([], {}),
    ([], ["i"]),
    ([], ["i", "xyz"]),
    ([], ["i", 5]),
    ([], ["i", "1", "2"]),
    ([], ["b", "0"]),
    ([], ["u", "ff"]),
    ([], ["c", 1.0]),
    ([], ["c", 1, 2]),
    ([], ["eval", "1"]),
    ([], ["r", 0, ""]),  # an object, where none is asked for
    ([], ["v", 0, "", 1]),
    ([["Fraction", [1, 0]]], [0]),
    ([["Decimal", ["x"]]], [0]),
    ([["range", [1.5]]], [0]),
    ([["class", ["eval"]]], [0]),
    ([["keys", [[1]]], ["l", []]], [0]),
    ([["bytearray", [1 << 40]]], [0]),
    ([["deque", []]], [0]),
    ([["defaultdict", ["eval"]]], [0]),
  ],
  ids=str,
)
def test_what_deviates_from_the_format_is_an_error(heap, cell):
  with pytest.raises(ValueError):
    HeapDecoder(heap).value(cell)


def test_an_answer_cannot_change_what_it_was_not_given():
  given = [[1], (2,)]
  with pytest.raises(ValueError):  # a list that comes back as a dict
    HeapDecoder([["d", []], ["k", []]], given)
  with pytest.raises(ValueError):  # a tuple that comes back changed
    HeapDecoder([["k", []], ["t", [3]]], given)
  with pytest.raises(ValueError):  # too few
    HeapDecoder([["k", []]], given)
  assert HeapDecoder(unchanged(given), given).objects == given
