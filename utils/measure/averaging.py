"""What a test saves that averages over views only where a network is unsure, and its price."""

import statistics
import time
from collections.abc import Iterator

from utils import as_percent, check_number
from utils.data.sources import pictures_of
from utils.devices import choose_device
from utils.runs import Run
from utils.training.predictions import trained_classifier
from utils.training.trainer import UNSURE, evaluate, evaluate_averaged

#: Views of each picture in such a test.
VIEWS = 6
#: Shares of the pictures that are seen in several views, by what that is called.
SHARES = {
    "one view of each picture": 0.0,
    f"{VIEWS} views of the {UNSURE:.0%} least sure": UNSURE,
    f"{VIEWS} views of each picture": 1.0,
}


def print_averaging(run: Run, rounds: int = 3) -> None:
    """Test a trained network in each of those ways in turn, and print accuracy and time.

    Args:
        run: complete.
        rounds: how often each is measured, after once without; at least 1.

    Raises:
        InputError: a number out of range, or the run's network or pictures cannot be read.
    """
    check_number("--rounds", rounds, 1, 1_000, whole=True)
    device, _ = choose_device()
    asked = *trained_classifier(run, pictures_of(run)), device, run.record["precision"]
    seconds: dict[str, list[float]] = {name: [] for name in SHARES}
    accuracy: dict[str, float] = {}
    for number in range(rounds + 1):
        for name, share in SHARES.items():
            started = time.perf_counter()
            if 0 < share < 1:
                figures = evaluate_averaged(*asked, VIEWS, share)
            else:
                figures, _ = evaluate(*asked, VIEWS if share else 1)
            accuracy[name] = figures["test_acc"]
            if number:
                seconds[name].append(time.perf_counter() - started)
    print("\n".join(table(run, accuracy, seconds)))


def table(run: Run, accuracy: dict[str, float], seconds: dict[str, list[float]]) -> Iterator[str]:
    """Yield a line a way, with its time as a share of the last one's.

    Args:
        run: what was tested.
        accuracy: of each way, in [0, 1].
        seconds: of each way, round by round.
    """
    record = run.record
    _, hardware = choose_device()
    rounds = len(next(iter(seconds.values())))
    yield (
        f"{run.name}: {record['model']['name']}, {record['data']['title']}, "
        f"{record['data']['test_size']:,} test pictures ({hardware}, {record['precision']}, "
        f"n = {rounds} rounds in turn)"
    )
    *_, last = seconds
    for name, taken in seconds.items():
        median = statistics.median(taken)
        share = median / statistics.median(seconds[last])
        right = as_percent(accuracy[name], 2)
        yield f"  {name:32}{right:>8}{median:8.1f} s{share:7.2f} of the last"
