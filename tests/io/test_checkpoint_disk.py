"""What disks do to checkpoints: full ones cost no earlier checkpoint, and what they damage is refused in one
line."""

import json
import logging
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o1jax.config import ConfigError
from o1jax.io import checkpoint
from o1jax.io.checkpoint import Checkpoints, restore_params
from o1jax.types import TrainState

pytestmark = pytest.mark.full

CURSOR = {"stage": "rl", "data": {"epoch": 2, "row": 17}, "flops": 1.5e18, "queue": [3, 1, 2]}


def make_state(seed: int, width: int = 24) -> TrainState:
  """A small state with odd values: bf16, negative zero, infinities, NaN (in the reference), integers, an
  empty node."""
  noise = jnp.asarray(np.random.default_rng(seed).standard_normal((16, width), np.float32))
  odd = jnp.asarray(np.array([-0.0, np.inf, -np.inf, np.nan, 1e-42, 3.0, 4.0, seed], np.float32))
  params = {
    "block": {"kernel": noise, "bias": jnp.asarray(np.asarray(noise[0]).astype(jnp.bfloat16))},
    "odd": jnp.where(jnp.isfinite(odd), odd, -1.5),
  }
  tx = optax.chain(optax.clip_by_global_norm(1.0), optax.inject_hyperparams(optax.adamw)(learning_rate=1e-3))
  ref = {**jax.tree.map(jnp.copy, params), "odd": odd}
  return TrainState(
    step=jnp.int32(seed), params=params, opt_state=tx.init(params), ref_params=ref, controllers=None
  )


def assert_bitwise(a, b) -> None:
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for (path, x), y in zip(jax.tree_util.tree_flatten_with_path(a)[0], jax.tree.leaves(b), strict=True):
    assert (x.dtype, x.shape) == (y.dtype, y.shape), path
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), path


def one_line(error: pytest.ExceptionInfo) -> str:
  text = str(error.value)
  assert "\n" not in text and len(text) < 400
  return text


def fill(disk: pathlib.Path, free: int) -> pathlib.Path:
  """Writes a file that leaves `free` bytes."""
  filler = disk / "filler"
  filler.write_bytes(bytes(shutil.disk_usage(disk).free - free))
  return filler


def unlimited(path) -> shutil._ntuple_diskusage:
  return shutil._ntuple_diskusage(10**15, 0, 10**15)


@pytest.fixture
def errors_logged():
  """What orbax and asyncio log as errors: they print it on stderr themselves, past pytest's own capture."""
  records: list[str] = []
  handler = logging.Handler(logging.ERROR)
  handler.emit = lambda record: records.append(record.getMessage())
  loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
  for logger in loggers:
    logger.addHandler(handler)
  yield records
  for logger in loggers:
    logger.removeHandler(handler)


# tensorstore's threads outlive the event loop of a failed save, and say so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("small_disk", ["2m"], indirect=True)
@pytest.mark.parametrize("asked_first", [True, False])
def test_a_full_disk_is_one_line_and_costs_no_checkpoint(small_disk, monkeypatch, errors_logged, asked_first):
  """Found by asking first; and where the disk fills up after that, in the midst of the save."""
  folder, width = small_disk / "checkpoints", 1500
  with Checkpoints(folder, keep=1) as checkpoints:
    checkpoints.save(1, make_state(1, width), CURSOR)
    checkpoints.wait()
    for free in (0, 8192, 65536, 131072):
      filler = fill(small_disk, free)
      with monkeypatch.context() as patch, pytest.raises(ConfigError) as error:
        patch.setattr(checkpoint.shutil, "disk_usage", shutil.disk_usage if asked_first else unlimited)
        checkpoints.save(2, make_state(2, width), {})
        checkpoints.wait()
      filler.unlink()
      line = one_line(error)
      assert (
        line.startswith(f"{folder}: no space left on device") and "earlier checkpoints are intact" in line
      )
      assert ("MB are free" in line) == asked_first
      assert [path.name for path in folder.iterdir()] == ["1"]
      assert_bitwise(checkpoints.restore(1, make_state(0, width))[0], make_state(1, width))
    checkpoints.save(2, make_state(2, width), {})
    assert_bitwise(checkpoints.restore(2, make_state(0, width))[0], make_state(2, width))
  assert [path.name for path in folder.iterdir()] == ["2"]
  assert errors_logged == []


# Damage


@pytest.fixture
def saved(tmp_path):
  with Checkpoints(tmp_path / "saved", keep=1) as checkpoints:
    checkpoints.save(1, make_state(1), CURSOR)
  return tmp_path / "saved"


def flip_bits(folder: pathlib.Path) -> None:
  """One bit in every 97th byte of the arrays' bytes; the last ones, which orbax looks at, stay."""
  for path in folder.rglob("d/*"):
    content = bytearray(path.read_bytes())
    for at in range(200, len(content) - 400, 97):
      content[at] ^= 1
    path.write_bytes(bytes(content))


def swap_params(saved: pathlib.Path) -> None:
  """Other parameters of the same shapes, as a file system that mixes up its blocks may bring."""
  with Checkpoints(saved.parent / "other", keep=1) as other:
    other.save(1, make_state(2), CURSOR)
  shutil.rmtree(saved / "1" / "params")
  shutil.copytree(saved.parent / "other" / "1" / "params", saved / "1" / "params")


def edit_cursor(saved: pathlib.Path) -> None:
  path = saved / "1" / "meta" / "metadata"
  path.write_text(path.read_text().replace('"row": 17', '"row": 16'))


@pytest.mark.parametrize(
  ("damage", "named", "by_params"),
  [
    (lambda saved: flip_bits(saved / "1" / "params"), "checkpoint: ", True),
    (lambda saved: flip_bits(saved / "1" / "rest"), "checkpoint: ", False),
    (swap_params, "params/block/bias is not what was saved", True),
    (edit_cursor, "cursor is not what was saved", False),
  ],
)
def test_a_damaged_checkpoint_is_refused(saved, damage, named, by_params):
  state = make_state(1)
  damage(saved)
  with Checkpoints(saved, keep=1) as checkpoints, pytest.raises(ConfigError) as error:
    checkpoints.restore(1, state)
  line = one_line(error)
  assert line.startswith(f"{saved / '1'}: ") and named in line
  assert line.endswith("remove that folder to use the checkpoint before it")
  if by_params:
    with pytest.raises(ConfigError, match=named):
      restore_params(saved, 1, state.params)


def test_parameters_that_are_not_finite_are_refused(tmp_path):
  """A sweep's members may have died: their states come back as they are, unless they are asked to be
  finite."""
  state = make_state(1)
  state = state.replace(params={**state.params, "odd": state.ref_params["odd"]})
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(1, state, {})
    assert_bitwise(checkpoints.restore(1, state)[0], state)
    for read in (
      lambda: checkpoints.restore(1, state, finite=True),
      lambda: restore_params(tmp_path, 1, state.params),
    ):
      with pytest.raises(ConfigError, match="params/odd is not finite: remove that folder"):
        read()


def test_a_checkpoint_without_checksums_is_read(saved):
  path = saved / "1" / "meta" / "metadata"
  meta = json.loads(path.read_text())
  del meta["checksums"]
  path.write_text(json.dumps(meta))
  with Checkpoints(saved, keep=1) as checkpoints:
    assert_bitwise(checkpoints.restore(1, make_state(1))[0], make_state(1))
