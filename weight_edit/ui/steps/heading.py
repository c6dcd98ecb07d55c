"""The heading of a step."""

from weight_edit.ui.markup import text


def heading(title: str, *sentences: str) -> None:
    """Put a title with some sentences below it."""
    import gradio

    said = "".join(f"<p>{text(each)}</p>" for each in sentences)
    gradio.HTML(f'<div class="we-heading"><h2>{text(title)}</h2>{said}</div>')
