"""Questions of one's own, from a file as it is: no class has to be written.

Layout: ``file`` is JSON, JSON lines, CSV, TSV, Parquet, a folder of them or of pictures, or ``hub:OWNER/NAME``
(``data_modules.reading.rows``); pictures are files below ``image_root``, in base64, or inside Parquet. Columns are
found by their usual names, or ``columns`` maps them: ``id``, ``image``, ``question``, ``hint``, ``choices`` (or columns
A, B, C, ...), ``answer``, ``answers``, ``subtask``, ``tolerance``. What was recognised is said when the file is read.
VLMEvalKit's tables are read as they are: ``image`` in base64, or another row's ``index`` whose picture it shares.

| rule | the right answer |
| --- | --- |
| ``yes_no_words``, ``pope_*`` | yes, no, true or false |
| ``entailment_words`` | yes, no or not sure |
| ``closed_set`` and the other rules for classes | one of ``classes``, which are otherwise all answers there are |
| ``choice_letter`` | one of the question's options, by letter, number or text |
| ``any_match``, ``vqa_accuracy`` | any of several; what more than three people said |
| ``relaxed_accuracy``, ``number_within`` | a number, with a tolerance |
| ``cider``, ``bleu`` | captions |

Every right answer has to be right under the rule: a class that the rule cannot read is refused, not scored with 0.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from typing_extensions import override

from data_modules.benchmark import BenchmarkDataModule, TemplateName
from data_modules.multiple_choice import INSTRUCTION, asked, option_texts
from data_modules.reading.columns import recognised, told
from data_modules.reading.files import Record, fake_image, write_image, write_text
from data_modules.reading.options import AnswerForm, option_columns
from data_modules.reading.picture_cells import PictureCells
from data_modules.reading.question_rows import CHOICE, QUESTION_ROLES, QuestionRows, column_names
from data_modules.reading.right_answers import CLASS_RULES, FEW_ANSWERS, NUMBER_RULES, SEVERAL_RULES
from data_modules.reading.rows import rows_of
from data_modules.reading.sources import READABLE, source_of
from lightning_m2pt.answering.prediction_line import answered_question
from lightning_m2pt.configuration.paths import HUB, FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.mistakes import made_of_each, refuse
from lightning_m2pt.inputs.samples import Question
from lightning_m2pt.metrics.needs import CAPTION_RULES
from lightning_m2pt.metrics.open_answers.captions import scorers
from lightning_m2pt.metrics.open_answers.tolerance import CHARTQA, tolerance_of
from lightning_m2pt.metrics.predictions import SET_NAME
from lightning_m2pt.metrics.rule import accepts
from lightning_m2pt.metrics.rules import RULES
from lightning_m2pt.metrics.score import named_rule, with_known_targets
from lightning_m2pt.system.console import say

OWN_RULES = (*FEW_ANSWERS, *CLASS_RULES, CHOICE, *SEVERAL_RULES, *NUMBER_RULES)
SHIPPED = frozenset({"vision_flan"}.union(*(rule.default_of for rule in RULES.values())))
"""Names of the sets that come with the project."""
KEY = "benchmarks.Questions"
LISTED = "Answer with one of these options."


class Questions(BenchmarkDataModule):
    """Questions of one's own, from a file of any form.

    Args:
        file: The file, a folder, or ``hub:OWNER/NAME``, which is looked for where it was fetched to.
        rule: Name of the scoring rule.
        template: Name of the conversation template.
        image_root: Folder of the pictures; None takes the file's own.
        columns: Which column is what, for those that are not found by their names.
        name: What the set is called in predictions, scores and reports; None takes the file's name.
        classes: The possible answers of a rule for classes; None takes all right answers there are.
        question: What is asked of every row; None asks each row's own question.
        instruction: What stands behind every question; None takes the options' own for multiple choice, and else
            nothing.
        options: How a question's options are shown: behind letters, as a list, or not at all. What ``--answer
            likelihood_sum`` and ``likelihood_mean`` compare are letters in the first case and texts in the others.
        answer_form: How the right option is written; None finds it.
        tolerance: How far a number may be from the right one where its row does not say: a share (``5%``) or a
            distance (``0.5``). None is ``5%`` for ``relaxed_accuracy``, and 0 for ``number_within``.
        revision: Branch, tag or commit of the hub's repository.
        split: Which of several splits in a folder is read.
        batch_size: Questions answered at once.
        max_new_tokens: Limit on an answer's tokens.
        limit: How many questions to take, spread evenly over the set; None takes all.

    Raises:
        BadInputError: If the rule is unknown or no rule for sets of one's own, the name is a shipped set's, or a
            setting does not go with the rule.
        EnvironmentFailure: If the rule needs a library that is not installed.
    """

    def __init__(
        self,
        file: FilePath,
        rule: str,
        template: TemplateName,
        image_root: FilePath | None = None,
        columns: dict[str, str] | None = None,
        name: str | None = None,
        classes: list[str] | None = None,
        question: str | None = None,
        instruction: str | None = None,
        options: Literal["lettered", "listed", "hidden"] = "lettered",
        answer_form: AnswerForm | None = None,
        tolerance: str | None = None,
        revision: str | None = None,
        split: str | None = None,
        batch_size: int = 32,
        max_new_tokens: int = 50,
        limit: int | None = None,
    ) -> None:
        place = Path(file.removeprefix(HUB))
        folder = image_root or (str(place) if place.is_dir() or file.startswith(HUB) else str(place.parent))
        super().__init__(folder, template, batch_size, max_new_tokens, limit)
        self.file = file
        self.rules = (checked_rule(rule),)
        self.rule = rule
        is_file = place.suffix.lower() in READABLE and not place.is_dir()
        self.name = checked_name(place.stem if is_file else place.name, name)
        self.image_root = image_root
        self.columns = columns
        self.given_classes = classes
        self.question = question
        self.instruction = instruction
        self.options = options
        self.answer_form: AnswerForm | None = answer_form
        self.tolerance = tolerance
        self.revision = revision
        self.split = split
        self.found_classes = classes
        for key, value, fitting in (
            ("classes", classes, CLASS_RULES),
            ("tolerance", tolerance, NUMBER_RULES),
            ("answer_form", answer_form, (CHOICE,)),
            ("options", None if options == "lettered" else options, (CHOICE,)),
        ):
            refuse_without_rule(key, value, fitting, rule)
        if tolerance is not None:
            tolerance_of(tolerance, f"{KEY}.tolerance")

    @staticmethod
    def write_fake(root: Path) -> None:
        """Writes six invented questions about three pictures, a third each with the answer yes, no and yes."""
        lines = ["image,question,answer,category"]
        lines += [
            f"pictures/{number % 3}.png,Is thing {number} there?,{('yes', 'no')[number % 2]},{'ab'[number // 3]}"
            for number in range(6)
        ]
        write_text(root / "questions.csv", "\n".join(lines) + "\n")
        for number in range(3):
            write_image(root / "pictures" / f"{number}.png", fake_image(number))

    @property
    @override
    def classes(self) -> list[str]:
        if self.rule in CLASS_RULES and self.found_classes is None:
            self.questions()
        return self.found_classes or []

    @property
    @override
    def candidates(self) -> list[str]:
        known = FEW_ANSWERS.get(self.rule, ())
        return [each.capitalize() for each in known] or super().candidates

    @override
    def candidates_of(self, question: Question) -> tuple[str, ...]:
        if self.options == "lettered" or not question.choices:
            return super().candidates_of(question)
        return option_texts(question, "options: lettered compares letters")

    def read(self) -> list[Question]:
        """Returns the file's questions, in its order.

        Raises:
            BadInputError: If the file or a row is wrong, or a right answer is not right under the rule.
            EnvironmentFailure: If a library for its form is missing.
        """
        source = source_of(str(self.file), self.revision, self.split, f"{KEY}.file")
        records: list[Record] = made_of_each(rows_of(source), lambda row: row)
        names = column_names(records)
        found = recognised(names, self.columns, str(source.path), QUESTION_ROLES, f"{KEY}.columns")
        letters = option_columns(names) if self.rule == CHOICE and "choices" not in found else []
        say(f"{self.name}: {told(found | dict(zip(letters, letters, strict=True)), names)}")
        self.check_roles(found, letters, str(source.path))
        rows = QuestionRows(
            records=records,
            found=found,
            option_columns=letters,
            cells=PictureCells(source, Path(self.image_root) if self.image_root is not None else source.folder),
            rule=self.rule,
            asked=self.asked_text,
            question=self.question,
            answer_form=self.answer_form,
            tolerance=self.tolerance or (CHARTQA if self.rule == "relaxed_accuracy" else "0"),
            classes=self.given_classes or [],
            key=KEY,
        )
        self.found_classes = rows.known_classes
        questions = made_of_each(range(len(records)), rows.question_of)
        refuse(self.unreadable_answers(questions))
        return questions

    def unreadable_answers(self, questions: Sequence[Question]) -> list[BadInputError]:
        """Returns the questions whose right answer the rule would not call right; none for captions and people."""
        rule = RULES[self.rule]
        rows = [answered_question(self.name, question, question.target) for question in questions]
        if not rows:
            return []
        answers = rule.needs({"classes": self.classes, "default_rule": self.rule}, rows)
        rule.summarise(rows, [None] * len(rows))  # refuses what it could not sum up
        if rule.gives_parts:
            return []
        known = with_known_targets(rows, answers)
        spaced = [{**row, "answer": row["target"].replace("_", " ")} for row in known]
        readings = zip(questions, known, rule.read(known, answers), rule.read(spaced, answers), strict=True)
        return [
            BadInputError(
                f"{self.rule} does not read the right answer {question.target!r:.60} as itself",
                where=question.source,
                expected="an answer that would be right",
                hint="another rule, or another name of the class",
            )
            for question, row, *read in readings
            if not any(accepts(one, row["target"]) for one in read)
        ]

    def check_roles(self, found: Mapping[str, str], letters: Sequence[str], where: str) -> None:
        """Looks whether there is a column for everything that the rule needs.

        Raises:
            BadInputError: If one is missing.
        """
        needed = ["image", *([] if self.question is not None else ["question"])]
        needed += ["choices"] if self.rule == CHOICE and not letters else []
        missing = [role for role in needed if role not in found]
        missing += ["answer"] if "answer" not in found and "answers" not in found else []
        if missing:
            role = missing[0]
            raise BadInputError(
                f"no column is recognised as {role}",
                where=where,
                expected=f"{', '.join(QUESTION_ROLES[role])[:120]}; or {KEY}.columns: {{{role}: COLUMN}}",
                hint="question: TEXT asks the same of every row" if role == "question" else "",
            )

    def asked_text(self, text: str, choices: Sequence[str]) -> str:
        """Returns what is put to the model, with options and instruction."""
        if choices and self.options == "lettered":
            return asked(text, choices, INSTRUCTION if self.instruction is None else self.instruction)
        listed = list(choices) if self.options == "listed" else []
        instruction = self.instruction if self.instruction is not None else LISTED if listed else ""
        return "\n".join(filter(None, [text.strip(), *listed, instruction]))


def checked_rule(name: str) -> str:
    """Returns a rule's name.

    Raises:
        BadInputError: If there is none of that name, or it is for one set's own questions.
        EnvironmentFailure: If it needs a library that is not installed.
    """
    try:
        named_rule(name)
    except BadInputError as error:
        raise BadInputError(
            error.what, where=f"{KEY}.rule", expected=" or ".join(OWN_RULES), hint=error.hint
        ) from error
    if name not in OWN_RULES:
        raise BadInputError(
            f"{name} needs MME's own questions",
            where=f"{KEY}.rule",
            expected=" or ".join(OWN_RULES),
            hint="data_modules.mme.MME reads MME",
        )
    if name in CAPTION_RULES:
        scorers()
    return name


def checked_name(of_file: str, name: str | None) -> str:
    """Returns the set's name.

    Raises:
        BadInputError: If files cannot be called after it, or a set that comes with the project has it.
    """
    wanted = of_file if name is None else name
    if not SET_NAME.fullmatch(wanted):
        raise BadInputError(
            f"the set's name would be {wanted!r:.60}",
            where=f"{KEY}.name",
            expected="letters, digits, hyphens and full stops, a letter or digit first",
        )
    if wanted in SHIPPED:
        raise BadInputError(
            f"{wanted} is a set that comes with the project",
            where=f"{KEY}.name",
            expected="another name: scores go by it, and published numbers stand beside that one",
        )
    return wanted


def refuse_without_rule(key: str, value: object, fitting: Sequence[str], rule: str) -> None:
    """Refuses a setting that the rule has no use for.

    Raises:
        BadInputError: If it is set beside another rule.
    """
    if value is not None and rule not in fitting:
        raise BadInputError(
            f"{rule} has no use for {key}", where=f"{KEY}.{key}", expected=f"a rule such as {', '.join(fitting)}"
        )
