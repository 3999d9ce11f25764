"""A download arrives: resumed, continued elsewhere, and never taken on trust."""

import os
import random
import re
import shutil
import subprocess
import sys
import time
from hashlib import md5

import pytest

from helpers.servers import Server, serving
from utils import InputError
from utils.data import download
from utils.data.download import PATIENCE, Patience, fetch, part_of
from utils.files import ROOT, remove_leftovers

CONTENT = random.Random(0).randbytes(160_000)
CHECKSUM = md5(CONTENT).hexdigest()
#: As by default, at a fiftieth of the time: 0.4 s to judge a rate, 0.6 s until a server is left.
QUICK = Patience(rate=200_000, window=0.4, silence=0.2, pause=0.0)
#: Seconds that a busy machine may add.
BUSY = 0.5
PAGE = b"<!DOCTYPE html><title>Sign in to the network</title>" * 100

#: Called as another process, which is then killed.
FETCH = """
import sys
from pathlib import Path
from utils.data.download import Patience, fetch
fetch([sys.argv[1]], Path(sys.argv[2]), sys.argv[3], "It", 10**6)
"""


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data" / "archive.tar.gz"


def get(target, *servers, patience=QUICK):
    """Fetch from servers, and return the seconds it took."""
    with serving(*servers) as addresses:
        begin = time.monotonic()
        fetch(addresses, target, CHECKSUM, "It", 10**6, patience)
        return time.monotonic() - begin


def leave_part(target, content):
    target.parent.mkdir(exist_ok=True)
    part_of(target).write_bytes(content)


def names(target):
    return sorted(path.name for path in target.parent.iterdir())


def refused_name(content):
    return f"archive.tar.gz.{md5(content).hexdigest()[:8]}.refused"


# What broke off is gone on with


@pytest.mark.slow
def test_a_slow_download_cut_five_times_arrives_and_fetches_next_to_nothing_twice(target, capsys):
    server = Server(CONTENT, rates=[80_000], cuts=[20_000, 30_000, 25_000, 35_000, 15_000])
    seconds = get(target, server, patience=Patience(pause=0.0))
    assert target.read_bytes() == CONTENT
    assert names(target) == [target.name]
    assert len(server.asked) == 6
    twice = server.sent - len(CONTENT)
    assert 0 <= twice <= 0.01 * len(CONTENT)
    shown = capsys.readouterr().out
    assert len(re.findall(r"was left .*; going on from \d\.\d MB with", shown)) == 5
    print(f"cut 5 times: {twice} of {len(CONTENT):,} bytes fetched twice, {seconds:.1f} s in all")


@pytest.mark.slow
def test_a_killed_process_leaves_what_the_next_one_goes_on_from(target, capsys):
    first, second = Server(CONTENT, rates=[100_000]), Server(CONTENT)
    with serving(first) as (address,):
        arguments = [sys.executable, "-c", FETCH, address, str(target), CHECKSUM]
        with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
            while not part_of(target).exists() or part_of(target).stat().st_size < 50_000:
                time.sleep(0.01)
            process.kill()
    kept = part_of(target).stat().st_size
    assert not target.exists()
    get(target, second)
    assert (second.asked, second.sent) == ([f"bytes={kept}-"], len(CONTENT) - kept)
    assert target.read_bytes() == CONTENT
    assert "Downloading It: going on from 0.1 MB with http" in capsys.readouterr().out
    print(f"killed: {first.sent - kept} of {len(CONTENT):,} bytes fetched twice")


def test_the_next_call_goes_on_and_its_bar_begins_where_the_part_ends(target, capsys):
    first = Server(CONTENT, cuts=[100_000, 0])
    with pytest.raises(
        InputError, match=r"could not be downloaded \(http.*broke off after"
    ) as said:
        get(target, first)
    assert f"0.1 MB of it are kept in {part_of(target)}" in str(said.value)
    assert (
        "give the same command again to go on from there, or put archive.tar.gz from http"
        in str(said.value)
    )
    assert not target.exists() and part_of(target).read_bytes() == CONTENT[:100_000]
    remove_leftovers(target.parent)
    capsys.readouterr()
    second = Server(CONTENT)
    get(target, second)
    assert (second.asked, second.sent) == (["bytes=100000-"], 60_000)
    assert target.read_bytes() == CONTENT
    assert "Downloading It:  62%" in capsys.readouterr().err.split("\r")[1]


def test_a_part_that_is_whole_is_moved_without_asking_anybody(target, no_network):
    leave_part(target, CONTENT)
    fetch(["http://nobody/archive"], target, CHECKSUM, "It", 10**6)
    assert names(target) == [target.name]


