"""Named training recipes: every number that training depends on, in one frozen place each."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace

from utils import InputError, brief, check_choice, check_flag, check_number
from utils.data.augmentation import Affine, Augmentation, Holes, Shrink
from utils.data.epochs import pictures_per_epoch
from utils.settings import (
    PICTURES,
    RANDOM,
    RECIPE,
    SETTINGS,
    TRAINING,
    default_recipe,
    names_of,
)

OPTIMIZERS = ("adam", "muon")
#: Fields of a recipe that are parameters, too.
OVERRIDES = tuple(name for name in names_of(RECIPE) if name != "recipe")


@dataclass(frozen=True)
class Recipe:
    """An optimiser under a OneCycle schedule (Smith & Topin 2018, "Super-Convergence"), and more.

    Attributes:
        model: name of the network it trains.
        epochs: passes over the training split.
        batch_size: pictures a step.
        optimizer: ``"adam"``, or ``"muon"`` (`utils.training.optimizers.Muon`).
        max_lr: peak of the learning rate.
        warmup_share: share of all steps in which the learning rate rises.
        initial_lr_divisor: training starts at ``max_lr / initial_lr_divisor``.
        final_lr_divisor: it ends at the starting rate divided by this.
        min_momentum, max_momentum: Adam's first beta, or Muon's momentum, runs from max to min and
            back; it stays where the two are equal.
        label_smoothing: share of the target that is spread evenly over all classes (Szegedy et al.
            2016, "Rethinking the Inception Architecture", section 7). Losses are reported without.
        growth: progressive resizing (Howard 2018, "Training Imagenet in 3 hours"): pairs of a
            share of the picture's side and the share of all epochs at which training leaves it
            for the next; after the last pair pictures have their full size. Empty: always.
        whitening: whether a network whose first layer can be set from the pictures begins so; else
            that layer begins at random, and is learned.
        skipped: share of the training pictures that each epoch leaves out: half of the easiest,
            or any, where it is more than a half (`utils.data.batches.EpochShuffle`).
        augmentation: what is done to each training picture.
        head_share: share of all epochs, the first ones, in which the network's last part learns
            alone (Howard & Ruder 2018, "Universal Language Model Fine-tuning", section 3.3).
        fixed_statistics: whether batch norms keep the means and variances that they begin with;
            those of small batches of few pictures would be a poorer guess.
        depth_decay: each part of the network learns at this share of the rate of the part after
            it, the last at `max_lr` (the same, section 3.2); with Adam.
        views: how many views of each test picture the final accuracy is also averaged over
            (`utils.data.augment.several_views`); 1 for none.

    Raises:
        InputError: a value is not of the right kind or out of its range.
    """

    name: str
    epochs: int
    batch_size: int
    max_lr: float
    model: str = "davidnet"
    optimizer: str = "adam"
    warmup_share: float = 0.3
    initial_lr_divisor: float = 100.0
    final_lr_divisor: float = 1e4
    min_momentum: float = 0.85
    max_momentum: float = 0.9
    label_smoothing: float = 0.0
    growth: tuple[tuple[float, float], ...] = ()
    whitening: bool = True
    skipped: float = 0.0
    head_share: float = 0.0
    fixed_statistics: bool = False
    depth_decay: float = 1.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    views: int = 1

    def __post_init__(self):
        object.__setattr__(self, "growth", _checked_growth(self.growth))
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        for name in OVERRIDES:
            SETTINGS[name].check(getattr(self, name), is_resolved=True)
        check_flag("whitening", self.whitening)
        check_flag("fixed_statistics", self.fixed_statistics)
        check_number("skipped", self.skipped, 0.0, 0.9)
        check_number("head_share", self.head_share, 0.0, 1.0)
        check_number("depth_decay", self.depth_decay, 0.01, 1.0)
        check_number("label_smoothing", self.label_smoothing, 0.0, 0.9)
        check_number("warmup_share", self.warmup_share, 0.0, 0.99)
        check_number("initial_lr_divisor", self.initial_lr_divisor, 1.0, 1e10)
        check_number("final_lr_divisor", self.final_lr_divisor, 1.0, 1e10)
        check_number("min_momentum", self.min_momentum, 0.0, 0.9999)
        check_number("max_momentum", self.max_momentum, 0.0, 0.9999)

    def in_words(self) -> str:
        """Return its main numbers as a phrase."""
        smoothing = f", label smoothing {self.label_smoothing:g}" if self.label_smoothing else ""
        return (
            f"{self.optimizer.capitalize()} with a peak learning rate of {self.max_lr:.3g}, "
            f"{self.epochs} epochs in batches of {self.batch_size}{smoothing}"
        )

    def as_settings(self) -> dict:
        """Return the fields as they stand in ``run.json``: on one level, the name as ``recipe``."""
        values = asdict(self)
        values["growth"] = [list(stage) for stage in self.growth]
        return {"recipe": values.pop("name"), **values.pop("augmentation"), **values}

    @classmethod
    def from_settings(cls, settings: dict) -> "Recipe":
        """Return the recipe that ``as_settings`` described."""
        augmentation, others = (
            {field.name: settings[field.name] for field in fields(of) if field.name in settings}
            for of in (Augmentation, cls)
        )
        return cls(settings["recipe"], **others, augmentation=Augmentation(**augmentation))

    def changed(self, **changes) -> "Recipe":
        """Return it with other values for some fields, of its own or of its augmentation."""
        names = {field.name for field in fields(Augmentation)} & set(changes)
        augmentation = replace(self.augmentation, **{name: changes.pop(name) for name in names})
        return replace(self, augmentation=augmentation, **changes)

    def picture_sides(self, image_size: int) -> list[int]:
        """Return the side in pixels of what the network sees in each epoch.

        Args:
            image_size: the full side; reduced ones are multiples of 8, and at least 16. The last
                epoch has it, however few there are, unless `growth` lasts to the end.
        """
        return [self._side(epoch, image_size) for epoch in range(self.epochs)]

    def _side(self, epoch: int, image_size: int) -> int:
        for share, until in self.growth:
            if epoch < min(round(until * self.epochs), self.epochs - (until < 1)):
                return min(image_size, max(16, 8 * round(share * image_size / 8)))
        return image_size


def _checked_growth(growth) -> tuple[tuple[float, float], ...]:
    """Return `growth` as pairs of numbers, both rising towards 1."""
    try:
        pairs = tuple((share, until) for share, until in growth)
    except (TypeError, ValueError):
        raise InputError(f"growth is {brief(growth)}; it must be pairs of numbers.") from None
    for share, until in pairs:
        check_number("a side in growth", share, 0.1, 1.0)
        check_number("an end in growth", until, 0.0, 1.0)
    if list(pairs) != sorted(pairs) or [u for _, u in pairs] != sorted(u for _, u in pairs):
        raise InputError(f"growth is {brief(growth)}; sides and ends must rise.")
    return pairs


#: What a short training needs; the plan is that of "94% on CIFAR-10 in 3.29 Seconds on a Single
#: GPU" (Jordan 2024) with its later optimiser. Epochs, growth, jitter and what is skipped were
#: chosen by 5,000 training pictures held out, batch and rate by 10,000.
SPEED = Recipe(
    "speed",
    epochs=10,
    batch_size=1000,
    max_lr=0.24,
    model="speednet",
    optimizer="muon",
    warmup_share=0.0,
    min_momentum=0.6,
    max_momentum=0.6,
    label_smoothing=0.2,
    growth=((0.75, 0.5),),
    skipped=0.3,
    augmentation=Augmentation(crop_padding=2, alternate_flips=True, jitter=0.2, cutout_size=0),
    views=6,
)
#: Much of it for DavidNet, which learns more from a picture: it begins smaller, and smooths less.
FAST = replace(
    SPEED,
    name="fast",
    model="davidnet",
    epochs=13,
    batch_size=512,
    max_lr=0.17,
    label_smoothing=0.1,
    growth=((0.5, 0.4), (0.75, 0.75)),
    views=1,
)
#: A first look at drawn shapes: short epochs, small pictures first, and a light augmentation.
#: Chosen by 1,600 training pictures held out.
QUICK = Recipe(
    "quick",
    epochs=5,
    batch_size=48,
    max_lr=0.2,
    optimizer="muon",
    warmup_share=0.1,
    min_momentum=0.6,
    max_momentum=0.6,
    growth=((0.75, 0.6),),
    skipped=0.85,
    augmentation=Augmentation(crop_padding=2, cutout_size=0),
)
#: For few pictures: a network that has seen many, its last part first, then all of it, the more
#: slowly the nearer to the picture. Rates and norms were chosen among seventeen ways by training
#: pictures held out, two draws of 200 of CIFAR-10's.
FINETUNE = Recipe(
    "finetune",
    epochs=15,
    batch_size=32,
    max_lr=5e-4,
    model="efficientnet_lite0",
    label_smoothing=0.1,
    head_share=0.2,
    fixed_statistics=True,
    depth_decay=0.8,
    augmentation=Augmentation(
        crop_padding=0, cutout_size=0, jitter=0.2, affine=Affine(0.75, 0.1, 0.2, 10.0)
    ),
)
#: What the original may have done to its training pictures, which it does not say: what its run
#: script does, what its modules name for DavidNet, and what this project guessed at first.
CANDIDATES = {
    "a": Augmentation(0, 0.5, 0, affine=Affine(), holes=Holes()),
    "b": Augmentation(0, 0.5, 0, shrink=Shrink(), holes=Holes(0.5, 8, 8, 8, 8)),
    "c": Augmentation(4, 0.5, 8),
}
_PLAIN = Recipe("", epochs=1, batch_size=2, max_lr=1.0)
#: Settings by default. So it was where a run of an earlier version does not name them.
UNSAID = {
    name: value
    for name, value in _PLAIN.as_settings().items()
    if name not in ("recipe", "epochs", "batch_size", "max_lr")
} | {
    name: SETTINGS[name].default for name in names_of(PICTURES, TRAINING) if SETTINGS[name].is_late
}
UNSAID["weights"] = RANDOM
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("original", epochs=20, batch_size=512, max_lr=1e-2),
        QUICK,
        FAST,
        SPEED,
        FINETUNE,
    )
}


def without_each_part(recipe: Recipe) -> dict[str, Recipe]:
    """Return a recipe without each of its parts in turn, by what it has instead."""
    plain = RECIPES["original"]
    schedule = ("max_lr", "warmup_share", "min_momentum", "max_momentum")
    adam = {name: getattr(plain, name) for name in ("optimizer", *schedule)}
    changes = {
        "Adam instead of Muon": adam if recipe.optimizer == "muon" else {},
        "full size from the start": {"growth": ()},
        "every picture in every epoch": _without_skipping(recipe),
        "no label smoothing": {"label_smoothing": 0.0},
        "flips at random": {"alternate_flips": False},
        "first layer learned": {"whitening": False} if recipe.model == "speednet" else {},
        "crops of the original": {"crop_padding": plain.augmentation.crop_padding},
        "cutout of the original": {"cutout_size": plain.augmentation.cutout_size},
        "colours as they are": {"jitter": 0.0},
    }
    variants = {what: recipe.changed(**change) for what, change in changes.items()}
    return {what: variant for what, variant in variants.items() if variant != recipe}


def _without_skipping(recipe: Recipe) -> dict:
    """Return changes that show every picture, for about as many steps in all."""
    epochs = max(1, round(recipe.epochs * (1 - recipe.skipped)))
    return {"skipped": 0.0, "epochs": epochs} if recipe.skipped else {}


def overrides(settings: Mapping) -> dict:
    """Return what settings have instead of a recipe's own values; None where that stays.

    A word such as ``"found"`` stands for a number that is not known yet.
    """
    return {n: None if settings[n] in SETTINGS[n].words else settings[n] for n in OVERRIDES}


def choose_recipe(recipe: str | Recipe | None, dataset: str, **overrides) -> Recipe:
    """Return the named recipe with some fields replaced; overrides that are None change nothing.

    Raises:
        InputError: an unknown recipe, or a value out of its range.
    """
    if not isinstance(recipe, Recipe):
        name = default_recipe(dataset) if recipe is None else recipe
        check_choice("recipe", name, tuple(RECIPES))
        recipe = RECIPES[name]
    given = {key: value for key, value in overrides.items() if value is not None}
    return recipe.changed(**given)


def limit_batch_size(recipe: Recipe, train_size: int, least_steps: int = 10) -> Recipe:
    """Lower the batch size until an epoch has at least `least_steps` steps.

    A handful of pictures in one batch of 512 would give the schedule one step an epoch, which is
    no training. The result is a power of two, and at least 8. What the recipe leaves out of each
    epoch counts for nothing.
    """
    batch_size, shown = recipe.batch_size, pictures_per_epoch(train_size, recipe.skipped)
    while batch_size > 8 and batch_size * least_steps > shown:
        batch_size = max(8, 1 << (batch_size - 1).bit_length() - 1)
    return replace(recipe, batch_size=batch_size)
