"""Why a run stopped before its end, for those who look at its folder."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Generator

import jax
from etils import epath

from snclr_jax.devices.stop_requests import Interrupted
from snclr_jax.run.files import FAILED, STOPPED, STOPPED_FILE, write_whole
from snclr_jax.run.workdir_lock import InUse


@contextlib.contextmanager
def stop_written(workdir: epath.PathLike) -> Generator[None]:
    """Writes `stopped.json` where what is done inside ends early; process 0 does.

    The file of an earlier stop goes: the run is under way again. A process that is
    killed leaves none, nor does one whose workdir another run has by now.

    Args:
      workdir: folder of the run.
    """
    if jax.process_index() != 0:
        yield
        return
    path = epath.Path(workdir) / STOPPED_FILE
    path.unlink(missing_ok=True)
    try:
        yield
    except InUse:
        raise
    except BaseException as error:
        # What ended the run says more than that this cannot be written.
        with contextlib.suppress(OSError):
            write_whole(path, json.dumps(_why(error), indent=2) + "\n")
        raise


def _why(error: BaseException) -> dict[str, str]:
    if isinstance(error, Interrupted):
        return {"state": STOPPED, "reason": signal.Signals(error.signal).name}
    state = STOPPED if isinstance(error, KeyboardInterrupt) else FAILED
    reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    return {"state": state, "reason": reason}
