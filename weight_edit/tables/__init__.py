"""What a result is shown as in a notebook and by `show`: tables of figures with their intervals."""
