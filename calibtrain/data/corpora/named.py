"""A corpus that a command names by options instead of a configuration.

In a command without a configuration, a message names the option `--field` and not `corpus.field`.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from calibtrain.config import CorpusConfig, validate
from calibtrain.errors import SettingError, UserError

WITH_FIELDS = ("files", "tfds")
"""Kinds of corpora whose documents have fields."""
OPTIONS = {"corpus.field": "--field", "corpus.group": "--group, which takes '' for none"}


@dataclasses.dataclass(frozen=True)
class Columns:
    """The fields of a corpus that are read.

    Attributes:
        field: field of the text; None keeps that of the settings.
        group: field of a document's group; None keeps that of the settings, "" means no groups.
    """

    field: str | None = None
    group: str | None = None


def parse_corpus(spec: str, like: CorpusConfig, columns: Columns | None = None) -> CorpusConfig:
    """Returns the settings of a corpus that a command line names, the others as in `like`.

    Args:
        spec: kjv, pydoc, stdlib, markov, files:GLOB or tfds:NAME[/CONFIG].
        like: settings for everything that the command does not say.
        columns: the fields that are read.

    Raises:
        UserError: for a name that is not a corpus, and for fields of a corpus without fields.
    """
    columns = columns or Columns()
    tree = like.model_dump(mode="json") | {
        "name": spec,
        "paths": like.paths if spec == like.name else (),
    }
    if spec.partition(":")[0] in WITH_FIELDS:
        tree |= _given(columns)
    else:
        for option, value in (("--field", columns.field), ("--group", columns.group)):
            if value:
                raise UserError(
                    f"{option}: {value!r} is not allowed with --corpus {spec}, whose documents "
                    "have no fields; allowed with files:GLOB and tfds:NAME"
                )
    return validate(CorpusConfig, tree, "--corpus")


def own_corpus(own: CorpusConfig, columns: Columns | None = None) -> CorpusConfig:
    """Returns a run's own corpus, optionally with groups by another field.

    Raises:
        UserError: for another text field, and for groups of a corpus without fields.
    """
    columns = columns or Columns()
    if columns.field:
        raise UserError(
            f"--field: {columns.field!r} goes with a --corpus; the run's own text is read by its "
            f"corpus.field ({own.field})"
        )
    if columns.group and own.name.partition(":")[0] not in WITH_FIELDS:
        raise UserError(
            f"--group: {columns.group!r} is not allowed with {own.name}, whose documents have no "
            "fields; allowed with files:GLOB and tfds:NAME"
        )
    return validate(CorpusConfig, own.model_dump(mode="json") | _given(columns), "--group")


def columns_of(
    corpora: Sequence[str], fields: Sequence[str] = (), groups: Sequence[str] = ()
) -> dict[str | None, Columns]:
    """Returns the fields that are read of each of several corpora.

    Args:
        corpora: corpora as a command names them; an empty sequence means the run's own.
        fields: one text field for every corpus that has fields, or one per corpus, in order, with
            '' for the default.
        groups: group fields, given in the same way.

    Raises:
        UserError: for another number of fields, or a field where no corpus has fields.
    """
    names: list[str | None] = list(corpora) or [None]
    found: dict[str | None, dict[str, str]] = {name: {} for name in names}
    for option, values in (("field", fields), ("group", groups)):
        if len(values) == 1 and len(names) > 1:
            able = [name for name in names if name and name.partition(":")[0] in WITH_FIELDS]
            if not able:
                raise UserError(
                    f"--{option}: {values[0]!r} is not allowed with {', '.join(corpora)}, whose "
                    "documents have no fields; allowed with files:GLOB and tfds:NAME"
                )
            pairs: list[tuple[str | None, str]] = [(name, values[0]) for name in able]
        elif values and len(values) != len(names):
            raise UserError(
                f"--{option}: {len(values)} are given and {len(names)} --corpus; give one for all, "
                "or one for each, in their order"
            )
        else:
            pairs = list(zip(names, values, strict=False))
        for name, value in pairs:
            if value or option == "group":
                found[name][option] = value
    return {name: Columns(**each) for name, each in found.items()}


@contextmanager
def settings_are_options() -> Iterator[None]:
    """Makes messages name the options of a command in place of a configuration's keys."""
    try:
        yield
    except SettingError as error:
        option = OPTIONS.get(error.setting, error.setting)
        raise UserError(error.said_of(option)) from None


def _given(columns: Columns) -> dict[str, str | None]:
    """Returns the settings that were given."""
    found: dict[str, str | None] = {}
    if columns.field:
        found["field"] = columns.field
    if columns.group is not None:
        found["group"] = columns.group or None
    return found
