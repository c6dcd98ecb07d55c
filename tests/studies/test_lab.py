"""What a lab asks of the model without edits, and how often."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from weight_edit.evaluation import target
from weight_edit.studies.lab import Lab


def test_no_prompt_of_the_unedited_model_is_answered_twice(
    lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = target.generate, Counter[tuple[int, ...]]()

    def generate(model, sequences, **options):
        asked.update(map(tuple, sequences))
        return real(model, sequences, **options)

    monkeypatch.setattr(target, "generate", generate)
    study = lab()
    # As long as what the divergence is measured over, so that one answer serves both.
    study = replace(study, max_new_tokens=study.kl_tokens)
    base = study.base_evaluation
    assert len(asked) == 22
    assert set(asked.values()) == {1}
    assert base.divergence is not None
    assert base.divergence.max == base.continuation.mean == 0
