"""`python -m weight_edit` is the command `weight-edit`."""

from weight_edit.cli import main

if __name__ == "__main__":
    main()
