"""Training of one run by several processes, the ranks of torch.distributed.

In: the losses of each rank's share of a batch, gradients, functions that the first rank alone runs. Out: losses, gradients and
values that are equal on all ranks. It must not know methods, optimizers or files.
"""
