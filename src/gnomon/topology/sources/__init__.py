"""Where a topology is read from: the labels of a Kubernetes cluster, EC2, SLURM.

Each source has one function that returns a `Topology`; the clients of the clouds are imported when it is called.
"""
