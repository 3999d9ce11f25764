"""A test averaged over views: what each way of it comes to, and what is said of it."""

import pytest
import torch

from utils.cli import main
from utils.data.augment import normalise, several_views
from utils.data.sources import pictures_of
from utils.devices import autocast
from utils.measure.averaging import SHARES, table
from utils.training.trained import load_network


def test_each_way_is_tested_and_the_last_is_the_whole_average(tiny_run, capsys):
    place = ["--run", tiny_run.name, "--output-dir", str(tiny_run.folder.parent)]
    main(["averaging", "--rounds", "1", *place])
    first, *ways = capsys.readouterr().out.splitlines()
    assert "n = 1 rounds in turn" in first and len(ways) == len(SHARES)
    pictures, network = pictures_of(tiny_run), load_network(tiny_run)
    images = normalise(pictures.test.images[:], pictures.mean, pictures.std)
    for count, line in ((1, ways[0]), (6, ways[-1])):
        with torch.no_grad(), autocast("cpu", tiny_run.record["precision"]):
            logits = sum(weight * network(v) for v, weight in several_views(images, count))
        right = (logits.argmax(1) == pictures.test.targets).float().mean().item()
        assert f" {100 * right:.2f}%" in line
    assert ways[-1].endswith("1.00 of the last")


def test_times_are_shares_of_the_last_by_their_medians(tiny_run):
    accuracy = dict.fromkeys(SHARES, 0.5)
    seconds = dict(zip(SHARES, ([1.0, 1.0, 9.0], [2.0, 5.0, 2.0], [4.0, 4.0, 4.0]), strict=True))
    told = [line.split()[-4] for line in list(table(tiny_run, accuracy, seconds))[1:]]
    assert told == ["0.25", "0.50", "1.00"]


def test_numbers_that_cannot_be_used_are_refused():
    with pytest.raises(SystemExit, match="--rounds is 0"):
        main(["averaging", "--rounds", "0"])
