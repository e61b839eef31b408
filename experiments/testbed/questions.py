"""The question types: what is asked, in which words, and at which stage a type may be used.

Every question of every training stage comes from ``QUESTION_TYPES``; evaluation questions have phrasings of their own
(``evaluation_questions.py``), and a test proves that the two never meet.
"""

from collections.abc import Sequence

from experiments.testbed import facts
from experiments.testbed.asking import TRUE_FALSE, Phrasing, QuestionType, Use
from experiments.testbed.facts import FactFunction


def _tuned(name: str, weight: float, draw: FactFunction, *texts: str) -> QuestionType:
    return QuestionType(name, Use.TUNED, weight, draw, tuple(Phrasing(text) for text in texts))


def _held_out(name: str, weight: float, draw: FactFunction, *texts: str) -> QuestionType:
    return QuestionType(name, Use.HELD_OUT, weight, draw, tuple(Phrasing(text) for text in texts))


STATEMENT_FORMS = (
    Phrasing("{statement} True or false?", TRUE_FALSE),
    Phrasing("True or false: {statement}", TRUE_FALSE),
    Phrasing("{statement} Is this true?"),
    Phrasing("{statement} Is this true? Please answer yes or no."),
    Phrasing("Statement: {statement} Is it true?"),
)
EVALUATION_NEAR_STATEMENT_FORM = Phrasing("{statement} Is this statement true? Please answer yes or no.")
"""The words in which VSR's captions are asked. Only statements of other types may be put so before evaluation."""


def _statements(
    name: str, use: Use, weight: float, draw: FactFunction, sentences: Sequence[str], forms: Sequence[Phrasing]
) -> QuestionType:
    phrasings = tuple(
        Phrasing(form.text.format(statement=sentence), form.truth_words) for form in forms for sentence in sentences
    )
    return QuestionType(name, use, weight, draw, phrasings)


TUNED_TYPES = (
    _tuned(
        "color",
        1.8,
        facts.colour,
        "What color is the {name}?",
        "What is the color of the {name}?",
        "Tell me the color of the {name}.",
        "Which color does the {name} have in this image?",
    ),
    _tuned(
        "size",
        0.8,
        facts.size,
        "What size is the {name}?",
        "Is the {name} small or large?",
        "What is the size of the {name} in the image?",
    ),
    _tuned(
        "position",
        1.5,
        facts.position,
        "Where is the {name}?",
        "What is the position of the {name}?",
        "Tell me the position of the {name}.",
        "Where is the {name} in this image?",
    ),
    _tuned(
        "object_at_position",
        1.2,
        facts.object_at_position,
        "What is at the {row} {column}?",
        "Which object is at the {row} {column}?",
        "Name the object at the {row} {column} of this image.",
    ),
    _tuned(
        "count",
        0.9,
        facts.count,
        "How many objects are there?",
        "What is the number of objects?",
        "How many objects are in this image?",
        "How many objects are shown in the image?",
    ),
    _tuned(
        "count_of_color",
        0.8,
        facts.count_of_colour,
        "How many {colour} objects are there?",
        "What is the number of {colour} objects in this image?",
    ),
    _statements(
        "position_statement",
        Use.TUNED,
        1.8,
        facts.position_check,
        ("The {name} is at the {row} {column}.", "The {name} is at the {row} {column} of this image."),
        (*STATEMENT_FORMS, EVALUATION_NEAR_STATEMENT_FORM),
    ),
    _tuned(
        "presence_of_color",
        0.9,
        facts.presence_of_colour,
        "Is there a {colour} object?",
        "Is there a {colour} object in the image?",
        "Is there a {colour} object in this image? Please answer yes or no.",
        "Does the image contain any {colour} object?",
    ),
    _tuned(
        "cell_occupied",
        0.8,
        facts.cell_occupied,
        "Is there an object at the {row} {column}?",
        "Is there an object at the {row} {column} of this image? Please answer yes or no.",
        "Is there anything at the {row} {column} in the image?",
    ),
    _tuned(
        "higher_or_lower",
        2.5,
        facts.higher_or_lower,
        "Which is {direction}, the {first} or the {second}?",
        "What object is {direction}, the {first} or the {second}?",
    ),
    _tuned(
        "list_objects",
        0.5,
        facts.list_names,
        "List the objects.",
        "Name all objects in this image.",
    ),
    _tuned(
        "list_colors",
        0.4,
        facts.list_colours,
        "List the colors.",
        "List the colors of all objects in this image.",
    ),
    _tuned(
        "object_of_color",
        1.0,
        facts.object_of_colour,
        "Which object is {colour}?",
        "What is the {colour} object?",
        "Name the {colour} object in the image.",
    ),
    _tuned(
        "describe",
        1.2,
        facts.description,
        "Describe the image.",
        "Describe this image.",
        "Tell me what you can see in the image.",
    ),
    _tuned(
        "leftmost_or_rightmost",
        1.0,
        facts.leftmost_or_rightmost,
        "What is the {direction} object?",
        "Which object is the {direction} in this image?",
    ),
    _tuned(
        "same_color",
        1.0,
        facts.same_colour,
        "Do the {first} and the {second} have the same color?",
        "Are the {first} and the {second} in this image the same color? Please answer yes or no.",
    ),
    _tuned(
        "color_at_position",
        0.8,
        facts.colour_at_position,
        "What color is the object at the {row} {column}?",
        "What is the color at the {row} {column} of this image?",
    ),
    _tuned(
        "size_at_position",
        0.6,
        facts.size_at_position,
        "What size is the object at the {row} {column}?",
        "Is the object at the {row} {column} small or large?",
    ),
)

