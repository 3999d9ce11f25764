"""Named training recipes: every number that training depends on, in one frozen place each."""

from dataclasses import asdict, dataclass, fields, replace

from utils import InputError, check_choice, check_flag, check_number, shown
from utils.settings import SETTINGS, WHOLE

OPTIMIZERS = ("adam", "muon")
VIEWS = (1, 2, 6)


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
        skipped: share of the training pictures, at most a half, that each epoch leaves out: half
            of the easiest (`utils.data.batches.EpochShuffle`). 0 leaves out none.
        crop_padding: pixels of reflection on each side before the random crop.
        flip_probability: of a left-right flip.
        alternate_flips: as `utils.data.augment.Augmentation` has it.
        cutout_size: side in pixels of the square set to the mean colour; 0 for none.
        jitter: of contrast and brightness, as `utils.data.augment.Augmentation` has it.
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
    crop_padding: int = 4
    flip_probability: float = 0.5
    alternate_flips: bool = False
    cutout_size: int = 8
    jitter: float = 0.0
    views: int = 1

    def __post_init__(self):
        object.__setattr__(self, "growth", _checked_growth(self.growth))
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("views", self.views, VIEWS)
        for name in ("epochs", "batch_size", "max_lr"):
            setting = SETTINGS[name]
            is_whole = setting.kind is WHOLE
            check_number(name, getattr(self, name), setting.low, setting.high, is_whole)
        check_flag("alternate_flips", self.alternate_flips)
        check_flag("whitening", self.whitening)
        check_number("skipped", self.skipped, 0.0, 0.5)
        check_number("label_smoothing", self.label_smoothing, 0.0, 0.9)
        check_number("warmup_share", self.warmup_share, 0.0, 0.99)
        check_number("initial_lr_divisor", self.initial_lr_divisor, 1.0, 1e10)
        check_number("final_lr_divisor", self.final_lr_divisor, 1.0, 1e10)
        check_number("min_momentum", self.min_momentum, 0.0, 0.9999)
        check_number("max_momentum", self.max_momentum, 0.0, 0.9999)
        check_number("flip_probability", self.flip_probability, 0.0, 1.0)
        check_number("crop_padding", self.crop_padding, 0, 16, whole=True)
        check_number("cutout_size", self.cutout_size, 0, 64, whole=True)
        check_number("jitter", self.jitter, 0.0, 0.5)

    def in_words(self) -> str:
        """Return its main numbers as a phrase."""
        smoothing = f", label smoothing {self.label_smoothing:g}" if self.label_smoothing else ""
        return (
            f"{self.optimizer.capitalize()} with a peak learning rate of {self.max_lr:.3g}, "
            f"{self.epochs} epochs in batches of {self.batch_size}{smoothing}"
        )

    def as_settings(self) -> dict:
        """Return the fields as they stand in ``run.json``, the name under ``recipe``."""
        values = asdict(self)
        values["growth"] = [list(stage) for stage in self.growth]
        return {"recipe": values.pop("name"), **values}

    @classmethod
    def from_settings(cls, settings: dict) -> "Recipe":
        """Return the recipe that ``as_settings`` described."""
        known = {field.name for field in fields(cls)} - {"name"}
        return cls(settings["recipe"], **{k: v for k, v in settings.items() if k in known})

    def picture_sides(self, image_size: int) -> list[int]:
        """Return the side in pixels of what the network sees in each epoch.

        Args:
            image_size: the full side; reduced ones are multiples of 8, and at least 16.
        """
        return [self._side(epoch, image_size) for epoch in range(self.epochs)]

    def _side(self, epoch: int, image_size: int) -> int:
        for share, until in self.growth:
            if epoch < round(until * self.epochs):
                return min(image_size, max(16, 8 * round(share * image_size / 8)))
        return image_size


def _checked_growth(growth) -> tuple[tuple[float, float], ...]:
    """Return `growth` as pairs of numbers, both rising towards 1."""
    try:
        pairs = tuple((share, until) for share, until in growth)
    except (TypeError, ValueError):
        raise InputError(f"growth is {shown(growth)}; it must be pairs of numbers.") from None
    for share, until in pairs:
        check_number("a side in growth", share, 0.1, 1.0)
        check_number("an end in growth", until, 0.0, 1.0)
    if list(pairs) != sorted(pairs) or [u for _, u in pairs] != sorted(u for _, u in pairs):
        raise InputError(f"growth is {shown(growth)}; sides and ends must rise.")
    return pairs


#: What a short training needs; the plan is that of "94% on CIFAR-10 in 3.29 Seconds on a Single
#: GPU" (Jordan 2024) with its later optimiser. Epochs, rate, growth, jitter and what is skipped
#: were chosen by 5,000 training pictures held out.
SPEED = Recipe(
    "speed",
    epochs=10,
    batch_size=500,
    max_lr=0.17,
    model="speednet",
    optimizer="muon",
    warmup_share=0.0,
    min_momentum=0.6,
    max_momentum=0.6,
    label_smoothing=0.2,
    growth=((0.75, 0.5),),
    skipped=0.3,
    crop_padding=2,
    cutout_size=0,
    jitter=0.2,
    alternate_flips=True,
    views=6,
)
#: Much of it for DavidNet, which learns more from a picture: it begins smaller, and smooths less.
FAST = replace(
    SPEED,
    name="fast",
    model="davidnet",
    epochs=13,
    batch_size=512,
    label_smoothing=0.1,
    growth=((0.5, 0.4), (0.75, 0.75)),
    views=1,
)
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("original", epochs=20, batch_size=512, max_lr=1e-2),
        Recipe("quick", epochs=2, batch_size=64, max_lr=4e-3),
        FAST,
        SPEED,
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
        "crops of the original": {"crop_padding": plain.crop_padding},
        "cutout of the original": {"cutout_size": plain.cutout_size},
        "colours as they are": {"jitter": 0.0},
    }
    variants = {what: replace(recipe, **change) for what, change in changes.items()}
    return {what: variant for what, variant in variants.items() if variant != recipe}


def _without_skipping(recipe: Recipe) -> dict:
    """Return changes that show every picture, for about as many steps in all."""
    epochs = max(1, round(recipe.epochs * (1 - recipe.skipped)))
    return {"skipped": 0.0, "epochs": epochs} if recipe.skipped else {}


def default_recipe(dataset: str) -> str:
    """Return the recipe's name for ``recipe=None``: quick on the drawn shapes, else original."""
    return "quick" if dataset == "shapes" else "original"


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
    return replace(recipe, **given)


def fit_batch_size(recipe: Recipe, train_size: int, least_steps: int = 10) -> Recipe:
    """Lower the batch size until an epoch has at least `least_steps` steps.

    A handful of pictures in one batch of 512 would give the schedule one step an epoch, which is
    no training. The result is a power of two, and at least 8.
    """
    batch_size = recipe.batch_size
    while batch_size > 8 and batch_size * least_steps > train_size:
        batch_size = max(8, 1 << (batch_size - 1).bit_length() - 1)
    return replace(recipe, batch_size=batch_size)
