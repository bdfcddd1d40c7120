"""Checkpoints: bitwise, safe against donation, kill -9, a full disk, another model, another number of
devices.

One subprocess (one import of jax) forks a child a moment at which to die; the parent then restarts from the
folders.
"""

import asyncio
import os
import pathlib
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from orbax.checkpoint._src.serialization import serialization

from o1jax.config import ConfigError
from o1jax.io import checkpoint
from o1jax.io.checkpoint import Checkpoints, latest_step, restore_params
from o1jax.types import TrainState

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


def test_restore_is_bitwise_with_structure_and_cursor(tmp_path):
  state = make_state(1)
  with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
    assert checkpoints.latest() is None
    checkpoints.save(1, state, CURSOR)
    checkpoints.wait()
    assert checkpoints.latest() == 1
    restored, cursor = checkpoints.restore(1, state)
  assert_bitwise(restored, state)
  assert cursor == CURSOR
  assert jax.tree.map(lambda x: x.sharding, restored) == jax.tree.map(lambda x: x.sharding, state)


def test_a_state_without_reference_and_with_controllers(tmp_path):
  state = make_state(1).replace(ref_params=None, controllers={"beta": jnp.float32(0.04)})
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(5, state, {})
    restored, cursor = checkpoints.restore(5, state)  # waits for the save by itself
  assert restored.ref_params is None
  assert_bitwise(restored, state)
  assert cursor == {}


def test_cursor_is_copied_and_must_survive_json(tmp_path):
  state, cursor = make_state(1), {"rows": [1, 2]}
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(1, state, cursor)
    cursor["rows"].append(3)
    assert checkpoints.restore(1, state)[1] == {"rows": [1, 2]}
    with pytest.raises(TypeError, match="cursor"):
      checkpoints.save(2, state, {"rows": (1, 2)})
    with pytest.raises(ValueError, match="JSON compliant"):
      checkpoints.save(2, state, {"loss": float("nan")})
  assert latest_step(tmp_path) == 1


def test_retention_keeps_the_newest(tmp_path):
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    for step in (3, 10, 200):
      checkpoints.save(step, make_state(step), {})
  assert sorted(int(path.name) for path in tmp_path.iterdir()) == [10, 200]
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    checkpoints.save(201, make_state(201), {})
  assert sorted(int(path.name) for path in tmp_path.iterdir()) == [200, 201]
  with pytest.raises(ConfigError, match="checkpoint.keep"):
    Checkpoints(tmp_path, keep=0)


def test_a_step_is_saved_once(tmp_path):
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(1, make_state(1), {})
    with pytest.raises(ValueError, match="step 1 is saved already"):
      checkpoints.save(1, make_state(2), {})
    assert_bitwise(checkpoints.restore(1, make_state(1))[0], make_state(1))


def test_donation_right_after_save_changes_nothing(tmp_path, monkeypatch):
  """The arrays are written only after the next steps have been computed on donated buffers."""
  go, write = threading.Event(), serialization.async_serialize_from_host

  async def late(*args, **kwargs):
    while not go.is_set():
      await asyncio.sleep(0.005)
    return await write(*args, **kwargs)

  monkeypatch.setattr(serialization, "async_serialize_from_host", late)
  advance = jax.jit(lambda x: jax.tree.map(lambda v: v * 3 + 1, x), donate_argnums=0)
  mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
  specs = {"split": PartitionSpec("data"), "copied": PartitionSpec()}
  params = {
    k: jax.device_put(jnp.arange(4096.0).reshape(8, 512), NamedSharding(mesh, s)) for k, s in specs.items()
  }
  params = advance(params)  # buffers that XLA allocated, as a train step's are
  state = TrainState(step=jnp.int32(1), params=params, opt_state={"m": params["split"] * 2}, ref_params=None)
  expected = jax.tree.map(lambda x: np.array(x, copy=True), state)
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(1, state, {})
    live = (state.params, state.opt_state)
    for _ in range(4):
      live = advance(live)
    jax.block_until_ready(live)
    assert checkpoints.latest() is None  # a save that still runs is not offered
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    go.set()
    assert_bitwise(checkpoints.restore(1, like)[0], expected)


