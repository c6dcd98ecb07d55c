"""The steps of the page, one file each: a function that puts its part into the frame."""
