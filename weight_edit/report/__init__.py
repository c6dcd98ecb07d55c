"""The report of runs: one page that people read, and its pictures, made of what the runs keep."""
