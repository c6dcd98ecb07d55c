"""llama.cpp's own converter, run in a copy of this process, since its imports take longer than small models do."""

import multiprocessing
import os
import runpy
import sys
from pathlib import Path


def convert(folder: Path, file: Path, *, converter: Path, pre_tokenizer: str | None) -> None:
    """Make a GGUF file of a folder, in F16.

    Args:
        pre_tokenizer: of a home-made vocabulary, whose hash the converter cannot know; None for a published one.

    Raises:
        ValueError: the converter fails; the message is the last line of what it said.
    """
    for place in (converter.parent / "gguf-py", converter.parent):
        if str(place) not in sys.path:
            sys.path.insert(0, str(place))
    import conversion.base  # noqa: F401

    log = file.with_suffix(".log")
    process = multiprocessing.get_context("fork").Process(
        target=_run, args=(folder, file, log), kwargs={"converter": converter, "pre_tokenizer": pre_tokenizer}
    )
    process.start()
    process.join()
    if process.exitcode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ValueError(f"converter: {lines[-1] if lines else 'it ended'}")


def _run(folder: Path, file: Path, log: Path, *, converter: Path, pre_tokenizer: str | None) -> None:
    with log.open("w", encoding="utf-8") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    if pre_tokenizer:
        from conversion import base, gemma

        base.TextModel.get_vocab_base_pre = lambda self, tokenizer: pre_tokenizer
        for each in (gemma.GemmaModel, gemma.Gemma2Model, gemma.Gemma3Model):
            each.set_vocab = base.TextModel._set_vocab_gpt2
    sys.argv = [str(converter), str(folder), "--outfile", str(file), "--outtype", "f16"]
    runpy.run_path(str(converter), run_name="__main__")
