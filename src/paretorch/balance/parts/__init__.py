"""Parts of methods that several methods share: checks of options and losses, and what a method stores for each task.

In: options, the evidence of a step, and the tensors of a state. Out: checked values, and tensors for the next state. The package
must not import a method.
"""
