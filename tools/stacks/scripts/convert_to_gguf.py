"""llama.cpp's own converter; of a home-made vocabulary, whose hash it cannot know, the pre-tokenizer is given by name.

python convert_to_gguf.py CONVERTER FOLDER FILE [PRE_TOKENIZER]
"""

import runpy
import sys
from pathlib import Path

converter, folder, file = map(Path, sys.argv[1:4])
named = sys.argv[4] if len(sys.argv) > 4 else ""
sys.path[0] = str(converter.parent)
sys.path.insert(1, str(converter.parent / "gguf-py"))
if named:
    from conversion import base, gemma

    base.TextModel.get_vocab_base_pre = lambda self, tokenizer: named
    for each in (gemma.GemmaModel, gemma.Gemma2Model, gemma.Gemma3Model):
        each.set_vocab = base.TextModel._set_vocab_gpt2
sys.argv = [str(converter), str(folder), "--outfile", str(file), "--outtype", "f16"]
runpy.run_path(str(converter), run_name="__main__")
