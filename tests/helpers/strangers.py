"""A stranger's program: it sends a Space whatever it likes, not only what Gradio's client would."""

import json
import uuid

PATIENCE = 120


class Stranger:
    """Speaks the page's own protocol by hand, its private events included.

    Args:
        address: of the page.

    Attributes:
        events: what the page asks, by name: Gradio's number of it.
    """

    def __init__(self, address: str):
        import httpx

        self._client = httpx.Client(base_url=f"{address}/gradio_api", timeout=PATIENCE)
        config = httpx.get(f"{address}/config", timeout=PATIENCE).json()
        self.events = {event["api_name"]: event["id"] for event in config["dependencies"]}

    def upload(self, content: bytes) -> dict:
        """Upload a file, and return it as an event takes it."""
        (path,) = self._client.post("/upload", files={"files": ("a.png", content)}).json()
        return {"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}

    def send(self, event: str, values: list, **more) -> dict:
        """Send an event, and return what comes back once it is done.

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
            for line in lines.iter_lines():
                told = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if told.get("msg") == "process_completed":
                    return told
        raise AssertionError(f"{event} was never answered")

    def close(self) -> None:
        self._client.close()
