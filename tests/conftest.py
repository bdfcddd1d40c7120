"""What every test starts from: 8 CPU devices, 32-bit numbers, and compiled programs kept between runs.

The backend reads these settings once, when jax starts, so they are set before anything imports it.
"""

import os
import pathlib

_FLAG = "--xla_force_host_platform_device_count"

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}=8".strip()
os.environ["JAX_ENABLE_X64"] = "0"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".jax_cache"))
# The suite compiles many small programs; by default jax keeps only those that took a second.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
