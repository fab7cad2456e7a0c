"""Gradients of several tasks: the graph that autograd recorded, one gradient for each task, their Gramian.

In: the tasks' losses or cotangents, and the leaves or features to differentiate at. Out: :class:`~.task_gradients.Gradients`,
Gramians in float64 on the host, averaged over ranks, and the evidence that a method takes. The package must not
depend on methods, Forks or Balancers.
"""
