"""A person is asked whether a generation that passed may go on, and answers in Prefect's pages or at a terminal.

The question and the answer are tags on the generation's run, so a run that is killed while it waits loses neither, and
none has to run meanwhile. Where Prefect records runs, one of the `approval` deployment puts the question on its pages.
"""

from datetime import datetime

from flows import deciding
from flows.failpoints import failpoint
from flywheel import trial
from flywheel.integrations import mlflow_tracking, prefect_runs
from flywheel.records import Generation
from flywheel.trial import Answer
from flywheel.windows import format_duration
from flywheel.workspace import Workspace

NOBODY = "nobody"


def heard(ws: Workspace, made: Generation, as_of: datetime) -> tuple[Answer | None, str]:
    """What a person said to a generation that waits, asking where nobody did; and, while nobody has, how to.

    Nothing at all where no person is to be asked. Whoever says nothing in time refuses.
    """
    policy, told = ws.config.gate, trial.read(made.tags)
    if told.answer is not None or policy.approval == "none":
        return told.answer, ""
    store, asked = deciding.open_store(ws), told.asked or as_of
    if told.asked is None:
        mlflow_tracking.say(store, made, trial.ASKED, asked.isoformat())
        failpoint("ask:after")
    if as_of - asked >= policy.approval_timeout:
        why = f"nobody answered within {format_duration(policy.approval_timeout)}"
        answer = Answer(False, NOBODY, as_of, why)
        record(ws, made, answer)
        return answer, ""
    prefect_runs.begin(*question(ws, made.generation))
    return None, trial.how_to(made.generation, asked + policy.approval_timeout)


def question(ws: Workspace, number: int) -> tuple[str, dict[str, object]]:
    """The deployment that puts a question on Prefect's pages, and what it is told."""
    return f"approval/{ws.config.product.name}", {"workspace": str(ws.root), "generation": number}


def record(ws: Workspace, made: Generation, answer: Answer) -> None:
    """Take an answer down; what is taken back from Prefect's pages is only the question."""
    mlflow_tracking.say(deciding.open_store(ws), made, trial.ANSWER, trial.written(answer))
    failpoint("answer:after")
    prefect_runs.withdraw(
        *question(ws, made.generation), f"{'approved' if answer.approve else 'refused'} by {answer.who}"
    )
