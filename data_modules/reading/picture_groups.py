"""Which records have to stay together, so that no picture is in two parts of a set."""

from collections.abc import Sequence

from lightning_m2pt.inputs.samples import Sample


def group_names(samples: Sequence[Sample]) -> list[str]:
    """Returns the name of every sample's group: samples that share a picture, directly or through others, are one.

    A group has the name of the first of its pictures in the alphabet, whatever the order of the samples; a sample
    without a picture is a group of its own and has its id.
    """
    parents: dict[str, str] = {}
    for sample in samples:
        pictures = pictures_of(sample)
        if len(pictures) > 1:
            roots = {root_of(picture, parents) for picture in pictures}
            first = min(roots)
            parents.update(dict.fromkeys(roots, first))
    return [root_of(pictures_of(sample)[0], parents) if sample.image_id else sample.id for sample in samples]


def pictures_of(sample: Sample) -> list[str]:
    """Returns the names of a sample's pictures."""
    return [sample.image_id] if len(sample.images) == 1 else sample.image_id.split("\n")


def root_of(picture: str, parents: dict[str, str]) -> str:
    """Returns the name of the group of a picture, and shortens the way to it.

    Args:
        picture: The picture's name.
        parents: For every name that is not its group's another one of the group, which is changed.
    """
    root = picture
    while (parent := parents.get(root, root)) != root:
        root = parent
    while (parent := parents.get(picture, picture)) != root and parent != picture:
        parents[picture] = root
        picture = parent
    return root
