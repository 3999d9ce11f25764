"""The Space: a picture, what the network thinks of it, where it looked, and what it gets wrong."""

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import lean  # noqa: F401  before what imports grad-cam
from explorer import Explorer
from gate import Gate
from gradio.context import LocalContext
from gradio.themes import LocalFont
from plain import PlainBlocks, Range, Upload
from settings import (
    FIRST_CHOICE,
    LINK_NAMES,
    MOST_CLASSES,
    MOST_MISTAKES,
    MOST_REMEMBERED,
    NOTHING,
    RIVAL,
    SECOND_CHOICE,
    Settings,
    default_settings,
    settings_from_link,
)
from starlette.middleware import Middleware
from storage import MOST_MEGABYTES, Storage
from view import CAN_AND_CANNOT, METHOD_NAMES, NO_PICTURE, Seen, about, not_followed, refused

from utils import InputError, as_markdown
from utils.data.pictures import EXTENSIONS
from utils.explain.gradcam import CHANNEL_METHODS, METHOD_NOTES, METHODS, first_choice
from utils.explain.portable import Bundle, NoLongerWantedError
from utils.plots.style import percent

HERE = Path(__file__).resolve().parent
#: How many events may wait in all, of whatever kind.
MOST_WAITING = 200
PRIVATE: dict[str, Any] = {"api_visibility": "private"}


def _lane(name: str) -> dict[str, Any]:
    """Return options of events that run one at a time: more would only take each other's cores."""
    return {"concurrency_id": name, "concurrency_limit": 1, "show_progress": "minimal"}


#: What is short does not wait for maps that take long, nor for programs.
SHORT, LONG, FOR_PROGRAMS = _lane("short"), _lane("long"), _lane("programs")
#: What the events do in the browser; `page.js` has it.
SHOW_ANSWER, MARK_CHOSEN, SET_WEIGHT = (
    "() => window.page.showAnswer()",
    "(source) => window.page.mark(source)",
    "(weight) => window.page.setWeight(weight)",
)
#: In the order of `Settings`; the address of this page, with all that the view is made of.
MAKE_LINK = """(source, top_n, method, blocks, explained, beside, weight, count, actual) => {
    const told = {source, top_n, method, blocks: blocks.join(","), explained, beside, weight,
                  count, actual};
    const link = new URL(window.location.pathname, window.location.origin);
    for (const [name, value] of Object.entries(told)) {
        if (value === null) continue;
        if (value !== "" || name === "source") link.searchParams.set(name, value);
    }
    return link.href;
}"""
#: Tells the page which of several pictures was chosen.
CHOOSE = """element.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-name]");
    if (button) trigger("select", {name: button.dataset.name});
});"""
#: The same for the mistake before or after the one that is shown.
GO_ON = """element.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-step]");
    const name = button && window.page.step(Number(button.dataset.step));
    if (name) trigger("select", {name});
});"""


def telling_refusals(work: Callable) -> Callable:
    """Have the page show what an `InputError` says; of any other error it says nothing."""

    @wraps(work)
    def worked(*arguments):
        try:
            return work(*arguments)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except NoLongerWantedError:
            return None  # to nobody

    return worked