HELD_OUT_TYPES = (
    _held_out(
        "presence",
        3.0,
        facts.presence,
        "Is there {article} {name}?",
        "Is there {article} {name} here?",
        "Is there {article} {name} in this picture?",
        "Is there {article} {name} in the picture? Please answer yes or no.",
        "Is there {article} {name} here? Please answer yes or no.",
        "Can you see {article} {name}?",
        "Does the image contain {article} {name}?",
        "Is {article} {name} shown in this image?",
    ),
    _held_out(
        "number",
        1.5,
        facts.number_check,
        "Are there {number} objects?",
        "Are there {number} objects here?",
        "Are there {number} objects in the picture?",
        "Are there {number} objects in this picture? Please answer yes or no.",
        "Is the number of objects {number}?",
        "Does the image contain {number} objects?",
    ),
    _held_out(
        "position_check",
        1.8,
        facts.position_check,
        "Is the {name} at the {row} {column}?",
        "Is the {name} at the {row} {column}? Please answer yes or no.",
        "Is the {name} at the {row} {column} of this picture?",
        "Is the {name} at the {row} {column} of the picture? Please answer yes or no.",
        "Can you see the {name} at the {row} {column}?",
    ),
    _held_out(
        "color_check",
        1.8,
        facts.colour_check,
        "Is the {name} {colour}?",
        "Is the {name} {colour}? Please answer yes or no.",
        "Is the {name} in this picture {colour}?",
        "Is the {name} in the picture {colour}? Please answer yes or no.",
        "Does the {name} have the color {colour}?",
    ),
    _statements(
        "relation",
        Use.HELD_OUT,
        10.0,
        facts.relation_check,
        ("The {first} is {relation} the {second}.",),
        STATEMENT_FORMS,
    ),
    _held_out(
        "main_object",
        1.0,
        facts.main_object,
        "What is the main object?",
        "What is the main object here?",
        "What is the main object in this picture?",
        "Name the main object.",
        "What main object can you see?",
    ),
    _held_out(
        "digit",
        1.0,
        facts.only_digit,
        "Which digit is shown?",
        "Which digit is shown here?",
        "Which digit is shown in this picture?",
        "What digit is in the picture?",
        "Name the digit.",
    ),
    _held_out(
        "colored_object",
        1.5,
        facts.coloured_object,
        "What is the main object with its color?",
        "What is the main object here with its color?",
        "What is the main object in this picture with its color?",
        "Name the main object with its color.",
    ),
    _held_out(
        "written_digits",
        1.8,
        facts.written_digits,
        "What number is written?",
        "What number is written here?",
        "What number is written in this picture?",
        "Which digits can you read?",
        "Read the number.",
    ),
    _held_out(
        "hypothesis",
        3.5,
        facts.colour_hypothesis,
        'Can you conclude "The {name} is {colour}."?',
        'Can you conclude "The {name} is {colour}." from this picture?',
        'Can you conclude "The {name} is {colour}." here? Please answer yes, no or not sure.',
        "Does it follow that the {name} is {colour}? Please answer yes, no or not sure.",
        "Is it yes, no or not sure that the {name} is {colour}?",
    ),
)

TEXT_ONLY_TYPES = (
    _statements(
        "color_statement",
        Use.TEXT_ONLY,
        0.7,
        facts.colour_check,
        ("The {name} is {colour}.",),
        STATEMENT_FORMS,
    ),
    _statements(
        "presence_statement",
        Use.TEXT_ONLY,
        0.6,
        facts.presence,
        ("There is {article} {name} in the image.",),
        STATEMENT_FORMS,
    ),
    _statements(
        "number_statement",
        Use.TEXT_ONLY,
        0.4,
        facts.number_check,
        ("There are {number} objects.",),
        STATEMENT_FORMS,
    ),
    QuestionType(
        "relation_check",
        Use.TEXT_ONLY,
        4.0,
        facts.relation_check,
        (
            Phrasing("Is the {first} {relation} the {second}?"),
            Phrasing("Is the {first} {relation} the {second}? Please answer yes or no."),
        ),
    ),
    QuestionType(
        "relation_choice",
        Use.TEXT_ONLY,
        0.0,
        facts.relation_choice,
        (Phrasing("Is the {first} {choice} the {second}?"),),
    ),
)

QUESTION_TYPES = TUNED_TYPES + HELD_OUT_TYPES + TEXT_ONLY_TYPES
DESCRIBE_TYPE = next(question_type for question_type in TUNED_TYPES if question_type.name == "describe")
"""The only type asked with an image before stage 2."""


def question_type_named(name: str) -> QuestionType:
    """Returns the question type of that name."""
    return next(question_type for question_type in QUESTION_TYPES if question_type.name == name)
