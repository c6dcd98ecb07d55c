"""The search for the best edit: candidates scored without generating, a front of refusal against damage, its recipes.

A point of the search is an ablation: directions, and a strength for each writer of the stream (`point`). Its cheap
score (`score`) is how likely the model finds texts that it said before (`texts`): its own refusals against answers, and
what it says to ordinary prompts. Points come from published settings, from a sampler (`sampling`), and from gradient
descent on strengths and directions (`descent`). Few of them are generated from and judged (`rungs`), which also tells
how well the cheap score ranks (`ranking`). All that costs time is a unit of a journal (`journal`), so that a search
goes on where it was killed, and several machines share it. `search` is the verb.
"""
