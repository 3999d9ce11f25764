"""A process that has imported what takes long, and from which kernels are forked.

A chapter's kernel spends three to four seconds on imports, nearly all of them in a few libraries:
20 s in a run of six chapters. Here they are imported once, by a process that does nothing else, and
each chapter's kernel begins as a fork of it. `python -m utils.pipeline.forkserver` is that process.

What a chapter finds is what it finds in a fresh kernel, but that these imports are quick. Nothing
is computed before the fork, so torch and OpenMP have started no threads (OpenBLAS ends its own, and
starts them again), and no GPU was touched. Linux alone: on macOS such libraries may not survive a
fork, and Windows knows none. Where a kernel cannot be forked it is started as usual.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

import psutil
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.manager import KernelManager
from jupyter_client.provisioning import LocalProvisioner

from utils.files import ROOT

#: Slow to import, needed by several chapters, and the same wherever they are imported. What else
#: takes time is not: pandas, tqdm and Lightning ask on import whether they are in a notebook, and
#: so does pyplot, which torchmetrics imports; Lightning's log keeps the standard error it finds.
PRELOADED = ("ipykernel.kernelapp", "matplotlib.figure", "scipy.signal", "torchvision")
#: What a kernel makes matplotlib's default, which reads it on import.
BACKEND = "module://matplotlib_inline.backend_inline"
STANDARD_ERROR = 2
#: Bytes that an order may take, with the environment of a kernel.
LONGEST_ORDER = 2**20


class Forkserver:
    """The other end of the process: it takes orders for kernels."""

    def __init__(self, orders: socket.socket):
        self._orders = orders

    def provisioner(self, manager: KernelManager) -> LocalProvisioner:
        """Return what starts this manager's kernel: as a fork, or, if that fails, as usual."""
        made = _Provisioner(kernel_spec=manager.kernel_spec, parent=manager)
        made.forkserver = self
        return made

    def fork(
        self, command: Sequence[str], env: Mapping[str, str], stderr: IO[bytes], cwd: str
    ) -> "_Forked":
        """Have a kernel forked, and return its process.

        Args:
            command: Python's path, ``-m``, a module, and its arguments.
            env: the kernel's environment.
            stderr: where what it says beside its cells goes.
            cwd: its working directory.

        Raises:
            OSError: the process that forks has ended, or takes no such order.
            psutil.NoSuchProcess: the kernel ended at once.
        """
        order = {"argv": command[2:], "env": dict(env), "cwd": cwd}
        socket.send_fds(self._orders, [json.dumps(order).encode()], [stderr.fileno()])
        pid = self._orders.recv(32)
        if not pid:
            raise ChildProcessError("the process that kernels are forked from has ended")
        return _Forked(int(pid))


class _Forked(psutil.Process):
    """A kernel's process, as jupyter_client asks for it: it is a child of another process."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        return None if self.is_running() else -1

    def send_signal(self, sig: int) -> None:
        with suppress(psutil.NoSuchProcess):
            super().send_signal(sig)


class _Provisioner(LocalProvisioner):
    forkserver: Forkserver

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        cwd = str(kwargs.get("cwd") or os.getcwd())
        try:
            forked = self.forkserver.fork(cmd, kwargs["env"], kwargs["stderr"], cwd)
        except (OSError, psutil.NoSuchProcess):
            return await super().launch_kernel(cmd, **kwargs)
        self.process, self.pid, self.pgid, self.cwd = forked, forked.pid, forked.pid, cwd
        return self.connection_info


@contextmanager
def forkserver() -> Generator[Forkserver | None]:
    """Yield what kernels can be forked from while this lasts; None where that is not to be had."""
    if sys.platform != "linux":
        yield None
        return
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        command = [sys.executable, "-m", __name__, str(theirs.fileno())]
        try:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ,  # without what C libraries added to it, as a kernel's
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what fails to be imported fails again in a cell
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl+C in a terminal is not for it
            )
        except OSError:
            yield None
            return
        theirs.close()
        try:
            yield Forkserver(ours)
        finally:
            process.kill()
            process.wait()


def serve(orders: socket.socket) -> None:
    """Import, and then fork a kernel for each order, until the other end is closed.

    A fork returns, too, when its kernel has ended.
    """
    os.environ.setdefault("MPLBACKEND", BACKEND)
    # ipykernel reads on import whose end is a kernel's too: of this process, whose forks they are
    os.environ["JPY_PARENT_PID"] = str(os.getpid())
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # or a kernel that ends spends a second on looking through what was imported here
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # kernels that ended need nobody to ask for them
    while True:
        order, files, _, _ = socket.recv_fds(orders, LONGEST_ORDER, 1)
        if not order:
            return
        if os.fork() == 0:
            _become_kernel(orders, json.loads(order), *files)
            return
        os.close(*files)


def _become_kernel(orders: socket.socket, order: Mapping[str, Any], stderr: int) -> None:
    import numpy as np
    import torch

    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(stderr, STANDARD_ERROR)
    os.close(stderr)
    os.chdir(order["cwd"])
    os.environ.update(order["env"], JPY_PARENT_PID=str(os.getppid()))  # imports set some, too
    np.random.seed()  # or all kernels would draw the same, as Python's own does not
    torch.default_generator.seed()
    orders.send(str(os.getpid()).encode())
    orders.close()
    sys.argv = order["argv"]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