class Page:
    """The page over a bundle: what is on it, and what happens when somebody uses it.

    Args:
        bundle: the network and its pictures.
        storage: where visitors' files lie.

    Attributes:
        blocks: Gradio's, to be launched.
    """

    def __init__(self, bundle: Bundle, storage: Storage):
        self.bundle, self.explorer, self.storage = bundle, Explorer(bundle), storage
        # each visitor's last, by session: its number, and what was asked
        self.long_questions: dict[str | None, tuple[int, tuple]] = {}
        self.start, self.classes = default_settings(bundle), list(bundle.classes)
        with PlainBlocks(
            title=f"What {bundle.about['network']} sees", analytics_enabled=False
        ) as self.blocks:
            self.seen, self.long_question = gr.State(None), gr.State(None)
            self.source = gr.Textbox(self.start.source, label="source", visible="hidden")
            gr.Markdown(heading(bundle.about))
            with gr.Row():
                self._add_pictures()
                self._add_answer()
            self._add_mistakes()
            self.link = gr.Textbox(
                label="Link to this view",
                info="It carries the settings, and never your picture.",
                buttons=["copy"],
                interactive=False,
                elem_id="link",
            )
            self.asked = [self.method, self.layers, self.explained, self.beside]
            self.controls = [
                self.source,
                self.top_n,
                *self.asked,
                self.weight,
                self.count,
                self.actual,
            ]
            self._connect()
            self._add_endpoints()

    # what is on it

    def _add_pictures(self) -> None:
        with gr.Column(scale=1, min_width=280):
            self.upload = Upload(
                label=f"Your picture, up to {MOST_MEGABYTES} MB",
                sources=["upload", "clipboard"],
                height=210,
            )
            gr.Markdown(
                "Its file is deleted within two minutes; this page forgets it an hour after you "
                "leave.\n\nOr take an example, the first test picture of its class:"
            )
            self.examples = gr.HTML(
                self.explorer.examples(), js_on_load=CHOOSE, elem_classes="examples"
            )
            self.top_n = Range(
                1,
                min(MOST_CLASSES, len(self.classes)),
                self.start.top_n,
                step=1,
                label="Classes to list",
                buttons=[],
            )

    def _add_answer(self) -> None:
        with gr.Column(scale=3, min_width=320):
            self.answer = gr.HTML(elem_id="answer", js_on_load=GO_ON)
            self.maps = gr.HTML()
            self.weight = Range(
                0,
                1,
                self.start.weight,
                step=0.05,
                buttons=[],
                label="Weight of the picture against the map",
            )
            self._add_questions()
            with gr.Accordion("What these maps can tell, and what they cannot", open=False):
                gr.Markdown(CAN_AND_CANNOT)

    def _add_questions(self) -> None:
        start, names = self.start, list(self.bundle.blocks)
        with gr.Row():
            self.explained = gr.Dropdown(
                [("its first choice", FIRST_CHOICE), *self.classes],
                value=start.explained,
                label="Class to explain",
                min_width=200,
            )
            self.beside = gr.Dropdown(
                [
                    ("true class, or second choice", RIVAL),
                    ("its second choice", SECOND_CHOICE),
                    ("nothing", NOTHING),
                    *self.classes,
                ],
                value=start.beside,
                label="Compare with",
                min_width=200,
            )
            self.method = gr.Dropdown(
                self._methods(),
                value=start.method,
                label="Method",
                info=METHOD_NOTES[start.method],
                min_width=200,
            )
        self.layers = gr.CheckboxGroup(
            names, value=list(start.blocks), label="Layers, from early to late"
        )

    def _methods(self) -> list[tuple[str, str]]:
        """Return the methods' names, with the time where it is long, and their keys."""
        seconds = self.bundle.seconds(self.start.blocks, classes=2)
        notes = dict.fromkeys(CHANNEL_METHODS, f" ({about(seconds)})")
        return [(name + notes.get(key, ""), key) for key, name in METHOD_NAMES.items()]

    def _add_mistakes(self) -> None:
        gr.Markdown(
            "## What it gets wrong\nChoose one of these test pictures to see above where it looked."
        )
        with gr.Row():
            self.count = Range(
                1,
                MOST_MISTAKES,
                self.start.count,
                step=1,
                label="Mistakes to show",
                buttons=[],
                min_width=280,
            )
            self.actual = gr.Dropdown(
                [("all classes", ""), *self.classes], value="", label="True class", min_width=280
            )
        self.mistakes = gr.HTML(js_on_load=CHOOSE, elem_classes="mistakes")

    def _add_endpoints(self) -> None:
        """Give programs two functions with names, beside what the page uses itself."""
        bundle, explorer = self.bundle, self.explorer
        with gr.Column(visible=False):
            picture, result = Upload(label="picture"), gr.JSON(label="result")
            top_n = gr.Number(self.start.top_n, label="top_n", minimum=1, precision=0)
            class_name = gr.Textbox("", label="class_name")
            first, block = first_choice(bundle.network, drawn=bundle.about["drawn"])
            method = gr.Dropdown(list(METHODS), value=first, label="method")
            blocks = gr.CheckboxGroup(list(bundle.blocks), value=[block], label="blocks")
            weight = gr.Slider(0, 1, 0.6, label="weight")

            def classify(picture, top_n):
                """Return the most probable classes of a picture, with their probabilities.

                top_n is how many, at least 1; never more come than the model has.
                """
                return explorer.classify(self._content(picture), top_n)

            def explain(picture, class_name, method, blocks, weight):
                """Return a picture under its class activation maps, one overlay for each block.

                class_name is the class to explain, or empty for the predicted one; weight is the
                share of the picture in an overlay, from 0 to 1. Overlays are PNG files as data
                addresses, as large as what the network sees.
                """
                content = self._content(picture)
                is_there = self._asker()
                return explorer.explain(content, class_name, method, blocks, weight, is_there)

            for work, inputs, lane in (
                (classify, [picture, top_n], SHORT),
                (explain, [picture, class_name, method, blocks, weight], FOR_PROGRAMS),
            ):
                gr.Button(work.__name__).click(
                    telling_refusals(work), inputs, result, api_name=work.__name__, **lane
                )

    # what happens

    def _connect(self) -> None:
        computed = PRIVATE | SHORT
        outputs = [self.seen, self.answer, self.maps, self.long_question]
        # first, and in the browser: what a server sends moves back a slider that has gone on since
        for slider in (self.top_n, self.count, self.weight):
            slider.input(None, slider, slider, js=slider.nearest)
        self.blocks.load(
            self.open_link, None, [*self.controls, *outputs, self.mistakes], **computed
        ).then(None, self.controls, self.link, js=MAKE_LINK).then(None, self.source, js=MARK_CHOSEN)
        self.upload.upload(
            self.show_upload,
            [self.upload, self.top_n, *self.asked],
            [self.upload, self.source, *outputs],
            **computed,
        ).success(None, js=SHOW_ANSWER)
        gr.on(
            [self.examples.select, self.mistakes.select, self.answer.select],
            self.show_chosen,
            [self.top_n, *self.asked],
            [self.source, *outputs],
            # Gradio else drops what is chosen while an answer is awaited; of "always_last" it would
            # send the first choice once more
            trigger_mode="multiple",
            **computed,
        ).success(None, js=SHOW_ANSWER)
        self.source.change(None, self.source, js=MARK_CHOSEN)
        gr.on(
            [control.input for control in self.asked],
            self.show_maps,
            [self.seen, *self.asked],
            [self.maps, self.long_question],
            trigger_mode="always_last",
            **computed,
        )
        self.long_question.change(
            self.show_long_maps,
            [self.seen, self.long_question],
            self.maps,
            trigger_mode="always_last",
            **(PRIVATE | LONG),
        )
        self.method.change(
            lambda name: gr.Dropdown(info=METHOD_NOTES[name]), self.method, self.method, **PRIVATE
        )
        # after what is asked already, lest the classes of the picture before come over an answer
        self.top_n.input(
            self.show_classes,
            [self.seen, self.top_n],
            self.answer,
            trigger_mode="always_last",
            **computed,
        )
        gr.on(
            [self.count.input, self.actual.input],
            self.show_mistakes,
            [self.count, self.actual],
            self.mistakes,
            trigger_mode="always_last",
            **PRIVATE,
        )
        self.weight.change(None, self.weight, js=SET_WEIGHT)
        changes = [control.change for control in self.controls]
        gr.on(changes, None, self.controls, self.link, js=MAKE_LINK)

    def _show(self, request: gr.Request, seen: Seen | None, top_n: int | None, *asked) -> tuple:
        if seen is None:
            return None, NO_PICTURE, *self._no_maps(request)
        self._no_maps(request)
        maps, long_question = self.show_maps(seen, *asked, request)
        listed = top_n or 1  # an emptied box gets its lowest number when it is left
        return seen, self.explorer.answer(seen, listed), maps, long_question

    def _no_maps(self, request: gr.Request) -> tuple:
        self.long_questions.pop(request.session_hash, None)
        return "", None

    def show_classes(self, seen: Seen | None, top_n: int | None):
        """Show as many classes as are asked for; nothing changes while the box is empty."""
        return gr.skip() if top_n is None else self.explorer.answer(seen, top_n)

    def show_mistakes(self, count: int | None, actual: str):
        """Show as many mistakes on a class as are asked for, as `show_classes` does."""
        return gr.skip() if count is None else self.explorer.mistakes(count, actual)

    def show_maps(self, seen, method, blocks, explained, beside, request: gr.Request) -> tuple:
        """Show maps, or what stands in for them where they take long; these are asked for then."""
        asked = method, blocks, explained, beside
        if not self.explorer.takes_long(seen, *asked):
            _, nothing = self._no_maps(request)
            return self.explorer.maps(seen, *asked), nothing
        if self.long_questions.get(request.session_hash, ())[1:] == (asked,):
            return gr.skip(), gr.skip()  # a list of choices tells its choice again when it is left
        number = time.monotonic_ns()
        self.long_questions[request.session_hash] = number, asked
        if len(self.long_questions) > MOST_WAITING:
            del self.long_questions[next(iter(self.long_questions))]
        return self.explorer.waiting(seen, *asked), (number, *asked)

    def show_long_maps(self, seen, question: tuple | None, request: gr.Request):
        """Show maps that take long, unless their visitor leaves or asks for something else."""
        if question is None:
            return gr.skip()
        number, *asked = question
        is_there = self._asker()

        def is_wanted() -> bool:
            last, _ = self.long_questions.get(request.session_hash, (None, None))
            return last == number and is_there()

        try:
            shown = self.explorer.maps(seen, *asked, is_wanted)
            return shown if is_wanted() else gr.skip()
        except NoLongerWantedError:
            return gr.skip()

    def _asker(self) -> Callable[[], bool]:
        """Return what tells whether those who asked for the present event still wait for it."""
        events = self.blocks._queue.event_ids_to_events
        event = events.get(LocalContext.event_id.get())
        return lambda: event is None or event.alive

    def _content(self, path: str | None) -> bytes | None:
        return None if path is None else self.storage.read(path)

    def show_upload(
        self, path, top_n, method, blocks, explained, beside, request: gr.Request
    ) -> tuple:
        """Show a visitor's picture, or why it cannot be; clear the place for the next."""
        try:
            seen = self.explorer.uploaded(self._content(path))
        except InputError as error:
            return None, "", None, refused(str(error)), *self._no_maps(request)
        return None, "", *self._show(request, seen, top_n, method, blocks, explained, beside)

    def show_chosen(
        self, top_n, method, blocks, explained, beside, event: gr.EventData, request: gr.Request
    ) -> tuple:
        """Show an example or a mistake."""
        name = event_name(event)
        seen = self.explorer.bundled(name)
        if seen is None:
            return "", None, refused("This picture does not exist."), *self._no_maps(request)
        return name, *self._show(request, seen, top_n, method, blocks, explained, beside)

    def open_link(self, request: gr.Request) -> tuple:
        """Show the view that the page's address tells, or that of a first visit."""
        settings, unknown = settings_from_link(request.query_params, self.bundle)
        seen = self.explorer.bundled(settings.source)
        asked = settings.method, settings.blocks, settings.explained, settings.beside
        seen, answer, *maps = self._show(request, seen, settings.top_n, *asked)
        if unknown:
            answer = not_followed([LINK_NAMES[name] for name in unknown]) + answer
        return (
            *_values(settings),
            *(seen, answer, *maps),
            self.explorer.mistakes(settings.count, settings.actual),
        )


