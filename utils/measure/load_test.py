"""What visitors of a Space wait for: its start, one picture, and many people at once.

They ask as programs do: by `gradio_client`, through the page's public endpoints. It looks for
news every 0.05 s, which is how exactly waiting is measured.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from utils import InputError, check_number
from utils.explain.portable import DESCRIPTION
from utils.locks import private_folder
from utils.progress import progress_bar

#: Seconds after which a Space that shows no page is given up.
PATIENCE = 120
#: How many answers come first and do not count, and how many one visitor alone asks for.
WARM_UP, ALONE = 5, 50
#: A method that takes long.
LONG_METHOD = "scorecam"


@dataclass(frozen=True)
class Answer:
    """How long a visitor waited for one answer.

    Attributes:
        waited: seconds from the upload to the answer, as the visitor's program sees it.
        computed: of these, seconds that the server worked on it.
        succeeded: whether what was asked for came, and neither a failure nor a refusal.
    """

    waited: float
    computed: float
    succeeded: bool


class Visitor:
    """A program that asks a Space about pictures, one after the other.

    Args:
        address: of the Space's page.

    Attributes:
        blocks: names of all whose maps can be asked for.
    """

    def __init__(self, address: str):
        # the client's own argument for it is ignored where the environment says nothing
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        from gradio_client import Client

        limits = {"timeout": PATIENCE}
        self.client = Client(address, verbose=False, download_files=False, httpx_kwargs=limits)
        api: Any = self.client.view_api(print_info=False, return_format="dict")
        parameters = api["named_endpoints"]["/explain"]["parameters"]
        kinds = {parameter["parameter_name"]: parameter["type"] for parameter in parameters}
        self.blocks: list[str] = kinds["blocks"]["items"]["enum"]

    def explain(self, picture: bytes, method: str = "gradcam") -> Answer:
        """Upload a picture; wait for its class, and for that class's maps at all blocks."""
        return self._ask("/explain", picture, method=method, blocks=self.blocks)

    def classify(self, picture: bytes) -> Answer:
        """Upload a picture; wait for its classes, which nobody's maps keep waiting."""
        return self._ask("/classify", picture)

    def _ask(self, endpoint: str, picture: bytes, **values) -> Answer:
        from gradio_client import handle_file
        from gradio_client.exceptions import AppError

        with private_folder() as folder:
            (path := folder / "picture.png").write_bytes(picture)
            began, succeeded = time.perf_counter(), True
            job = self.client.submit(picture=handle_file(path), api_name=endpoint, **values)
            try:
                job.result(PATIENCE)
            except AppError:  # the page's own refusal, or its failure
                succeeded = False
            return Answer(time.perf_counter() - began, _computed(job), succeeded)

    def close(self) -> None:
        """Leave the page."""
        self.client.close()


def _computed(job: Any) -> float:
    """Return how many seconds the server worked on a job of Gradio's, as it says at its end."""
    updates = job.communicator.updates
    while not updates.empty():
        update = updates.get_nowait()
        if getattr(update, "final", False):
            return update.outputs.get("duration", 0.0)
    return 0.0


@dataclass(frozen=True)
class Space:
    """A running Space.

    Attributes:
        address: of its page.
        process: that serves it.
        started: seconds from its start to its first page.
        folder: that was built.
    """

    address: str
    process: psutil.Process
    started: float
    folder: Path

    @property
    def about(self) -> dict:
        """What the folder says of its network."""
        return json.loads((self.folder / DESCRIPTION).read_text("utf-8"))

    @property
    def memory(self) -> int:
        """Bytes that it holds in memory now."""
        return self.process.memory_info().rss

    @contextmanager
    def visitor(self) -> Generator[Visitor]:
        """Yield a new visitor, who leaves in the end."""
        with closing(Visitor(self.address)) as visitor:
            yield visitor


