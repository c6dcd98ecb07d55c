"""The page of supported families, docs/architectures.md, made from the whole catalogue."""

import hashlib
import re
from collections.abc import Iterable
from itertools import groupby

from weight_edit.inspection.catalogue.facts import KINDS
from weight_edit.inspection.catalogue.status import FAILED, PROVEN, REFUSED
from weight_edit.inspection.catalogue.summary import Catalogue
from weight_edit.inspection.catalogue.trial import Trial

MADE_BY = "<!-- Made by `weight-edit inspect --all"
BEGIN, END = "<!-- post-norm -->", "<!-- /post-norm -->"
_DIGEST = re.compile(r"<!-- digest ([0-9a-f]{64}) -->\n")
EXAMPLES = 4

EXPLAINED = {
    "a norm lies in the residual stream itself": "the stream is normalised again behind an addition, as in "
    "the first GPT and OPT 350m, so that it is no sum of what was written, and projecting the writers is not exact",
    "a constant is written into the stream": "such as positions that are computed: no weight holds them",
    "an operation that does not keep directions apart lies in the stream": "a product with something that differs from "
    "channel to channel, or a convolution, between a writer and the stream",
    "several norms between a writer and the stream": "the gain of one is undone, but not of two",
    "needs a library that is not installed": "with it, the proof decides",
    "an encoder-decoder, or its decoder": "two streams, of which one reads the other",
}
"""Group of refusals -> its explanation."""

_TOP = """\
# Architectures

<!-- Made by `weight-edit inspect --all --page docs/architectures.md` (`make architectures`); do not edit by hand. -->
{digest}
Of the {total} model types that transformers {transformers} maps to text from text, or from images and text,
**{complete} are proven complete{partly_counted} and {refused} are refused by name**.
Made with weight_edit {weight_edit} and torch {torch}; {variants} variants of families are listed beside them.

- **Proven**: a small model of the family, with random weights, norm gains and biases, was saved with `save_pretrained`,
  baked by the command line with two random directions, and loaded back by transformers. Of each value of the residual
  stream less than 1e-05 lay along the directions, in float32, and logits differed by less than 1e-04 from those of
  the source with the edit as hooks; on text, and with an image where the model takes any.
- **Refused**: `bake` stops with exit code 3 and the reason, before a byte is written.
{partly}
Nothing here is a list that the tool goes by. Each model is derived and proven anew when you first use it, so one that
is not listed works if its structure is of a known kind: `weight-edit inspect MODEL` says so, from config.json and the
headers of the weights. `--prove` proves it in several rounds. The verdicts lie beside this page as data, in the file
of its name that ends in `.json`.

## Find your model

Look for the `model_type` of its config.json. *In italics: refused.*

{index}

## How each kind of structure is handled

A family is of several kinds. `v` is a direction that is removed, `W` the weight of a writer: of a map whose output is
added to the residual stream.

| kind | what is done | proven model types | such as |
|---|---|---|---|
{kinds}

Blocks whose tokens are mixed without softmax, by class: {mixers}.

## Naive projection against this one

{begin}{kept}{end}

## Proven

The leak is the largest share of any value of the stream that is left along the directions (before: {before} or more),
"hooks" the largest difference in logits between hooks and edited weights.

| model type | class | reads | leak | hooks | what writes | kinds |
|---|---|---|---|---|---|---|
{rows}

## Refused

{reasons}

| model type | class | reason |
|---|---|---|
{refusals}
"""


