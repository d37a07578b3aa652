"""Text data sets of TFDS, by name, as sources of documents.

TFDS prepares a data set as `array_record`, which is read without TensorFlow; only some data sets
need TensorFlow while they are prepared.
"""

import contextlib
import difflib
import glob
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from calibtrain.config import CorpusConfig
from calibtrain.data.corpora.documents import Document, Source
from calibtrain.errors import SettingError, UserError
from calibtrain.process.phases import Phase
from calibtrain.storage.prepared import SEAL, remove_damaged, seal_folder

_OWN_SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
# TFDS registers its older data sets topic by topic and stops at the first missing package, most
# often before it reaches text.
_TOPICS = ("question_answering", "summarization", "text", "text_simplification", "translate")


def named_data_set(name: str, config: CorpusConfig, cache: Path) -> Source:
    """Returns the data set `NAME[/CONFIG][:VERSION]` of TFDS; its first reading prepares it.

    Documents keep the train, validation and test splits of their publisher. A missing split is
    taken out of train; splits of other names are left out. A data set without train is split as a
    whole.

    Raises:
        UserError: for an unknown name, or a feature that is missing or not text; on reading, where
            TFDS cannot prepare the data set.
    """
    field = config.field
    with _explained(name):
        builder = _find(name, cache)
        _check_text(builder, name, field)
        group_of = _grouping(builder, name, config.group)
        version = builder.info.full_name

    def read() -> Iterator[tuple[str | None, Document]]:
        with _explained(name):
            splits = _prepared(name, builder, cache)
        names = {split: _OWN_SPLITS.get(split) for split in splits}
        if "train" in splits:
            splits = {split: rows for split, rows in splits.items() if names[split]}
        else:
            names = dict.fromkeys(splits)
        phase = Phase("reading the data set", sum(map(len, splits.values())), "documents")
        for split, rows in splits.items():
            own = None if names[split] == "train" else names[split]
            for number in range(len(rows)):
                with _explained(name):
                    row = rows[number]
                try:
                    text, group = row[field].decode("utf-8"), group_of(row)
                except (AttributeError, TypeError):  # the record is missing
                    raise UserError(
                        f"tfds:{name}: {split} document {number}: cannot be read; delete "
                        f"{builder.data_dir}, and run this again"
                    ) from None
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"tfds:{name}: {split} document {number}: not valid UTF-8 at byte "
                        f"{error.start}"
                    ) from None
                yield own, Document(f"{split} {number}", text, group)
                phase.add(1)

    return Source(
        description=f"The TFDS data set {version}, feature {field}.",
        version=version,
        fingerprint=f"{version} {field} {config.group}",
        read=read,
    )


def _find(name: str, cache: Path) -> Any:
    """Returns TFDS's builder, on its own data folder if the data is ready there, else on ours."""
    import tensorflow_datasets as tfds

    def build(**options: Any) -> Any:
        try:
            return tfds.builder(name, **options)
        except tfds.core.registered.DatasetNotFoundError:
            for topic in _TOPICS:
                with contextlib.suppress(ImportError):
                    importlib.import_module(f"tensorflow_datasets.{topic}")
        return tfds.builder(name, **options)

    try:
        builder = build()
        ready = builder.is_prepared() and builder.info.file_format.value == "array_record"
        if ready:
            return builder
        own = cache / "tensorflow_datasets"
        for seal in list(own.glob(f"{glob.escape(builder.name)}/**/{SEAL}")):
            remove_damaged(
                seal.parent, lambda file: file.endswith(".json")
            )  # the rest is checked when read
        return build(data_dir=str(own))
    except tfds.core.registered.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(name.partition("/")[0], known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "see the catalogue of TFDS"
        raise UserError(f"tfds:{name}: TFDS knows no such data set; {hint}") from None


def _check_text(builder: Any, name: str, field: str) -> None:
    import tensorflow_datasets as tfds

    found = builder.info.features
    features = dict(found) if isinstance(found, tfds.features.FeaturesDict) else {}
    if not isinstance(features.get(field), tfds.features.Text):
        texts = [key for key, kind in features.items() if isinstance(kind, tfds.features.Text)]
        problem = f"feature {field!r} is not text" if field in features else f"no feature {field!r}"
        raise SettingError(
            f"tfds:{name}: {problem}; features: {', '.join(features) or 'none'}; allowed for ",
            "corpus.field",
            f": {', '.join(texts) or 'none'}",
        )


def _grouping(builder: Any, name: str, group: str | None) -> Callable[[Any], str]:
    """Returns a function that gives the group of a row: a text, a class name, or a number."""
    import tensorflow_datasets as tfds

    if group is None:
        return lambda row: ""
    features = dict(builder.info.features)
    kinds = (tfds.features.Text, tfds.features.ClassLabel, tfds.features.Scalar)
    if not isinstance(features.get(group), kinds):
        allowed = [key for key, kind in features.items() if isinstance(kind, kinds)]
        raise SettingError(
            f"tfds:{name}: no feature {group!r} to group by; allowed for ",
            "corpus.group",
            f": {', '.join(allowed) or 'none'}",
        )
    feature = features[group]
    if isinstance(feature, tfds.features.ClassLabel):
        return lambda row: feature.int2str(int(row[group]))
    if isinstance(feature, tfds.features.Text):
        return lambda row: row[group].decode("utf-8")
    return lambda row: str(row[group])


def _prepared(name: str, builder: Any, cache: Path) -> dict[str, Any]:
    """Returns the data of each split; data prepared here is sealed, and made again if damaged."""
    if remove_damaged(Path(builder.data_dir)):
        builder = _find(name, cache)
    if not builder.is_prepared():
        builder.download_and_prepare(
            file_format="array_record",
            download_dir=str(cache / "downloads"),
        )
        seal_folder(Path(builder.data_dir))
    splits = [name for name, info in builder.info.splits.items() if info.num_examples]
    return {name: builder.as_data_source(split=name) for name in splits}


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Sends what TFDS prints to standard error, and turns what it raises into one line."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except UserError:
        raise
    except Exception as error:
        from calibtrain.data.corpora.builder import disk_error

        refused = disk_error(error)
        if refused:
            raise refused from None
        package = _missing_package(error)
        if package and package.startswith("tensorflow"):
            raise UserError(
                f"tfds:{name}: preparing this data set needs TensorFlow; "
                'pip install "calibtrain[tensorflow]", and run this again'
            ) from error
        if package:
            raise UserError(
                f"tfds:{name}: preparing this data set needs the package {package}; install it "
                "with pip, and run this again"
            ) from error
        first = (str(error).strip() or "no reason given").splitlines()[0]
        raise UserError(
            f"tfds:{name}: TFDS cannot provide it: {type(error).__name__}: {first}"
        ) from error


def _missing_package(error: BaseException | None) -> str | None:
    """Returns the package whose absence caused an error, TensorFlow before any other, or None."""
    missing = []
    while error is not None:
        if isinstance(error, ImportError):
            missing.append((error.name or "").partition(".")[0])
        error = error.__cause__ or error.__context__
    missing = [package for package in missing if package and package != "tensorflow_datasets"]
    return next((p for p in missing if p.startswith("tensorflow")), missing[0] if missing else None)
