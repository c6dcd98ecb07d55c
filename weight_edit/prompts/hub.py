"""Prompts from a data set on the Hugging Face Hub."""

import re
from dataclasses import dataclass

from weight_edit.errors import FOREIGN_ERRORS, UsageError
from weight_edit.prompts.columns import Table
from weight_edit.utils.extras import need

_PART = r"[\w.\-]+(?:\[[^\]]*\])?"
_DATASET = re.compile(
    r"(?P<id>[\w.\-]+/[\w.\-]+)(?:/(?P<config>[\w.\-]+))?"
    rf"(?::(?P<split>{_PART}(?:\+{_PART})*))?(?::(?P<column>.+))?"
)


@dataclass(frozen=True)
class DatasetName:
    """The parts of `org/dataset[/configuration]:split[:column]`.

    `split` may have slices, as `train[:128]`. `revision` is a commit, a branch or a tag; None is the newest state.
    """

    id: str
    config: str | None
    split: str
    column: str | None
    revision: str | None = None


class Gated(UsageError):
    """Raised for a data set whose terms have to be accepted on the Hub first."""


def parse_dataset(spec: str) -> DatasetName | None:
    """The parts of a data set's name; None if `spec` has another form.

    Raises:
        UsageError: the form is right but the split is missing.
    """
    match = _DATASET.fullmatch(spec)
    if match is None:
        return None
    if match["split"] is None and match["column"] is not None:
        return None
    if match["split"] is None:
        raise UsageError(f"{spec}: no such file; for a data set on the Hub add a split, as in {spec}:train[:128]")
    return DatasetName(match["id"], match["config"], match["split"], match["column"])


def read_dataset(name: DatasetName) -> Table:
    """The columns of a split, downloaded or cached; no code of the data set is run.

    Raises:
        Gated: its terms were not accepted, or nobody is logged in.
        UsageError: no access to the Hub, no such data set, configuration or split, or it cannot be read.
    """
    need("datasets", f"reading {name.id} from the Hub")
    import httpx2
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    from weight_edit.hub.calls import token_for_datasets
    from weight_edit.hub.client import bounded_client

    # Without one the library takes the token that is kept, and shows one that cannot be sent.
    token = token_for_datasets()
    where = f"{name.id} (split {name.split})"
    pinned = {} if name.revision is None else {"revision": name.revision}
    access = {} if token is None else {"token": token}
    try:
        with bounded_client():
            dataset = load_dataset(name.id, name.config, split=name.split, **pinned, **access)
    except DatasetNotFoundError as error:
        reason = _line(error)
        # The library has no error of its own for these.
        if "gated dataset" in reason:
            raise Gated(
                f"{name.id} is gated: accept its terms on https://huggingface.co/datasets/{name.id}, then log in with "
                "`hf auth login` or set HF_TOKEN"
            ) from None
        raise UsageError(f"{where}: {reason}; check the name, or log in if it is private or gated") from None
    except ConnectionError as error:
        raise UsageError(
            f"{where}: the Hub cannot be reached and the data set is not in the cache ({_line(error)}); "
            "go online, or save the prompts to a file"
        ) from None
    except (DatasetsError, httpx2.HTTPError, *FOREIGN_ERRORS) as error:
        # ValueError: unknown split or a configuration is needed; RuntimeError: the data set is a script.
        raise UsageError(
            f"{where} cannot be loaded: {_line(error)} (a configuration is written {name.id}/CONFIGURATION:SPLIT)"
        ) from None
    return {column: list(dataset[column]) for column in dataset.column_names}


def _line(error: BaseException) -> str:
    from weight_edit.hub.calls import unsigned

    return unsigned(" ".join(str(error).split()).rstrip("."))
