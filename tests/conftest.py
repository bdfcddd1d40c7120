"""What every test starts from: 8 CPU devices, 32-bit numbers, and compiled programs kept between runs.

The backend reads these settings once, when jax starts, so they are set before anything imports it.
"""

import gc
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import xla_flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")
_given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join(
  [_given, *(f"{k}={v}" for k, v in xla_flags.FAST.items() if k not in _given)]
).strip()
os.environ["JAX_ENABLE_X64"] = "0"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".jax_cache"))
# The suite compiles many small programs; by default jax keeps only those that took a second.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


@pytest.fixture(scope="module", autouse=True)
def _programs_freed():
  """Lets go of a module's compiled programs when it is done.

  XLA maps several pages of memory for each program on a CPU; a worker that keeps them all comes to the
  kernel's limit of mappings (vm.max_map_count, 65,530 by default), where the next compilation is a
  segmentation fault.
  """
  yield
  if jax := sys.modules.get("jax"):
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def small_disk(request, tmp_path):
  """A file system of its own, of the size that `indirect` parametrisation asks for, as mount spells it:
  "256k"."""
  disk = tmp_path / "disk"
  disk.mkdir()
  mount = shutil.which("mount")
  command = [mount or "mount", "-t", "tmpfs", "-o", f"size={request.param}", "none", str(disk)]
  if mount is None or subprocess.run(command, capture_output=True).returncode != 0:
    pytest.skip("mounting a tmpfs is not permitted here (it needs root)")
  yield disk
  subprocess.run(["umount", "-l", str(disk)], check=True)
