"""How many pictures an epoch shows. Needs no torch: whoever reads many runs asks, too."""


def pictures_per_epoch(train_size: int, skipped: float) -> int:
    """Return how many of so many training pictures an epoch shows that leaves out this share.

    >>> pictures_per_epoch(50_000, 0.3)
    35000
    """
    return train_size - int(skipped * train_size)
