"""What a picture of the world shows, as the whole sentences that a language model of the real world would write.

Alignment learns from captions alone: no question is ever asked, and what tuning adds is seen beside the untouched pair.
"""

from experiments.testbed.scenes import Scene, SceneObject
from experiments.testbed.vocabulary import article

INSTRUCTIONS = ("Describe the image.", "Describe what you see.", "Write a caption for the picture.")
"""How a caption is asked for; no question."""


def caption(scene: Scene) -> str:
    """Returns the scene's one caption, its objects in reading order.

    "The image shows a small green zero at the middle right and a large yellow circle at the bottom right."
    """
    *first, last = [described(thing) for thing in scene.objects]
    listed = f"{', '.join(first)} and {last}" if first else last
    return f"The image shows {listed}."


def described(thing: SceneObject) -> str:
    """Returns an object's part of a caption, "a small green zero at the middle right"."""
    return f"{article(thing.size)} {thing.size} {thing.colour} {thing.name} at the {thing.row} {thing.column}"
