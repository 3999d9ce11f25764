"""Is it the network or the label? Labels that are most at odds with the evidence.

Nothing is removed or changed for it: a person looks, and decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils import counted
from utils.training.predictions import Predictions

#: How many are shown and named.
SHOWN = 10
#: What is not looked at.
UNASKED = (
    "These are labels of test pictures. Those of the training pictures are not asked about: the "
    "network has learnt them, wrong ones too."
)


@dataclass(frozen=True)
class Doubts:
    """The test pictures whose label the evidence speaks against, the most doubtful first.

    Attributes:
        positions: int64, M: in the test split.
        suggested: int64, M: the class that the evidence is for.
        evidence: float32, M: its share of the evidence, in [0, 1].
        likely: how many labels of the split cleanlab takes for wrong, by the network alone; None
            where all labels are the same, for which it has no estimate.
    """

    positions: np.ndarray
    suggested: np.ndarray
    evidence: np.ndarray
    likely: int | None


def doubted_labels(
    predictions: Predictions, wrong: np.ndarray, neighbours: np.ndarray | None = None
) -> Doubts:
    """Rank the pictures that the network got wrong by how much speaks against their label.

    cleanlab's label quality is the margin between the label's share of the evidence and that of
    the strongest other class (Kuan and Mueller 2022, "Model-agnostic label quality scoring",
    section 2); how many labels are wrong in all, it estimates from the counts of confident
    disagreements (Northcutt et al. 2021, "Confident Learning", section 3). Evidence is the mean of
    what the network says and of the classes of the nearest training pictures: two witnesses,
    though one that learned from the other.

    Args:
        predictions: of the test split, which the network was not trained on.
        wrong: int64, M: positions of the mistakes; where the network agrees with the label,
            nothing speaks against it.
        neighbours: int64, M×K: classes of the training pictures nearest to each; None leaves them
            out.
    """
    # here, because importing it takes two seconds
    from cleanlab.count import num_label_issues
    from cleanlab.rank import get_label_quality_scores

    if not len(wrong):
        return Doubts(wrong, wrong, np.empty(0, np.float32), 0)
    probabilities = _normalised(predictions.probabilities)
    evidence = probabilities[wrong]
    if neighbours is not None:
        votes = (neighbours[:, :, None] == np.arange(predictions.num_classes)).mean(axis=1)
        evidence = (evidence + votes) / 2
    labels = predictions.target[wrong]
    quality = get_label_quality_scores(labels, evidence, method="normalized_margin")
    order = np.argsort(quality, kind="stable")
    others = evidence.copy()
    others[np.arange(len(wrong)), labels] = -1
    suggested = others.argmax(axis=1)
    share = evidence[np.arange(len(wrong)), suggested].astype(np.float32)
    several = len(np.unique(predictions.target)) > 1
    likely = int(num_label_issues(predictions.target, probabilities)) if several else None
    return Doubts(wrong[order], suggested[order], share[order], likely)


def _normalised(probabilities: np.ndarray) -> np.ndarray:
    probabilities = probabilities.astype(np.float64)
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def doubts_in_words(doubts: Doubts, total: int, names: Sequence[str] | None = None) -> str:
    """Return how many labels of the test split are likely wrong, and in which files.

    Args:
        doubts: from `doubted_labels`.
        total: pictures in the split.
        names: of its files; None where they have none.
    """
    if not len(doubts.positions):
        return f"The network agrees with every label, so none is in doubt. {UNASKED}"
    if doubts.likely is None:
        return "All labels are the same, so there is no estimate of how many are wrong."
    unsure = counted(doubts.likely, "label") if doubts.likely else "no label"
    lines = [
        f"cleanlab's estimate, from the network's probabilities: {unsure} of {total:,} wrong. "
        "It cannot tell a wrong label from a picture that is hard; look at them, and judge.",
        UNASKED,
    ]
    if names is not None:
        shown = (names[position] for position in doubts.positions[:SHOWN])
        lines.append(f"The files, in that order: {', '.join(shown)}.")
    return "\n".join(lines)
