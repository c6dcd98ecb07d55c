"""What tests of forward passes share."""

import pytest

from weight_edit.runtime import request
from weight_edit.runtime.batching import Batch


@pytest.fixture
def counted(monkeypatch):
    """The batches that were run, in order."""
    seen: list[Batch] = []
    as_pass = request.as_pass

    def noted(batch, step):
        seen.append(batch)
        return as_pass(batch, step)

    monkeypatch.setattr(request, "as_pass", noted)
    return seen
