"""The heading of a step."""

from weight_edit.ui.markup import code, text


def heading(title: str, *sentences: str) -> None:
    """Put a title with some sentences below it; what stands between backticks is code."""
    import gradio

    said = "".join(f"<p>{code(each)}</p>" for each in sentences)
    gradio.HTML(f'<div class="we-heading"><h2>{text(title)}</h2>{said}</div>')