@pytest.mark.parametrize(
  "change, expected",
  [
    (lambda s: make_state(1, width=32), "params/block/bias is bfloat16[24] there, bfloat16[32] here"),
    (lambda s: s.replace(params={**s.params, "odd": s.params["odd"].astype(jnp.bfloat16)}),
     "params/odd is float32[8] there, bfloat16[8] here"),
    (lambda s: s.replace(params={**s.params, "head": s.params["odd"]}),
     "params/head is absent there, float32[8] here"),
    (lambda s: s.replace(params={"block": s.params["block"]}), "params/odd is float32[8] there, absent here"),
    (lambda s: s.replace(ref_params=None), "ref_params/block/bias is bfloat16[24] there, absent here"),
    (lambda s: s.replace(opt_state={}), "opt_state/1/count is int32[] there, absent here"),
  ],
)  # fmt: skip
def test_another_model_is_refused_by_the_first_difference(saved, change, expected):
  state = make_state(1)
  with Checkpoints(saved, keep=1) as checkpoints, pytest.raises(ConfigError) as error:
    checkpoints.restore(1, change(state))
  line = one_line(error)
  assert line.startswith(f"{saved / '1'}: checkpoint of another model") and line.endswith(expected)


@pytest.fixture
def saved(tmp_path):
  with Checkpoints(tmp_path / "saved", keep=1) as checkpoints:
    checkpoints.save(1, make_state(1), CURSOR)
  return tmp_path / "saved"


def test_restore_params_alone(saved):
  state = make_state(1)
  assert_bitwise(restore_params(saved, 1, state.params), state.params)
  with pytest.raises(ConfigError) as error:
    restore_params(saved, 1, make_state(1, width=8).params)
  assert "params/block/bias is bfloat16[24] there, bfloat16[8] here" in one_line(error)
  bare = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state.params)
  with pytest.raises(ValueError, match="params/block/bias.*sharding"):
    restore_params(saved, 1, bare)


def test_missing_and_damaged_checkpoints_are_named(saved):
  with pytest.raises(ConfigError) as error:
    restore_params(saved, 4, make_state(1).params)
  assert one_line(error) == f"{saved}: holds no checkpoint of step 4, but [1]"
  assert latest_step(saved / "nowhere") is None
  for path in (saved / "1" / "params").rglob("d/*"):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with pytest.raises(ConfigError) as error:
    restore_params(saved, 1, make_state(1).params)
  assert one_line(error).startswith(f"{saved / '1'}: unreadable checkpoint: ")
  file = saved / "file"
  file.write_text("")
  with pytest.raises(ConfigError) as error:
    Checkpoints(file, keep=1)
  assert one_line(error).startswith(f"{file}: cannot hold checkpoints: ")


def test_restore_onto_other_shardings(tmp_path):
  """Saved on 8 devices, split and replicated; restored on one, and on another split of the same."""
  devices = np.array(jax.devices())
  assert devices.size == 8
  rows = NamedSharding(Mesh(devices, ("data",)), PartitionSpec("data"))
  columns = NamedSharding(Mesh(devices.reshape(2, 4), ("data", "fsdp")), PartitionSpec(None, "fsdp"))
  params = {"split": jax.device_put(jax.random.normal(jax.random.key(0), (16, 8)), rows)}
  state = TrainState(step=jnp.int32(1), params=params, opt_state={"m": params["split"] + 1}, ref_params=None)
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(1, state, {})
    for sharding in (SingleDeviceSharding(devices[0]), columns):
      onto = {"split": jax.ShapeDtypeStruct((16, 8), jnp.float32, sharding=sharding)}
      restored = checkpoints.restore(1, state.replace(params=onto))[0]
      assert restored.params["split"].sharding == sharding and restored.opt_state["m"].sharding == rows
      assert_bitwise(restored, state)
      assert_bitwise(restore_params(tmp_path, 1, onto), params)


# kill -9


DRIVER = """
import os, pathlib, signal, sys, threading, time
sys.path.insert(0, {here!r})
import numpy as np
import jax
from orbax.checkpoint._src.path import atomicity
from test_checkpoint import Checkpoints, make_state, restore_params, serialization

def die(*args, **kwargs):
  os.kill(os.getpid(), signal.SIGKILL)

def nth(count, function):
  calls = []
  def wrapped(*args, **kwargs):
    calls.append(1)
    return die() if len(calls) == count else function(*args, **kwargs)
  return wrapped

def arm(moment):
  kind, number = moment.split("-")
  temporary = atomicity.AtomicRenameTemporaryPath
  if kind == "array":
    serialization.async_serialize_from_host = nth(int(number), serialization.async_serialize_from_host)
  elif kind == "commit":
    temporary.finalize = nth(int(number), temporary.finalize)
  elif kind == "rename":
    atomicity.async_path.rename = nth(int(number), atomicity.async_path.rename)

def child(folder, moment):
  checkpoints = Checkpoints(folder, keep=2)
  checkpoints.save(1, make_state(1), {{"at": 1}})
  checkpoints.wait()
  arm(moment)
  checkpoints.save(2, make_state(2), {{"at": 2}})
  if moment.startswith("timed"):
    time.sleep(float(moment.split("-")[1]) / 1000)
    die()
  checkpoints.wait()
  os._exit(7)  # the moment never came

def fewer_devices(folder, out):
  assert len(jax.devices()) == 1
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  params = {{"split": jax.ShapeDtypeStruct((16, 8), "float32", sharding=here)}}
  np.save(out, np.asarray(restore_params(folder, 1, params)["split"]))

root = pathlib.Path(sys.argv[1])
fewer = root / "eight"
children = {{}}
for moment in sys.argv[2:]:
  children[moment] = os.fork()
  if children[moment] == 0:
    child(root / moment, moment)
for moment, pid in children.items():
  print(moment, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
fewer_devices(fewer, root / "one.npy")
"""

