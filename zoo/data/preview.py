"""A look at the pictures before anything is trained on them."""

from pathlib import Path

from matplotlib.figure import Figure


def preview(data, per_class: int, most_classes: int) -> Figure:
    """A row a class with its first training pictures, prepared as the network gets them."""
    from zoo.data.memory import Arrays
    from zoo.data.reading import read_files, resized

    table = data.manifest.usable
    table = table[table.split == "train"]
    names = data.class_names[:most_classes]
    size = data.image_size or (160, 160)
    geometry = data.configured(image_size=size).geometry
    figure = Figure(figsize=(1.5 * per_class + 0.5, 1.65 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), per_class, squeeze=False)
    for row, name in zip(axes, names, strict=True):
        paths = table.path[table.label == name].head(per_class).tolist()
        if isinstance(data.source, Arrays):
            pixels = resized(data.source.images[[int(path) for path in paths]], geometry)
        else:
            pixels, _ = read_files([Path(data.source.absolute(path)) for path in paths], geometry)
        for axis in row:
            axis.axis("off")
        for axis, image in zip(row, pixels, strict=False):
            axis.imshow(image, cmap="grey" if image.shape[-1] == 1 else None, vmin=0, vmax=255)
        row[0].set_title(f"{name} ({data.train.counts[name]} in training)", loc="left", fontsize=9)
    return figure
