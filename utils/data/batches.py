"""Batches: one indexed copy each, in an order that seed and epoch alone decide."""

from collections.abc import Callable, Iterator, Sequence

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from utils import InputError
from utils.data.augment import augment, normalise, resize
from utils.data.augmentation import UNCHANGED, Augmentation
from utils.data.epochs import pictures_per_epoch
from utils.data.groups import held_out_part
from utils.data.picture_set import PictureSet, Split

EVAL_BATCH_SIZE = 256
#: Pixels in one elsewhere at most: what a network makes of more takes gigabytes.
EVAL_PIXELS = EVAL_BATCH_SIZE * 64 * 64
#: Pixels in one on a GPU, which would have nothing to do for most of the time that fewer take to
#: begin.
GPU_EVAL_PIXELS = 2048 * 32 * 32
#: The pictures are kept on a GPU that has this many times their size free.
ROOM = 8


class PictureDataModule(LightningDataModule):
    """Batches of a `PictureSet`, augmented and normalised on the device.

    Args:
        picture_set: the data.
        batch_size: of training; that of evaluation depends on the device.
        augmentation: of training pictures.
        seed: of the order and of the augmentation.
        val_fraction: share of the training split to hold out, stratified, and watch during
            training; 0 watches the test split, as the system this reproduces did.
        sides: of the pictures in pixels, one for each epoch of training; what is watched after an
            epoch has that epoch's size, which the network is used to. Empty: always the full one.
        skipped: share of the training pictures that an epoch leaves out; see `EpochShuffle`.

    Attributes:
        per_epoch: how many training pictures an epoch shows.
        losses: float32, one for each training picture, the last that training measured of it.
    """

    def __init__(
        self,
        picture_set: PictureSet,
        batch_size: int,
        augmentation: Augmentation = UNCHANGED,
        seed: int = 0,
        val_fraction: float = 0.0,
        sides: Sequence[int] = (),
        skipped: float = 0.0,
    ):
        super().__init__()
        self.picture_set = picture_set
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.seed = seed
        self.sides = sides
        self.train, self.watched = hold_out(picture_set, val_fraction)
        self.per_epoch = pictures_per_epoch(len(self.train), skipped)
        self.losses = torch.full((len(self.train),), torch.inf)
        self._near: dict[int, Split] = {}

    @property
    def leaves_out(self) -> bool:
        """Whether an epoch leaves out some training pictures, by the losses that they had."""
        return self.per_epoch < len(self.train)

    def state_dict(self) -> dict:
        """Return what a checkpoint keeps: the losses, where the next epoch depends on them."""
        return {"losses": self.losses.cpu()} if self.leaves_out else {}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take up the losses of a checkpoint."""
        self.losses = state_dict["losses"]

    def note_losses(self, indices: Tensor, losses: Tensor) -> None:
        """Remember the losses (N) that training measured of the pictures at `indices` (N)."""
        if self.leaves_out:
            self.losses = self.losses.to(losses.device)
            self.losses[indices] = losses.float()

    def size_of_batch(self, number: int) -> int:
        """Return how many pictures a training batch has, the shares of all processes together."""
        return min(self.batch_size, self.per_epoch - number * self.batch_size)

    def train_dataloader(self) -> DataLoader:
        """Return batches of the training split in an order of their own every epoch."""
        order = EpochShuffle(
            len(self.train), self.batch_size, self.seed, self.per_epoch, lambda: self.losses.cpu()
        )
        return self._loader(self.train, order)

    def val_dataloader(self) -> DataLoader:
        """Return batches of the split that is watched during training."""
        return self._evaluated(self.watched)

    def test_dataloader(self) -> DataLoader:
        """Return batches of the test split."""
        return self._evaluated(self.picture_set.test)

    def _evaluated(self, split: Split) -> DataLoader:
        size = evaluation_batch_size(self.device.type, split.images.shape[-1])
        return self._loader(split, InOrder(len(split), size))

    def _loader(self, split: Split, order: "InOrder") -> DataLoader:
        """Return the batches of this process: all of them, or its share of each."""
        if self.trainer is not None:
            order.rank, order.processes = self.trainer.global_rank, self.trainer.world_size
        return batch_loader(self.near(split), order)

    @property
    def device(self) -> torch.device:
        """Where the Trainer computes; the CPU as long as there is none."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def near(self, split: Split) -> Split:
        """Return a split on the GPU that the Trainer computes on, where that has room for it.

        Its batches then need no way there. Where there is no room, that is said once, and the split
        returned as it is, as on any other device.
        """
        if self.device.type != "cuda":
            return split
        if id(split) not in self._near:
            size, free = split.images.nbytes, _free(self.device)
            if ROOM * size <= free:
                self._near[id(split)] = split.to(self.device)
            else:
                self._near[id(split)] = split
                print(
                    f"{len(split):,} pictures ({size / 1e9:,.2f} GB) go to the GPU batch by batch: "
                    f"with {free / 1e9:,.2f} GB free it has no room for all, {ROOM} times over."
                )
        return self._near[id(split)]

    def on_after_batch_transfer(self, batch, dataloader_idx: int):
        """Turn the uint8 images of (images, targets, indices) into normalised ones."""
        images, targets, indices = batch
        assert self.trainer is not None  # it is the Trainer that calls
        mean, std, epoch = self.picture_set.mean, self.picture_set.std, self.trainer.current_epoch
        if self.trainer.training:
            images = augment(images, indices, self.augmentation, mean, std, self.seed, epoch)
        else:
            images = normalise(images, mean, std)
        if self.sides and self.trainer.state.fn == "fit":
            images = resize(images, self.sides[min(epoch, len(self.sides) - 1)])
        return images, targets, indices