@contextmanager
def running_space(folder: Path, python: str = sys.executable) -> Generator[Space]:
    """Start a built folder's page, and stop it in the end.

    Args:
        folder: what `utils.publish.space.build_space` wrote.
        python: of an environment with its requirements.

    Raises:
        InputError: it shows no page.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, app = f"http://127.0.0.1:{port}", folder / "app.py"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1"}
    with tempfile.TemporaryFile("w+") as log:  # a pipe that nobody reads would fill
        began = time.perf_counter()
        process = subprocess.Popen(
            [python, app.name], cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            while not _answers(address):
                if process.poll() is not None or time.perf_counter() - began > PATIENCE:
                    log.seek(0)
                    last = (log.read().strip().splitlines() or ["it said nothing"])[-1]
                    raise InputError(f"{app} showed no page; the last it said: {last}")
                time.sleep(0.05)
            started = time.perf_counter() - began
            yield Space(address, psutil.Process(process.pid), started, folder)
        finally:
            process.terminate()
            process.wait()


def _answers(address: str) -> bool:
    import httpx

    try:
        return httpx.get(address, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def print_waiting(folder: Path, python: str, people: int = 20, requests: int = 10) -> None:
    """Measure a Space with one visitor, beside maps that take long, and with many at once.

    It prints a table.

    Args:
        folder, python: as `running_space` takes them.
        people: how many at once.
        requests: how many each of them makes, one after the other.

    Raises:
        InputError: a number out of range, or the Space shows no page.
    """
    check_number("--people", people, 1, 1_000, whole=True)
    check_number("--requests", requests, 1, 1_000, whole=True)
    with running_space(folder, python) as space, space.visitor() as visitor:
        first = space.memory
        for number in range(WARM_UP):
            visitor.explain(_picture(number))
        alone = [visitor.explain(_picture(WARM_UP + number)) for number in range(ALONE)]
        long, beside = _beside_long(space)
        together = _together(space, people, requests)
        peak = space.memory
    print(f"{space.about['network']}, maps of one class at {', '.join(visitor.blocks)}")
    print("\n".join(_table(space.started, alone, long, beside, together, people, (first, peak))))


def _beside_long(space: Space) -> tuple[Answer, list[Answer]]:
    """Return maps that take long, and the classes that another visitor is told meanwhile."""
    with space.visitor() as first, space.visitor() as other, ThreadPoolExecutor(1) as thread:
        long, beside = thread.submit(first.explain, _picture(0), LONG_METHOD), []
        while not long.done() and len(beside) < ALONE:
            beside.append(other.classify(_picture(len(beside))))
        return long.result(), beside


def _table(
    started: float,
    alone: list[Answer],
    long: Answer,
    beside: list[Answer],
    together: list[Answer],
    people: int,
    memory: tuple,
) -> Iterator[str]:
    waits, many, slowed = ([a.waited for a in some] for some in (alone, together, beside))
    computed = statistics.median(a.computed for a in alone)
    answers = (*alone, long, *beside, *together)
    failed = sum(not a.succeeded for a in answers)
    rows = (
        ("start to first page", f"{started:.1f} s", ""),
        ("one visitor, in the server", f"{1e3 * computed:.0f} ms", f"median, n = {len(alone)}"),
        ("one visitor, waited", f"{1e3 * statistics.median(waits):.0f} ms", "median"),
        (f"one {LONG_METHOD}, waited", f"{long.waited:.1f} s", "n = 1"),
        ("another's classes meanwhile", f"{np.median(slowed):.2f} s", f"median, n = {len(slowed)}"),
        ("", f"{max(slowed):.2f} s", "longest"),
        (f"{people} at once, waited", f"{np.median(many):.2f} s", f"median, n = {len(many)}"),
        ("", f"{np.percentile(many, 95):.2f} s", "95th percentile"),
        ("failed", f"{failed}", f"of {len(answers)}"),
        ("resident memory", f"{memory[0] / 1e6:.0f} MB", f"then {memory[1] / 1e6:.0f} MB"),
    )
    for what, figure, note in rows:
        yield f"  {what:28}{figure:>10}  {note}".rstrip()


def _together(space: Space, people: int, requests: int) -> list[Answer]:
    with (
        ExitStack() as stay,
        ThreadPoolExecutor(people) as threads,
        progress_bar(description="Visitors", total=people * requests, unit="answers") as bar,
    ):
        visitors = [stay.enter_context(space.visitor()) for _ in range(people)]

        def visit(person: int) -> list[Answer]:
            answers = []
            for number in range(requests):
                picture = _picture(1_000 * (person + 1) + number)
                answers.append(visitors[person].explain(picture))
                bar.update()
            return answers

        return [answer for answers in threads.map(visit, range(people)) for answer in answers]


def _picture(seed: int) -> bytes:
    """Return a PNG file unlike any other, as large as a small photograph."""
    noise = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    content = BytesIO()
    Image.fromarray(noise).resize((640, 480)).save(content, "png")
    return content.getvalue()
