"""How many pictures and questions each set of the testbed has."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TestbedSizes:
    """Sizes of the rendered sets.

    Attributes:
        training_images: Pictures of the tuning set.
        validation_images: Pictures of its validation part.
        questions_per_image: Records of one picture, in both parts.
        mme_images_per_subtask: Pictures of each MME subtask, with two questions each.
        vsr_statements: Statements of VSR, each about a picture of its own.
        pope_images: Pictures of POPE.
        classification_images: Pictures of CIFAR-10, of CIFAR-100 and of MNIST.
        hypotheses: Hypotheses of SNLI-VE, each about a picture of its own.
        number_questions: Questions of Text-VQA, each about a picture of its own.
        examples: Questions of the training split of every set that has one.
    """

    __test__ = False

    training_images: int = 6000
    validation_images: int = 400
    questions_per_image: int = 4
    mme_images_per_subtask: int = 130
    vsr_statements: int = 1000
    pope_images: int = 100
    classification_images: int = 1000
    hypotheses: int = 1000
    number_questions: int = 1000
    examples: int = 64
