"""Figures of notebook 06: where in the picture a class was found."""

import textwrap

import matplotlib as mpl
import numpy as np

from utils.plots.style import (
    NORMAL,
    SMALL,
    TileSheet,
    channels_last,
    characters,
    message_figure,
    percent,
    plain,
    shorten,
    shorten_to_width,
    styled,
)

COLOUR_MAP = "inferno"  # perceptually uniform: it draws no edge where the map has none
LUMA = (0.2126, 0.7152, 0.0722)  # of red, green and blue (ITU-R BT.709), as browsers turn grey
NO_PICTURE = "There are no pictures to explain."


def overlay(image, class_map, map_weight=0.4):
    """Return a picture, turned grey, blended with its class activation map.

    Grey, so that every colour in it is the map's: a red car under a red patch of the map would
    look like more of the map.

    Args:
        image: uint8 3×H×W.
        class_map: float H×W in 0..1.
        map_weight: 0..1, the map's share; the grey picture has the rest.

    Returns:
        uint8 H×W×3.

    Raises:
        ValueError: picture and map differ in size, or the weight is outside 0..1.
    """
    grey = channels_last(image) @ np.array(LUMA)
    class_map = np.asarray(class_map)
    if grey.shape != class_map.shape:
        raise ValueError(
            f"the map has {class_map.shape} points, the picture {grey.shape}: "
            "resize the map to the picture first"
        )
    if not 0 <= map_weight <= 1:
        raise ValueError(f"map_weight is {map_weight}; it must lie between 0 and 1")
    colours = mpl.colormaps[COLOUR_MAP](class_map, bytes=True)[..., :3]
    return np.rint((1 - map_weight) * grey[..., None] + map_weight * colours).astype(np.uint8)


def add_colour_bar(sheet, map_weight):
    """Draw the key to the overlays, right of the sheet and at most three inches tall.

    Its colours are those of a map over mid-grey, as they come out in an overlay.
    """
    colours = overlay(np.full((3, 1, 256), 128, np.uint8), np.linspace(0, 1, 256)[None], map_weight)
    key = mpl.colors.ListedColormap(colours[0] / 255)
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), key)
    shrink = min(1.0, 3.0 / sheet.figure.get_figheight())
    bar = sheet.figure.colorbar(
        scale, ax=sheet.axes, shrink=shrink, anchor=(0, 1), aspect=18, pad=0.02, ticks=[0, 0.5, 1]
    )
    bar.ax.tick_params(labelsize=SMALL)
    bar.set_label("share of each map's own maximum, over mid-grey", size=NORMAL)


def blend_note(map_weight):
    return (
        f"Overlay: {percent(1 - map_weight)} picture, in grey, {percent(map_weight)} map. One that "
        "is grey all over has a blank map."
    )


@styled
def misclassified_maps(
    images,
    maps_predicted,
    maps_true,
    actual,
    predicted,
    confidences,
    classes,
    dataset_title,
    map_weight=0.4,
    columns=2,
    title="Misclassified pictures and their class maps",
):
    """Draw misclassified pictures beside their maps for the predicted and the true class.

    Args:
        images: uint8 N×3×H×W.
        maps_predicted, maps_true: float32 N×H×W in 0..1.
        actual, predicted: int N, indices into `classes`.
        confidences: float N in 0..1, probability of the predicted class.
        classes: names of all classes.
        dataset_title: how figures name the data.
        map_weight: 0..1, the map's share in an overlay.
        columns: pictures per row, each with its two overlays.
        title: of the figure.
    """
    if not len(images):
        return message_figure(title, dataset_title, "No picture was misclassified.")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    note = (
        "Each picture as it is, with the map for the predicted class (and how sure the network "
        f"was), and with the map for the actual class. {blend_note(map_weight)}"
    )
    sheet = TileSheet(
        rows,
        3 * columns,
        title,
        dataset_title,
        note=note,
        caption=0.42,
        breaks=tuple(range(3, 3 * columns, 3)),
        side=0.8,
    )
    for index, image in enumerate(images):
        row, group = divmod(index, columns)
        sure = f", {percent(confidences[index])}"
        true = shorten_to_width(classes[actual[index]], sheet.tile, among=classes)
        taken = shorten_to_width(classes[predicted[index]], sheet.tile, after=sure, among=classes)
        tiles = (
            (channels_last(image), f"picture\n{true}"),
            (overlay(image, maps_predicted[index], map_weight), f"predicted\n{taken}"),
            (overlay(image, maps_true[index], map_weight), f"actual\n{true}"),
        )
        for place, (picture, words) in enumerate(tiles):
            sheet.picture(row, 3 * group + place, picture)
            sheet.write_caption(row, 3 * group + place, words)
    add_colour_bar(sheet, map_weight)
    return sheet.figure


@styled
def methods_by_block(image, maps, methods, blocks, dataset_title, label, map_weight=0.4):
    """Draw one picture under every method and block.

    Args:
        image: uint8 3×H×W.
        maps: float32 M×B×H×W in 0..1, by method and block.
        methods: M names.
        blocks: B names.
        dataset_title: how figures name the data.
        label: what the picture is, such as "cat, predicted dog (93 %)".
        map_weight: 0..1, the map's share in an overlay.
    """
    title = f"Maps by method and block: {label}"
    if not len(methods) or not len(blocks):
        return message_figure(title, dataset_title, "There are no maps to show.")
    return map_table([image], maps, methods, blocks, title, dataset_title, map_weight)


@styled
def blocks_by_picture(
    images,
    maps,
    blocks,
    labels,
    dataset_title,
    map_weight=0.4,
    title="Class maps from block to block",
):
    """Draw each picture and its maps from one block to the next.

    Args:
        images: uint8 N×3×H×W.
        maps: float32 N×B×H×W in 0..1.
        blocks: B names, in forward order.
        labels: N strings, what each picture is and was taken for.
        dataset_title: how figures name the data.
        map_weight: 0..1, the map's share in an overlay.
        title: of the figure.
    """
    if not len(images):
        return message_figure(title, dataset_title, NO_PICTURE)
    return map_table(images, maps, labels, blocks, title, dataset_title, map_weight)


def map_table(images, maps, row_names, blocks, title, dataset_title, map_weight):
    """Draw a row per name: the raw picture, then an overlay per block.

    Where there are fewer pictures than rows, the last of them is under the others' maps as well.
    """
    sheet = TileSheet(
        len(row_names),
        1 + len(blocks),
        title,
        dataset_title,
        note=blend_note(map_weight),
        label=1.5,
        header=0.3,
        breaks=(1,),
        side=0.8,
    )
    sheet.name_column(0, "picture")
    for column, block in enumerate(blocks, start=1):
        sheet.name_column(column, shorten(block, characters(sheet.tile, NORMAL)))
    for row, name in enumerate(row_names):
        lines = textwrap.wrap(plain(name), characters(1.4, NORMAL))[:4]
        sheet.name_row(row, "\n".join(lines))
        image = images[min(row, len(images) - 1)]
        if row < len(images):
            sheet.picture(row, 0, channels_last(image))
        for column, class_map in enumerate(maps[row], start=1):
            sheet.picture(row, column, overlay(image, class_map, map_weight))
    add_colour_bar(sheet, map_weight)
    return sheet.figure