# The 1st and 9th array; the commits of one item and of the whole (3 items first); the rename; and by the
# clock (ms).
MOMENTS = ["array-1", "array-9", "commit-1", "commit-4", "rename-4", "timed-5", "timed-30"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
  """Runs the driver on ONE device: a child is killed at each moment; then it reads what 8 devices saved
  here."""
  root = tmp_path_factory.mktemp("killed")
  mesh = Mesh(np.array(jax.devices()), ("data",))
  split = jax.device_put(
    jax.random.normal(jax.random.key(3), (16, 8)), NamedSharding(mesh, PartitionSpec("data"))
  )
  with Checkpoints(root / "eight", keep=1) as checkpoints:
    checkpoints.save(1, TrainState(step=jnp.int32(1), params={"split": split}, opt_state={}), {})
  env = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
  script = DRIVER.format(here=str(pathlib.Path(__file__).parent))
  done = subprocess.run(
    [sys.executable, "-c", script, str(root), *MOMENTS], env=env, capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert done.stdout.split("\n")[:-1] == [f"{moment} -9" for moment in MOMENTS], done.stderr[-3000:]
  left = {
    moment: [str(p.relative_to(root / moment)) for p in (root / moment).rglob("*")] for moment in MOMENTS
  }
  return root, split, left


@pytest.mark.full
@pytest.mark.parametrize("moment", MOMENTS)
def test_kill_during_a_save(killed, moment):
  folder = killed[0] / moment
  latest = latest_step(folder)
  assert latest in ((1, 2) if moment.startswith("timed") else (1,))
  with Checkpoints(folder, keep=2) as checkpoints:
    restored, cursor = checkpoints.restore(latest, make_state(0))
    assert_bitwise(restored, make_state(latest))
    assert cursor == {"at": latest}
    if latest == 1:
      checkpoints.save(2, make_state(2), {"at": "again"})
      restored, cursor = checkpoints.restore(2, make_state(0))
      assert_bitwise(restored, make_state(2))
      assert cursor == {"at": "again"}
  assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]  # what was half-written is gone


@pytest.mark.full
@pytest.mark.parametrize("moment, every", [("array-1", 0), ("commit-1", 0), ("commit-4", 1), ("rename-4", 1)])
def test_the_kills_left_half_written_checkpoints(killed, moment, every):
  """The moments above are real: step 2 lay there without its name; killed in its commit, with all its
  items."""
  temporary = f"2{checkpoint.TEMPORARY}"
  assert temporary in killed[2][moment]
  assert ({f"{temporary}/{item}" for item in ("params", "rest", "meta")} <= set(killed[2][moment])) == every


@pytest.mark.full
def test_eight_devices_to_a_process_with_one(killed):
  root, split, _ = killed
  assert np.load(root / "one.npy").tobytes() == np.asarray(split).tobytes()


@pytest.mark.full
def test_one_device_to_eight(killed):
  like = make_state(0)
  rows = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
  kernel = jax.ShapeDtypeStruct((16, 24), jnp.float32, sharding=rows)
  params = {**like.params, "block": {**like.params["block"], "kernel": kernel}}
  restored = restore_params(root := killed[0] / "array-1", 1, params)
  assert restored["block"]["kernel"].sharding == rows and latest_step(root) is not None
  assert_bitwise(restored, make_state(1).params)


# errors of the background save


def test_an_error_of_the_background_save_reaches_wait(tmp_path, monkeypatch):
  async def broken(*args, **kwargs):
    raise RuntimeError("the disk is on fire")

  with Checkpoints(tmp_path, keep=1) as checkpoints:
    with monkeypatch.context() as patch:
      patch.setattr(serialization, "async_serialize_from_host", broken)
      checkpoints.save(1, make_state(1), {})
      with pytest.raises(RuntimeError, match="on fire"):
        checkpoints.wait()
    assert list(tmp_path.iterdir()) == []
    checkpoints.save(1, make_state(1), {})
  assert latest_step(tmp_path) == 1
