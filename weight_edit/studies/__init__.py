"""Studies: experiments on an unedited model under hooks, which write tables and figures."""
