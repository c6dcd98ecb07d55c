"""Models on the Hub by words in their names, where there is a network."""

import os

from weight_edit.errors import plain
from weight_edit.redaction import given_token, redacted

_MOST = 20


def search_hub(words: str, token: str | None = None) -> tuple[list[str], str]:
    """Names of text models on the Hub, the most downloaded first; or none, and why."""
    words, token = words.strip(), (token or "").strip()
    if not words:
        return [], "Write some words of the model's name."
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return [], "HF_HUB_OFFLINE is set: the Hub is not asked."
    from huggingface_hub import HfApi

    from weight_edit.hub.client import bounded_client

    try:
        with bounded_client():
            api = HfApi(token=given_token(token) if token else None)
            found = api.list_models(search=words, pipeline_tag="text-generation", sort="downloads", limit=_MOST)
            names = [plain(model.id) for model in found]
    except Exception as error:  # noqa: BLE001 (whatever the client raises without a network)
        return [], f"The Hub cannot be asked: {redacted(plain(str(error)))[:200] or type(error).__name__}"
    return names, "" if names else "No model is called so."
