"""Named training recipes: every number that training depends on, in one frozen place each."""

from dataclasses import asdict, dataclass, fields, replace

from utils import check_choice, check_number


@dataclass(frozen=True)
class Recipe:
    """Adam under a OneCycle schedule (Smith & Topin 2018, "Super-Convergence") with augmentation.

    Attributes:
        epochs: passes over the training split.
        batch_size: pictures a step.
        max_lr: peak of the learning rate.
        warmup_share: share of all steps in which the learning rate rises.
        initial_lr_divisor: training starts at ``max_lr / initial_lr_divisor``.
        final_lr_divisor: it ends at the starting rate divided by this.
        min_momentum, max_momentum: Adam's first beta runs from max to min and back.
        crop_padding: pixels of reflection on each side before the random crop.
        flip_probability: of a left-right flip.
        cutout_size: side in pixels of the square set to the mean colour; 0 for none.

    Raises:
        InputError: a value is not of the right kind or out of its range.
    """

    name: str
    epochs: int
    batch_size: int
    max_lr: float
    warmup_share: float = 0.3
    initial_lr_divisor: float = 100.0
    final_lr_divisor: float = 1e4
    min_momentum: float = 0.85
    max_momentum: float = 0.9
    crop_padding: int = 4
    flip_probability: float = 0.5
    cutout_size: int = 8

    def __post_init__(self):
        check_number("epochs", self.epochs, 1, 100_000, whole=True)
        check_number("batch_size", self.batch_size, 2, 1_000_000, whole=True)
        check_number("max_lr", self.max_lr, 1e-10, 100.0)
        check_number("warmup_share", self.warmup_share, 0.01, 0.99)
        check_number("initial_lr_divisor", self.initial_lr_divisor, 1.0, 1e10)
        check_number("final_lr_divisor", self.final_lr_divisor, 1.0, 1e10)
        check_number("min_momentum", self.min_momentum, 0.0, 0.9999)
        check_number("max_momentum", self.max_momentum, 0.0, 0.9999)
        check_number("flip_probability", self.flip_probability, 0.0, 1.0)
        check_number("crop_padding", self.crop_padding, 0, 16, whole=True)
        check_number("cutout_size", self.cutout_size, 0, 64, whole=True)

    def as_settings(self) -> dict:
        """Return the fields as they stand in ``run.json``, the name under ``recipe``."""
        values = asdict(self)
        return {"recipe": values.pop("name"), **values}

    @classmethod
    def from_settings(cls, settings: dict) -> "Recipe":
        """Return the recipe that ``as_settings`` described."""
        known = {field.name for field in fields(cls)} - {"name"}
        return cls(settings["recipe"], **{k: v for k, v in settings.items() if k in known})


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("original", epochs=20, batch_size=512, max_lr=1e-2),
        Recipe("quick", epochs=2, batch_size=64, max_lr=4e-3),
    )
}


def default_recipe(dataset: str) -> str:
    """Return the recipe's name for ``recipe=None``: quick on the drawn shapes, else original."""
    return "quick" if dataset == "shapes" else "original"


def choose_recipe(recipe: str | None, dataset: str, **overrides) -> Recipe:
    """Return the named recipe with some fields replaced; overrides that are None change nothing.

    Raises:
        InputError: an unknown recipe, or a value out of its range.
    """
    name = default_recipe(dataset) if recipe is None else recipe
    check_choice("recipe", name, tuple(RECIPES))
    given = {key: value for key, value in overrides.items() if value is not None}
    return replace(RECIPES[name], **given)


def fit_batch_size(recipe: Recipe, train_size: int, least_steps: int = 10) -> Recipe:
    """Lower the batch size until an epoch has at least `least_steps` steps.

    A handful of pictures in one batch of 512 would give the schedule one step an epoch, which is
    no training. The result is a power of two, and at least 8.
    """
    batch_size = recipe.batch_size
    while batch_size > 8 and batch_size * least_steps > train_size:
        batch_size = max(8, 1 << (batch_size - 1).bit_length() - 1)
    return replace(recipe, batch_size=batch_size)
