"""The parts of the page, one file each: what a run has of them, in sentences, pictures and tables."""
