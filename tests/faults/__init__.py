"""Real trainings, studies and packings whose processes fail at instants that are drawn, and files that are damaged.

``--faults-seed`` and ``--faults-count`` of pytest choose the seed, and the number of kills or damaged files of each kind.
"""
