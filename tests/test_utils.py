"""How text is shown, and how what a person gave is refused."""

import numpy as np
import pytest

from utils import (
    InputError,
    as_markdown,
    as_percent,
    brief,
    check_choice,
    check_flag,
    check_number,
    check_text,
    first_line,
    printable,
)


def test_what_no_terminal_should_be_sent_is_escaped():
    assert printable("größe 日本\n") == "größe 日本\n"
    assert printable("\x1b[2J\0\u202e\ud800") == r"\x1b[2J\x00\u202e\ud800"
    assert str(InputError("a\x1bb")) == r"a\x1bb"


def test_a_value_is_shown_at_no_great_length():
    assert brief("a'b") == '"a\'b"'
    assert len(brief("x" * 5_000)) == 201
    assert brief(1 << 20_000) == "a number of 20,001 bits"


def test_markup_in_a_name_stays_text():
    from markdown_it import MarkdownIt

    for name in ("a_b_c", "<b>x</b>", "[a](b)", "**&amp;**", "`$x$`", "a | b\n# c", "![x](y)"):
        words = MarkdownIt().parseInline(as_markdown(name))[0].children
        assert "".join(word.content for word in words) == " ".join(name.split())
        assert {word.type for word in words} <= {"text", "text_special"}


@pytest.mark.parametrize(
    ("share", "digits", "written"),
    [
        (0.9998, 0, "99.98%"), (0.9998, 1, "99.98%"), (0.99996, 2, "99.996%"),
        (0.996, 0, "99.6%"), (0.994, 0, "99%"), (0.0002, 0, "0.02%"), (0.0002, 1, "0.02%"),
        (0.006, 0, "1%"), (0.5, 2, "50.00%"), (1.0, 0, "100%"), (0.0, 1, "0.0%"),
        (1, 1, "100.0%"), (3e-12, 0, "under 0.0001%"), (1e-6, 0, "0.0001%"),
        (np.float32(0.9999), 1, "99.99%"), (np.float32(1 - 2**-24), 0, "99.99999%"),
    ],
)  # fmt: skip
def test_a_share_is_never_rounded_to_all_or_nothing(share, digits, written):
    assert as_percent(share, digits) == written


def test_no_share_between_reads_as_all_or_nothing():
    for share in np.concatenate(
        [np.geomspace(1e-300, 0.5, 500), 1 - np.geomspace(1e-16, 0.5, 500)]
    ):
        for digits in range(4):
            written = as_percent(share, digits, "")
            assert 0 < float(written.removeprefix("under ")) < 100, (share, written)
            assert len(written) <= 18


def test_an_error_without_a_message_is_called_by_its_kind():
    assert first_line(KeyError()) == "KeyError"
    assert first_line(ValueError("first\nsecond")) == "first"


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (lambda name, value: check_number(name, value, 1, 5_000), 0, "x is 0; .* from 1 to 5,000"),
        (lambda name, value: check_number(name, value, 0, 1), True, "x is True; it must be a num"),
        (lambda name, value: check_number(name, value, 0, 9, whole=True), 1.0, "a whole number"),
        (lambda name, value: check_choice(name, value, ("a", "b")), "c", "x 'c' is .*: a, b"),
        (check_flag, "no", "x is 'no'; it must be True or False"),
        (check_text, "", "x is ''; it must be printable text"),
        (check_text, "a\tb", r"x is 'a\\tb'"),
    ],
)
def test_what_cannot_be_is_refused_with_what_is_allowed(check, value, message):
    with pytest.raises(InputError, match=message):
        check("x", value)
