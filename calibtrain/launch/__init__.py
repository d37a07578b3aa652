"""Launches runs and ablations on Slurm clusters and on Cloud TPUs under GKE.

`assignment` resolves a configuration into its runs, `worker` runs on each host, `slurm` submits
jobs, `jobset` writes the Kubernetes manifest, and `gke` applies it.
"""
