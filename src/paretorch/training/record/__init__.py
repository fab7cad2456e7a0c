"""The files of a run and their content.

In: numbers of steps, epochs and the finished run. Out: ``run.json``, ``events.jsonl`` and ``result.json``, and the same values
read back after checking that the files belong to one run. It must not import loops or displays.
"""
