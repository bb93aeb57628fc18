"""The machines jobs run on: the embedded cluster and the profiles of others. Knows no jobs."""