def page_of(found: Catalogue, before: str = "") -> str:
    """The page in Markdown.

    Args:
        found: all trials, none of which failed.
        before: the page as it was, from which the measured table of projections is kept.

    Raises:
        ValueError: a trial failed, so that there is no verdict to publish.
    """
    if failed := found.having(FAILED):
        raise ValueError(f"'{failed[0].label}' has no verdict: {failed[0].reason}")
    proven, refused = found.having(PROVEN), found.having(REFUSED)
    counts = found.counts()
    unfollowed = found.partly()
    kept = before.partition(BEGIN)[2].partition(END)[0] or "\n"
    text = _TOP.format(
        digest="{digest}",
        total=sum(counts.values()),
        complete=counts[PROVEN] - unfollowed,
        partly_counted=f", {unfollowed} but for a part that is named," if unfollowed else "",
        refused=counts[REFUSED],
        variants=sum(trial.variant is not None for trial in found.trials),
        index=_index(found.trials),
        kinds="\n".join(_kind(kind, count, proven) for kind, count in found.kinds().items()),
        mixers=", ".join(f"`{name}`" for name in sorted({name for trial in proven for name in trial.mixers})) or "none",
        begin=BEGIN,
        kept="{kept}",
        partly=_partly(proven),
        end=END,
        before=f"{min((trial.leak_before or 0 for trial in proven), default=0):.1f}",
        rows="\n".join(map(_row, proven)),
        reasons="\n".join(map(_group, found.reasons().items())),
        refusals="\n".join(f"| {_cell(t.label)} | {_cell(t.architecture)} | {_cell(t.why)} |" for t in refused),
        **found.versions,
    )
    return _joined(text, f"<!-- digest {_digest(text)} -->\n", kept)


def is_as_made(page: str) -> bool:
    """Whether a page is unchanged since `page_of`, apart from its measured table of projections."""
    said = _DIGEST.search(page)
    if said is None:
        return False
    first, _, rest = page.partition(BEGIN)
    plain = _DIGEST.sub("{digest}\n", first, count=1) + BEGIN + "{kept}" + END + rest.partition(END)[2]
    return _digest(plain) == said[1]


def listed(page: str) -> set[str]:
    """The model types in a page's index."""
    index = page.partition("## Find your model")[2].partition("\n## ")[0]
    return {name for name in re.findall(r"`([^`]+)`", index) if name != "model_type"}


def _joined(text: str, digest: str, kept: str) -> str:
    return text.replace("{digest}\n", digest, 1).replace("{kept}", kept, 1)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _index(trials: Iterable[Trial]) -> str:
    usual = sorted((t for t in trials if t.variant is None), key=lambda trial: trial.model_type.lower())
    lines = []
    for letter, members in groupby(usual, key=lambda trial: trial.model_type[0].upper()):
        names = (f"`{t.model_type}`" if t.status == PROVEN else f"*`{t.model_type}`*" for t in members)
        lines.append(f"**{letter}** {' '.join(names)}")
    return "  \n".join(lines)


def _kind(kind: str, count: int, proven: Iterable[Trial]) -> str:
    having = [trial.label for trial in proven if kind in trial.kinds and trial.variant is None]
    # Spread over the alphabet, so that not all come from one house.
    some = having[:: max(1, len(having) // EXAMPLES)][:EXAMPLES]
    return f"| {kind} | {KINDS[kind]} | {count} | {_cell(', '.join(some))} |"


def _row(trial: Trial) -> str:
    numbers = f"{trial.leak:.0e} | {trial.logit_difference:.0e}"
    writers = ", ".join(f"`{name}`" for name in _short(trial.writers))
    notes = "".join(f"; not followed: {sentence}" for sentence in trial.unknown)
    kinds = "; ".join(trial.kinds) + notes
    return (
        f"| {_cell(trial.label)} | {_cell(trial.architecture)} | {', '.join(trial.tasks)} | {numbers} "
        f"| {_cell(writers)} | {_cell(kinds)} |"
    )


def _short(writers: Iterable[str]) -> list[str]:
    """Writers' names without the path to the blocks, each once."""
    return list(dict.fromkeys(name.partition(".*.")[2] or name.rpartition(".")[2] for name in writers))


def _group(counted: tuple[str, int]) -> str:
    reason, count = counted
    return f"- {count}: {reason}" + (f" ({EXPLAINED[reason]})" if reason in EXPLAINED else "")


def _partly(proven: Iterable[Trial]) -> str:
    """A sentence on families with parts that could not be followed; empty if there are none."""
    some = [trial.label for trial in proven if trial.unknown]
    if not some:
        return ""
    return (
        f"- **Not followed**: in {', '.join(f'`{name}`' for name in some)}, something beside text and images may reach "
        "the stream and could not be followed; it is named in the row. `bake` asks for `--projector partial` or "
        "`skip` there, and edits all the rest.\n"
    )


def _cell(text: str) -> str:
    """Text escaped for a table cell."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