def hold_out(picture_set: PictureSet, val_fraction: float) -> tuple[Split, Split]:
    """Return the pictures that a network is trained on, and those that are watched meanwhile.

    Args:
        picture_set: the data.
        val_fraction: share of the training split to hold out and watch, the same pictures each
            time; 0 trains on all of it, and watches the test split.

    Raises:
        InputError: so small a share, or split, that nothing is held out.
    """
    if val_fraction == 0:
        return picture_set.train, picture_set.test
    whole = picture_set.train
    held_out = held_out_part(whole, val_fraction)
    train, watched = (torch.nonzero(part).flatten() for part in (~held_out, held_out))
    if not len(watched):
        raise InputError(
            f"val_fraction {val_fraction} holds nothing out, as no class has two training pictures "
            "that need not stay together."
        )
    return whole.subset(train), whole.subset(watched)


def evaluation_batch_size(device: str, image_size: int) -> int:
    """Return how many pictures a batch of evaluation has: fewer of large ones, but on a GPU 256.

    Args:
        device: torch's name of it.
        image_size: side of the pictures in pixels.
    """
    if device == "cuda":
        return max(EVAL_BATCH_SIZE, GPU_EVAL_PIXELS // image_size**2)
    return max(1, min(EVAL_BATCH_SIZE, EVAL_PIXELS // image_size**2))


def _free(device: torch.device) -> int:
    """Return how many bytes of a GPU's memory are free."""
    return torch.cuda.mem_get_info(device)[0]


class InOrder(Sampler[Tensor]):
    """Yields the positions 0 … size − 1 in batches (int64 tensors).

    Where several processes train together, each is given its own part of every batch. No position
    is given twice, or left out; the parts of a batch differ by at most one position.

    Attributes:
        device: where the positions are to be.
        rank: of this process, from 0.
        processes: how many share each batch.
    """

    device = torch.device("cpu")
    rank, processes = 0, 1

    def __init__(self, size: int, batch_size: int):
        self.size, self.batch_size = size, batch_size

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        # a generator: the Trainer makes the iterator before it says which epoch this is
        for batch in self.order().to(self.device).split(self.batch_size):
            yield batch[self.rank :: self.processes]

    def order(self) -> Tensor:
        """Return all positions, int64, in the order they are to be seen."""
        return torch.arange(self.size)


class EpochShuffle(InOrder):
    """Yields positions in a random order that depends on seed, epoch and losses alone.

    The Trainer calls `set_epoch` before every epoch, so a resumed run sees the same order.

    Where an epoch shows only a part of the pictures, those left out are a random half of the ones
    with the lowest losses: they teach least, and come back by chance. That is the pruning of
    InfoBatch (Qin et al. 2024, "Lossless Training Speed Up by Unbiased Dynamic Data Pruning")
    with the same number of steps in each epoch, and without its larger weight for those that stay
    of the easy ones. Where an epoch shows less than half of the pictures, all of them count as
    easy, and chance alone decides.

    Args:
        size: number of pictures.
        batch_size: positions a batch.
        seed: of the order.
        per_epoch: how many an epoch shows; None shows all.
        losses: returns one for each picture (float32, on the CPU), infinite where it is not known;
            None where none is.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        per_epoch: int | None = None,
        losses: Callable[[], Tensor] | None = None,
    ):
        super().__init__(size if per_epoch is None else per_epoch, batch_size)
        self.pictures = size
        self.losses = losses or (lambda: torch.full((size,), torch.inf))
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def order(self) -> Tensor:
        """Return all positions, int64, in this epoch's order."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.pictures, generator=generator)
        skipped = self.pictures - self.size
        if not skipped:
            return order
        by_loss = self.losses()[order].argsort(stable=True)  # equal losses: as they come
        easy = by_loss[: 2 * skipped]
        left_out = easy[torch.randperm(len(easy), generator=generator)[:skipped]]
        stays = torch.ones(self.pictures, dtype=torch.bool)
        stays[left_out] = False
        return order[stays]


class _IndexedSplit(Dataset):
    """A split whose item is a whole batch: one indexed copy."""

    def __init__(self, split: Split):
        self.split = split

    def __getitem__(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.split.images[index], self.split.targets[index], index


def batch_loader(split: Split, sampler: InOrder) -> DataLoader:
    """Return batches of (uint8 N×3×S×S, int64 N, int64 N: positions in the split), where it is."""
    sampler.device = split.images.device
    pin = torch.cuda.is_available() and sampler.device.type == "cpu"
    return DataLoader(_IndexedSplit(split), sampler=sampler, batch_size=None, pin_memory=pin)