@pytest.mark.parametrize("unmeasured", [False, True])
def test_a_server_that_resumes_nothing_is_read_from_the_beginning(target, unmeasured):
    leave_part(target, CONTENT[:100_000])
    server = Server(CONTENT, is_resuming=False, unmeasured=unmeasured)
    get(target, server)
    assert server.asked == ["bytes=100000-"]
    assert names(target) == [target.name] and target.read_bytes() == CONTENT


def test_a_server_that_resumes_nothing_and_breaks_off_costs_nothing_that_came(target):
    leave_part(target, CONTENT[:100_000])
    broken = Server(CONTENT, is_resuming=False, cuts=[50_000])
    last = Server(CONTENT)
    get(target, broken, last)
    assert (last.asked, last.sent) == (["bytes=100000-"], 60_000)


@pytest.mark.parametrize(
    "part", [CONTENT + b"more", b"of another file" * 20_000, CONTENT[1:] + b"x"]
)
def test_a_part_beyond_what_the_server_has_is_kept_and_the_download_begins_anew(
    target, capsys, part
):
    leave_part(target, part)
    server = Server(CONTENT)  # answers 416
    get(target, server)
    assert server.asked == [f"bytes={len(part)}-", None]
    assert target.read_bytes() == CONTENT
    assert names(target) == [target.name, refused_name(part)]
    assert f"is kept as {target.parent / refused_name(part)}; beginning" in capsys.readouterr().out


def test_an_address_with_another_total_is_not_gone_on_with(target, capsys):
    cut, other = Server(CONTENT, cuts=[50_000]), Server(CONTENT + PAGE)
    get(target, cut, other)
    assert other.asked == ["bytes=50000-"]
    assert cut.sent == len(CONTENT)  # the rest came from where the beginning had come from
    assert names(target) == [target.name]
    assert "offers a file of 165,200 bytes instead of one of 160,000" in capsys.readouterr().out


def test_a_part_of_another_file_is_found_out_in_the_end_and_the_whole_is_fetched(target, capsys):
    leave_part(target, PAGE)
    server = Server(CONTENT)
    get(target, server)
    assert server.asked == [f"bytes={len(PAGE)}-", None]
    assert names(target) == [target.name, refused_name(PAGE + CONTENT[len(PAGE) :])]
    assert "is not the official archive" in capsys.readouterr().out


@pytest.mark.parametrize("page", [PAGE, 50 * PAGE], ids=["short", "long"])
def test_a_page_in_place_of_the_archive_costs_nothing_that_came(target, page):
    leave_part(target, CONTENT[:100_000])
    with pytest.raises(InputError, match=r"0\.1 MB of it are kept"):
        get(target, Server(page, is_resuming=False), Server(page, is_resuming=False))
    assert part_of(target).read_bytes() == CONTENT[:100_000]
    assert names(target) == [refused_name(page), part_of(target).name]


# Addresses that are left


def test_by_default_an_address_is_left_within_half_a_minute():
    assert PATIENCE.window + PATIENCE.silence <= 30
    assert (PATIENCE.rate, PATIENCE.window) == (200_000, 20)


@pytest.mark.parametrize("silent", ["headers", "body", "trickle"])
def test_a_dead_address_is_left_for_the_next_one(target, capsys, silent):
    dead, alive = Server(CONTENT, silent=silent), Server(CONTENT)
    seconds = get(target, dead, alive)
    assert seconds < QUICK.window + QUICK.silence + BUSY
    assert target.read_bytes() == CONTENT
    shown = capsys.readouterr().out
    assert re.search(
        rf"{dead.address} was left \((nothing came for 0.2 s|it did not answer within 0.4 s)\); "
        rf"beginning from zero with {alive.address}\.\n",
        shown,
    )
    print(f"nothing came ({silent}): left after {seconds:.2f} s of at most 0.6 s")


def test_a_slow_address_is_left_and_what_came_from_it_is_kept(target, capsys):
    slow, quick = Server(CONTENT, rates=[80_000]), Server(CONTENT)
    seconds = get(target, slow, quick)
    assert seconds < QUICK.window + QUICK.silence + BUSY
    assert target.read_bytes() == CONTENT
    assert quick.asked != [None] and 100_000 < quick.sent < 150_000
    assert 0 <= slow.sent + quick.sent - len(CONTENT) <= 0.05 * len(CONTENT)
    found = re.search(r"was left \(it sends (\d+) kB/s\); going on", capsys.readouterr().out)
    assert 60 <= int(found[1]) <= 90
    twice = slow.sent + quick.sent - len(CONTENT)
    print(f"80 kB/s: left after {seconds:.2f} s of at most 0.6 s, {twice} bytes fetched twice")


