"""What reaches the page's server: the requests that the page makes, of limited size."""

import asyncio
import re

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from storage import MOST_BYTES, TOO_LARGE, Storage

from utils import InputError

UPLOAD, FILE = "/gradio_api/upload", "/gradio_api/file="
#: Gradio answers to many more, which fetch addresses, write files or hand them out.
OPEN = {
    "GET": re.compile(
        r"/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/pwa_icon(/\d+)?"
        r"|/(static|assets|svelte)/.*|/gradio_api/(info/?|theme\.css|startup-events"
        r"|heartbeat/\w+|file=.*|queue/(data|status)|call/(v2/)?\w+/\w+|openapi\.json)"
    ),
    "POST": re.compile(rf"{UPLOAD}|/gradio_api/(queue/join|call/(v2/)?\w+/?|cancel|reset/?)"),
}
#: Bytes of a request; what surrounds the file of an upload is small.
MOST_ASKED, MOST_SENT = 64_000, MOST_BYTES + 16_000
#: How many uploads are received at once, and the seconds that each may take.
UPLOADS_AT_ONCE, UPLOAD_PATIENCE = 20, 60
#: The parts of an upload.
FORM = {"max_files": 1, "max_fields": 4, "max_part_size": 1_000}
NO_UPLOAD = "An upload is one file, named “files”."


class TooLargeError(Exception):
    """A request is larger than its limit."""


class Gate:
    """Lets the page's own requests pass, and receives uploads itself.

    Args:
        app: Gradio's.
        storage: for what is uploaded.
    """

    def __init__(self, app: ASGIApp, storage: Storage):
        self.app, self.storage = app, storage
        self.receiving = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"].replace("HEAD", "GET"), scope["path"]
        if method not in OPEN or not OPEN[method].fullmatch(path):
            await PlainTextResponse("There is nothing here.", 404)(scope, receive, send)
        elif path == UPLOAD:
            response = await self._receive(Request(scope, _limited(receive, MOST_SENT)))
            await response(scope, receive, send)
        elif path.startswith(FILE):
            response = await run_in_threadpool(self._show, path.removeprefix(FILE))
            await response(scope, receive, send)
        elif method == "POST":
            await self._hand_on(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _hand_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on a request once all of it is here: Gradio shall not meet its limit halfway."""
        try:
            body = await Request(scope, _limited(receive, MOST_ASKED)).body()
        except TooLargeError:
            await PlainTextResponse("This request is too large.", 413)(scope, receive, send)
            return
        except ClientDisconnect:
            return
        whole = [{"type": "http.request", "body": body, "more_body": False}]

        async def received() -> Message:
            return whole.pop() if whole else await receive()

        await self.app(scope, received, send)

    def _show(self, path: str) -> Response:
        """Return an uploaded picture for the page to show, as nothing that a browser would run."""
        try:
            content = self.storage.read(path)
        except InputError:
            return PlainTextResponse("There is nothing here.", 404)
        as_download = {"Content-Disposition": "attachment", "X-Content-Type-Options": "nosniff"}
        return Response(content, 200, as_download, "application/octet-stream")

    async def _receive(self, request: Request) -> Response:
        """Keep the file of an upload, and tell its path."""
        if self.receiving >= UPLOADS_AT_ONCE:
            return PlainTextResponse("Many pictures arrive now. Send yours again soon.", 503)
        self.receiving += 1
        try:
            async with asyncio.timeout(UPLOAD_PATIENCE), request.form(**FORM) as form:
                file = form.get("files")
                if file is None or isinstance(file, str):
                    return PlainTextResponse(NO_UPLOAD, 400)
                return JSONResponse([await run_in_threadpool(self.storage.keep, file.file)])
        except (TooLargeError, InputError):
            return PlainTextResponse(TOO_LARGE, 413)
        except TimeoutError:
            return PlainTextResponse("This upload takes too long. Send it again.", 408)
        except (HTTPException, MultiPartException, ClientDisconnect):
            return PlainTextResponse(NO_UPLOAD, 400)
        finally:
            self.receiving -= 1


def _limited(receive: Receive, most: int) -> Receive:
    """Return what receives a request; it is read to its end, and then refused where too large."""
    got = 0

    async def limited() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        while got > most:
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                raise TooLargeError
            message = await receive()
        return message

    return limited
