"""The tables of what maps are worth: what stands in them, and that they are kept whole."""

import numpy as np
import pandas as pd
import pytest

from utils.explain.trust import KNOWS_NOTHING, MASK, Judgement
from utils.measure import trust_report

CANDIDATES = (*KNOWS_NOTHING, MASK, ("gradcam", "layer1"), ("hirescam", "layer1"))


@pytest.fixture
def judgement():
    random = np.random.default_rng(0)
    means = {
        "intervention": (0.1, 0.2, 0.3, 1.0, 0.5, 0.7),
        "removal": (0, 0.1, 0.2, 0.9, 0.3, 0.6),
    }
    scores = {
        name: np.array(values)[:, None] + random.normal(0, 0.01, (6, 50))
        for name, values in means.items()
    }
    for name in ("class", "weights"):
        scores[name] = np.full((6, 50), np.nan)
        scores[name][4:, :10] = 0.8
    return Judgement(CANDIDATES, scores)


def test_the_table_has_a_row_a_map_and_a_dash_where_nothing_was_measured(judgement):
    lines = [line.replace("\u00a0", " ") for line in trust_report.table(judgement)]
    assert lines[0] == "| map | intervention | removal | class | weights |"
    assert len(lines) == 2 + len(CANDIDATES)
    assert lines[2].startswith("| noise | 0.10 ± 0.00 |")
    assert lines[2].endswith("| – | – |")
    assert (
        lines[-1]
        == "| hirescam at layer1 | 0.70 ± 0.00 | 0.60 ± 0.00 | 0.80 ± 0.00 | 0.80 ± 0.00 |"
    )


def test_measures_that_know_nothing_wins_are_called_broken():
    table = pd.DataFrame(
        [("removal", 0.8, 0.7, 0.9, "hirescam at layer1", False, 50),
         ("deletion", -0.1, -0.2, 0.05, "edges", True, 50)],
        columns=["measure", "tau", "low", "high", "winner", "is_broken", "n"],
    )  # fmt: skip
    assert list(trust_report.agreement_table(table))[2:] == [
        "| removal | 0.80 | 0.70 to 0.90 | hirescam at layer1 | stands |",
        "| deletion | -0.10 | -0.20 to 0.05 | edges | broken |",
    ]


def test_what_was_measured_is_kept_whole(judgement, tmp_path):
    trust_report.keep(tmp_path / "kept" / "measured", judgement, "drawn shapes", "DavidNet")
    kept = pd.read_csv(tmp_path / "kept" / "measured.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(kept, judgement.table().round(4), check_dtype=False)
    assert (tmp_path / "kept" / "measured.png").read_bytes().startswith(b"\x89PNG")
