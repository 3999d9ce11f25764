"""Folders of files, and layouts of them that are refused."""


def make_files(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"never opened")


#: Of each layout its files, and what the refusal says (a pattern).
REFUSED = {
    "a test split without a training split": (
        ["cat/1.jpg", "dog/1.jpg", "test/cat/2.jpg", "test/dog/2.jpg"],
        "holds test, which looks like a split, but no folder of training pictures.*name them train",
    ),
    "unlabelled test pictures among classes": (
        ["cat/1.jpg", "dog/1.jpg", "Test1/1.jpg"], "holds Test1, which looks like a split",
    ),
    "a training split beside classes": (
        ["train/cat/1.jpg", "train/dog/1.jpg", "bus/1.jpg", "car/1.jpg"],
        "train, which looks like a split, beside bus, car, which may be classes",
    ),
    "two of one split": (
        ["train/cat/1.jpg", "Train/dog/1.jpg"],
        "'Train' and 'train', which both look like the train split",
    ),
    "folds": (
        ["fold1/cat/1.jpg", "fold1/dog/1.jpg", "fold2/cat/2.jpg", "fold2/dog/2.jpg"],
        r"fold1, fold2, which have the same subfolders \(cat, dog\).*name them train and test",
    ),
    "splits in another language": (
        ["entrenamiento/gato/1.jpg", "entrenamiento/perro/1.jpg", "prueba/gato/2.jpg",
         "prueba/perro/2.jpg"], "entrenamiento, prueba, which have the same subfolders",
    ),
    "labels in the names of files": (
        [f"train/{name}.{number}.jpg" for name in ("cat", "dog") for number in range(4)]
        + ["test1/1.jpg"],
        r"names of the files \(cat, dog\): labels_from=\"\^\(cat\|dog\).*\" reads them\. "
        r"Or put .* into a folder of its name, such as .*train/cat",
    ),
    "labels in the names of files in one folder": (
        [f"{name}_{number}.jpg" for name in ("cat", "dog") for number in range(4)],
        r"found: none.*names of the files \(cat, dog\)",
    ),
    "labels in a table": (
        ["train/1.jpg", "train/2.jpg", "train/_classes.csv", "valid/3.jpg"],
        r"labels seem to be in a table \(train/_classes\.csv\)\. "
        r"labels_from=\"train/_classes\.csv\" reads it",
    ),
    "labels in a table beside": (
        ["images/1.jpg", "images/2.jpg", "labels.csv"], r"in a table \(labels\.csv\)",
    ),
    "labels in a table of a spreadsheet": (
        ["images/1.jpg", "images/2.jpg", "LABELS.CSV"], r'labels_from="LABELS\.CSV" reads it',
    ),
    "masks beside pictures": (
        ["images/1.jpg", "images/2.jpg", "masks/1.png", "masks/2.png"],
        r"holds masks beside images, which look like annotations.*Move masks elsewhere, or give "
        r".*/images alone if the folders in it are classes.*If these are classes, name them after",
    ),
    "masks of other names than their pictures": (
        ["img/1.jpg", "mask/1_mask.gif"], "holds mask beside img",
    ),
    "segmentations as VOC has them": (
        ["VOC2012/JPEGImages/1.jpg", "VOC2012/SegmentationClass/1.png",
         "VOC2012/SegmentationObject/1.png", "VOC2012/Annotations/1.xml"],
        "holds VOC2012/SegmentationClass, VOC2012/SegmentationObject beside VOC2012/JPEGImages",
    ),
    "trimaps beside labels in names": (
        [f"{folder}/{name}_{number}.{ending}" for name in ("Birman", "pug") for number in range(4)
         for folder, ending in (("images", "jpg"), ("annotations/trimaps", "png"))],
        r"holds annotations beside images.*names of the files \(Birman, pug\): labels_from=",
    ),
    "masks of classes": (
        [f"{folder}/{name}/1.png" for folder in ("images", "masks") for name in ("cat", "dog")],
        "holds masks beside images.*/images alone if the folders in it are classes",
    ),
    "masks in each split": (
        [f"{split}/{folder}/1.png" for split in ("train", "val") for folder in ("image", "label")],
        "holds train/label beside train/image",
    ),
    "masks that are split": (
        [f"{folder}/{split}/1.png" for split in ("training", "validation")
         for folder in ("images", "annotations")],
        "holds annotations/training beside images/training",
    ),
    "masks below each class": (
        [f"{name}/{folder}/1.png" for name in ("Normal", "COVID") for folder in ("image", "mask")],
        "holds COVID/mask, Normal/mask beside .*/image",
    ),
    "masks below a class's own pictures": (
        ["cat/1.jpg", "cat/masks/1.png", "dog/1.jpg"],
        r"holds cat/masks beside pictures, which .* Move cat/masks elsewhere\. labels_from",
    ),
    "two kinds of annotations below the pictures": (
        [f"{f}{n}_{i}.png" for f in ("", "masks/", "gtFine/") for n in ("cat", "dog") for i in "1"]
        + ["cat_2.png", "dog_2.png"],
        r"holds gtFine, masks beside pictures.*names of the files \(cat, dog\)",
    ),
    "names that tell of nothing": (
        ["images/1.jpg", "Photos 2/2.jpg"],
        r"holds Photos 2, images, whose names tell of no class\. Put .*/Photos 2 alone if",
    ),
    "parts of labels in names": (
        [f"set{part}/{n}_{part}{i}.jpg" for n in ("cat", "dog") for part in "12" for i in "345"],
        r"holds set1, set2, whose names tell of no class.*names of the files \(cat, dog\)",
    ),
    "splits below some classes": (
        ["cat/train/1.jpg", "cat/test/2.jpg", "dog/1.jpg"],
        "look like splits .*cat/test.*, and pictures of dog in none of them",
    ),
    "a class without training pictures in its split": (
        ["cat/train/1.jpg", "cat/test/2.jpg", "dog/test/1.jpg"], "no training pictures of: dog",
    ),
}  # fmt: skip