@pytest.mark.slow
def test_where_all_are_slow_the_fastest_goes_on(target, capsys):
    servers = [Server(CONTENT, rates=[rate]) for rate in (40_000, 90_000, 60_000)]
    get(target, *servers)
    assert target.read_bytes() == CONTENT
    assert [len(server.asked) for server in servers] == [1, 2, 1]
    assert max(servers, key=lambda server: server.sent) is servers[1]
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.search(rf"with {servers[1].address}, the fastest that answers \(\d+ kB/s\)\.", last)


@pytest.mark.slow
def test_the_fastest_of_slow_addresses_is_left_when_it_falls_behind_the_next(target, capsys):
    failing, steady = Server(CONTENT, rates=[90_000, 5_000]), Server(CONTENT, rates=[60_000])
    get(target, failing, steady)
    assert target.read_bytes() == CONTENT
    assert (len(failing.asked), len(steady.asked)) == (2, 2)
    assert steady.sent > 100_000


def test_one_slow_address_alone_is_never_left(target, capsys):
    server = Server(CONTENT[:60_000], rates=[80_000])
    with serving(server) as addresses:
        fetch(addresses, target, md5(server.content).hexdigest(), "It", 10**6, QUICK)
    assert (server.asked, capsys.readouterr().out) == ([None], "")


def test_where_all_fail_each_is_named_with_its_reason(target):
    servers = Server(b"", status=503), Server(b"", status=404), Server(CONTENT, silent="body")
    with pytest.raises(InputError) as refused:
        get(target, *servers)
    for server, reason in zip(servers, ("Error 503", "Error 404", "nothing came for"), strict=True):
        assert re.search(rf"{server.address}: [^;]*{reason}", str(refused.value))
    assert "Check the network and give the same command again, or put archive" in str(refused.value)
    assert names(target) == []


# What is altered

ALTERED = {
    "a flipped byte": CONTENT[:70_000] + bytes([CONTENT[70_000] ^ 1]) + CONTENT[70_001:],
    "truncated": CONTENT[:-1_000],
    "a page": PAGE,
}


@pytest.mark.parametrize("content", ALTERED.values(), ids=ALTERED)
def test_an_altered_archive_is_kept_for_inspection_and_the_next_address_begins_at_zero(
    target, capsys, content
):
    last = Server(CONTENT)
    get(target, Server(content), last)
    assert last.asked == [None]
    assert target.read_bytes() == CONTENT
    assert (target.parent / refused_name(content)).read_bytes() == content
    shown = capsys.readouterr().out
    assert f"not {CHECKSUM}) and is kept as {target.parent / refused_name(content)}" in shown


def test_three_of_three_altered_archives_are_refused_and_kept(target):
    servers = [Server(content) for content in ALTERED.values()]
    with pytest.raises(InputError) as refused:
        get(target, *servers)
    assert names(target) == sorted(map(refused_name, ALTERED.values()))
    for server in servers:
        assert f"{server.address}: what came is not the official archive" in str(refused.value)
        assert str(target.parent / refused_name(server.content)) in str(refused.value)


@pytest.mark.parametrize("unmeasured", [False, True])
def test_no_more_comes_than_there_is_room_for(target, unmeasured):
    with serving(Server(CONTENT, unmeasured=unmeasured)) as addresses:
        match = "not the official" if unmeasured else "offers 160,000 bytes, more than the 99,000"
        with pytest.raises(InputError, match=match):
            fetch(addresses, target, CHECKSUM, "It", 99_000, QUICK)
    assert not target.exists()
    assert sum(path.stat().st_size for path in target.parent.iterdir()) <= 99_000


# What cannot be written


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no such device here")
def test_a_full_disk_is_said(target):
    target.parent.mkdir()
    part_of(target).symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"cannot be written: No space left on device\. Free some"):
        get(target, Server(CONTENT))
    assert not target.exists()


def test_a_folder_that_cannot_be_is_said_before_anything_is_asked(target):
    target.parent.write_text("")
    server = Server(CONTENT)
    with pytest.raises(InputError, match=r"archive\.tar\.gz cannot be written: .*Choose another"):
        get(target, server)
    assert server.asked == []


def test_room_is_asked_for_what_is_missing_only(target, monkeypatch):
    free = shutil.disk_usage(target.parent.parent)._replace(free=50_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    monkeypatch.setattr(download._Download, "run", lambda _: None)
    leave_part(target, CONTENT[:100_000])
    fetch(["http://nobody"], target, CHECKSUM, "It", 150_000)
    with pytest.raises(InputError, match=r"Downloading It needs .* GB"):
        fetch(["http://nobody"], target, CHECKSUM, "It", 150_001)
