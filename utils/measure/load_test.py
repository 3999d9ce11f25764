"""What visitors of a Space wait for: its start, one picture, and many people at once."""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from utils import InputError, check_number
from utils.explain.portable import DESCRIPTION
from utils.progress import progress_bar

#: Seconds after which a Space that shows no page is given up.
PATIENCE = 120
#: How many answers come first and do not count, and how many one visitor alone asks for.
WARM_UP, ALONE = 5, 50
#: The event by which the page asks about an uploaded picture, and the one for maps that take long.
EVENT, LONG_EVENT = "show_upload", "show_long_maps"
#: A method that takes long.
LONG_METHOD = "scorecam"


@dataclass(frozen=True)
class Answer:
    """How long a visitor waited for one answer.

    Attributes:
        waited: seconds from the upload to the answer, as the visitor's program sees it.
        computed: of these, seconds that the server worked on it.
        succeeded: whether maps came, and neither a failure nor a refusal.
    """

    waited: float
    computed: float
    succeeded: bool


class Space:
    """A running Space, asked in the way that its page asks.

    Args:
        address: of its page.
        process: that serves it.
        started: seconds from its start to its first page.
        folder: that was built.

    Attributes:
        about: what the folder says of its network.
        blocks: names of all whose maps can be asked for.
        events: what its page asks, by name: Gradio's number of it.
    """

    def __init__(self, address: str, process: psutil.Process, started: float, folder: Path):
        import httpx

        self.address, self.process, self.started, self.folder = address, process, started, folder
        self.about = json.loads((folder / DESCRIPTION).read_text("utf-8"))
        self._client = httpx.Client(base_url=f"{address}/gradio_api", timeout=PATIENCE)
        config = httpx.get(f"{address}/config", timeout=PATIENCE).json()
        self.events = {event["api_name"]: event["id"] for event in config["dependencies"]}
        event = next(event for event in config["dependencies"] if event["api_name"] == EVENT)
        components = {component["id"]: component for component in config["components"]}
        _, *inputs = (components[number] for number in event["inputs"])
        choices = [[value for _, value in c["props"].get("choices", ())] for c in inputs]
        layers = next(place for place, c in enumerate(inputs) if c["type"] == "checkboxgroup")
        self.blocks = choices[layers]
        self._method = next(place for place, values in enumerate(choices) if LONG_METHOD in values)
        self._asked = [c["props"].get("value") for c in inputs]
        self._asked[layers] = self.blocks

    def ask(self, picture: bytes) -> Answer:
        """Upload a picture; wait for its classes, and for two classes' maps at all blocks."""
        began = time.perf_counter()
        told = self.send(EVENT, [self.upload(picture), *self._asked])
        return _answer(began, told)

    def ask_long(self, picture: bytes) -> Answer:
        """Upload a picture; wait for its maps by a method that takes long, as `ask` does."""
        began, session = time.perf_counter(), {"session_hash": uuid.uuid4().hex}
        asked = list(self._asked)
        asked[self._method] = LONG_METHOD
        self.send(EVENT, [self.upload(picture), *asked], **session)
        return _answer(began, self.send(LONG_EVENT, [None, None], **session))

    def upload(self, picture: bytes) -> dict:
        """Upload a picture, and return it as an event takes it."""
        (path,) = self._client.post("/upload", files={"files": ("a.png", picture)}).json()
        return {"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}

    def send(self, event: str, values: list, **more) -> dict:
        """Send an event as the page does, and return what comes back once it is done.

        Args:
            event: its name.
            values: of its inputs.
            more: of the request's other parts; without a ``session_hash`` it is a new visitor's.
        """
        body = {"session_hash": uuid.uuid4().hex, **more}
        body |= {"data": values, "fn_index": self.events[event]}
        self._client.post("/queue/join", json=body).raise_for_status()
        session = {"session_hash": body["session_hash"]}
        with self._client.stream("GET", "/queue/data", params=session) as lines:
            return _completed(lines.iter_lines())

    def close(self) -> None:
        """Close the connections to it; it goes on."""
        self._client.close()

    @property
    def memory(self) -> int:
        """Bytes that it holds in memory now."""
        return self.process.memory_info().rss


def _answer(began: float, told: dict) -> Answer:
    waited, output = time.perf_counter() - began, told["output"]
    has_maps = "<img" in str(output.get("data"))
    return Answer(waited, output.get("duration", 0.0), told["success"] and has_maps)


def _completed(lines: Iterator[str]) -> dict:
    for line in lines:
        told = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
        if told.get("msg") == "process_completed":
            return told
    return {"success": False, "output": {}}


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
            with closing(Space(address, psutil.Process(process.pid), started, folder)) as space:
                yield space
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
    with running_space(folder, python) as space:
        first = space.memory
        for number in range(WARM_UP):
            space.ask(_picture(number))
        alone = [space.ask(_picture(WARM_UP + number)) for number in range(ALONE)]
        long, beside = _beside_long(space)
        together = _together(space, people, requests)
        peak = space.memory
    print(f"{space.about['network']}, maps of two classes at {', '.join(space.blocks)}")
    print("\n".join(_table(space.started, alone, long, beside, together, people, (first, peak))))


def _beside_long(space: Space) -> tuple[Answer, list[Answer]]:
    """Return maps that take long, and the answers to another visitor meanwhile."""
    with ThreadPoolExecutor(1) as visitor:
        long, beside = visitor.submit(space.ask_long, _picture(0)), []
        while not long.done() and len(beside) < ALONE:
            beside.append(space.ask(_picture(len(beside))))
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
        ("another visitor meanwhile", f"{np.median(slowed):.2f} s", f"median, n = {len(slowed)}"),
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
        ThreadPoolExecutor(people) as visitors,
        progress_bar(description="Visitors", total=people * requests, unit="answers") as bar,
    ):

        def visit(person: int) -> list[Answer]:
            answers = []
            for number in range(requests):
                answers.append(space.ask(_picture(1_000 * (person + 1) + number)))
                bar.update()
            return answers

        return [answer for answers in visitors.map(visit, range(people)) for answer in answers]


def _picture(seed: int) -> bytes:
    """Return a PNG file unlike any other, as large as a small photograph."""
    noise = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    content = BytesIO()
    Image.fromarray(noise).resize((640, 480)).save(content, "png")
    return content.getvalue()