def heading(about: dict) -> str:
    """Return the page's first lines, as Markdown."""
    classes = ", ".join(map(as_markdown, about["classes"][:30]))
    more = ", …" if len(about["classes"]) > 30 else ""
    right = f"{percent(about['test_acc'], 1)} of {about['test_size']:,} test pictures"
    return (
        f"# What {as_markdown(about['network'])} sees\n\n"
        "Show a small network a picture: what does it take it for, and **where did it look**? "
        f"{as_markdown(about['network'])} is a convolutional network of {about['parameters']:,} "
        f"parameters, trained on {as_markdown(about['title'])}, and right on {right}. It always "
        f"answers with one of: {classes}{more}."
    )


def event_name(event: gr.EventData) -> str:
    """Return the name of the picture that was chosen; "" where the event tells none."""
    try:
        return str(event.name)
    except (AttributeError, TypeError):  # whatever a stranger's program sent instead
        return ""


def _values(settings: Settings) -> list:
    """Return settings as their controls take them, in the order of the fields."""
    values = vars(settings).values()
    return [list(value) if isinstance(value, tuple) else value for value in values]


def main() -> None:
    """Serve the page over the folder that this file lies in, until it is told to stop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that the storage is removed
    with Storage() as storage:
        os.environ["GRADIO_TEMP_DIR"] = str(storage.folder)
        Page(Bundle(HERE), storage).blocks.queue(max_size=MOST_WAITING, api_open=False).launch(
            max_file_size=f"{MOST_MEGABYTES}mb",
            state_session_capacity=MOST_REMEMBERED,
            show_error=False,
            enable_monitoring=False,
            ssr_mode=False,
            footer_links=["api"],
            css_paths=HERE / "page.css",
            js=f"() => ({(HERE / 'page.js').read_text('utf-8')})({','.join(EXTENSIONS)!r})",
            # its file for 600 holds 55 letters, so that words would be drawn in two fonts
            theme=gr.themes.Default(font=[LocalFont("Source Sans Pro", (400, 700)), "sans-serif"]),
            app_kwargs={"middleware": [Middleware(Gate, storage=storage)]},
        )


if __name__ == "__main__":
    main()
