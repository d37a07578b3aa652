"""Why a figure has no interval, in a few words: over seeds, over documents, in a group."""

from calibtrain.runs.records import EvaluationRecord


def no_seed_interval(seeds: int) -> str:
    """Why a mean over so many seeds has no interval."""
    return "no interval: one seed" if seeds == 1 else "no interval over seeds was made"


def no_interval(evaluation: EvaluationRecord | None, key: str) -> str:
    """Why a figure of an evaluation has no interval over documents."""
    if evaluation is None:
        return "no interval: the evaluation's own file was not found"
    if "intervals" not in evaluation:
        return "no interval: the file is of a version that made none"
    if evaluation.documents < 2:
        return "no interval: one document"
    if not any((evaluation.intervals or {}).values()):
        return "no interval: one block of documents"
    if "ece_mass" in evaluation and not evaluation.interval("ece_mass"):
        return "no interval: in the midst of training only the main figures have one"
    return f"no interval is made for {key.replace('_', ' ')}"


def no_row_interval(tokens: float, whole: EvaluationRecord) -> str:
    """Why a figure of one group of a stratum has no interval."""
    if not tokens:
        return "no token is in this group"
    if whole.documents < 2 or not any((whole.intervals or {}).values()):
        return no_interval(whole, "")
    if not whole.interval("ece_mass"):
        return "no interval: in the midst of training groups have none"
    return "no interval: one document holds all of this group"
