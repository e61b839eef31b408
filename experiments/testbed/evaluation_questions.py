"""The words evaluation asks in. No training stage, text-only pretraining included, ever contains one of them."""

EXISTENCE = "Is there {article} {name} in this image? Please answer yes or no."
NUMBER = "Are there {number} objects in this image? Please answer yes or no."
COLOUR = "Is the {name} in this image {colour}? Please answer yes or no."
POSITION = "Is the {name} at the {row} {column} of this image? Please answer yes or no."
"""MME's form: the official suffix behind each question."""

RELATION = "The {first} is {relation} the {second}."
RELATION_QUESTION = RELATION + " Is this statement true? Please answer yes or no."
"""VSR stores captions; its data module asks them in the second form."""

PRESENCE = "Is there {article} {name} in the image?"
"""POPE's form."""

MAIN_OBJECT = "What is the main object in this image?"
SHOWN_DIGIT = "Which digit is shown in this image?"
"""How the CIFAR-10 and MNIST data modules ask."""

COLOURED_OBJECT = "What is the main object in this image with its color?"
"""How the testbed asks CIFAR-100, whose fine classes are shapes and digits of one colour each."""
WRITTEN_NUMBER = "What number is written in this image?"
"""Text-VQA's questions on the testbed."""
HYPOTHESIS = "The {name} is {colour}."
HYPOTHESIS_QUESTION = (
    f'Can you conclude "{HYPOTHESIS}" from the content of the image? Please answer yes, no or not sure.'
)
"""SNLI-VE stores hypotheses; its data module asks them in the second form."""

EVALUATION_PHRASINGS = (
    EXISTENCE,
    NUMBER,
    COLOUR,
    POSITION,
    RELATION_QUESTION,
    PRESENCE,
    MAIN_OBJECT,
    SHOWN_DIGIT,
    COLOURED_OBJECT,
    WRITTEN_NUMBER,
    HYPOTHESIS_QUESTION,
)
